"""A framer of lines that keeps the whole stream, as the reference for the real one."""

from agentrq_worker.process.framing import LineFramer, LineTooLong


def reference(stream: bytes, max_line: int) -> list[bytes | LineTooLong]:
    out: list[bytes | LineTooLong] = []
    *ended, last = stream.split(b"\n")
    for text, newline in [*((line, b"\n") for line in ended), (last, b"")]:
        if len(text) > max_line:
            out.append(LineTooLong(len(text)))
        elif text.strip():
            out.append(text + newline)
    return out


def frame(chunks: list[bytes], max_line: int) -> list[bytes | LineTooLong]:
    framer = LineFramer(max_line)
    out = [line for chunk in chunks for line in framer.feed(chunk)]
    return out + framer.close()

"""Programs for probe_runner.py that mean harm. Each says one word once its attack is under way, and is deaf to signals
that can be ignored; `SAYS` has the words."""

from __future__ import annotations

from typing import Final

DEAF: Final = """
import os, signal, sys, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
"""
SLEEP: Final = """
while True:
    time.sleep(60)
"""
FORKS: Final = (
    DEAF
    + """
for _ in range(30):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.environ.clear()
            os.closerange(0, 3)
        while True:
            time.sleep(60)
say("forked")
"""
    + SLEEP
)
FORK_LOOP: Final = (
    DEAF
    + """
say("forking")
while True:  # each child lives shortly: as many a second as the machine makes
    if os.fork() == 0:
        os.setsid()
        os._exit(0)
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
"""
)
SOCKETS: Final = (
    DEAF
    + """
import socket
kept = [socket.socket(socket.AF_UNIX) for _ in range(500)]
for number, opened in enumerate(kept[:50]):
    opened.bind(f"\\0hostile-{os.getpid()}-{number}")
    opened.listen()
say("open")
"""
    + SLEEP
)
STDERR: Final = (
    DEAF
    + """
say("flooding")
line = b"\\xff\\x1b[2J" + b"e" * 65536
while True:
    os.write(2, line + b"\\n" * 50)
"""
)


def no_newline(megabytes: int) -> str:
    """So many megabytes without a newline, then one."""
    return (
        DEAF
        + f"""
say("without a newline")
for _ in range({megabytes} * 16):
    os.write(1, b"x" * 65536)
os.write(1, b"\\n")
say("done")
"""
        + SLEEP
    )


DEEP: Final = (
    DEAF
    + """
deep = '{"type":"assistant","message":' + "[" * 90_000 + "]" * 90_000 + "}"
for text in ("[" * 500_000, '{"type":' * 100_000, "\\x00\\xff\\xfe", deep):
    os.write(1, text.encode("latin-1") + b"\\n")
say("deep")
"""
    + SLEEP
)
DISK: Final = (
    DEAF
    + """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
full = 0
for number in range(10_000):  # until the file system, or a limit, says no
    try:
        with open(f"fill-{number}", "wb", 0) as file:
            for _ in range(64):
                if file.write(b"x" * (1 << 20)) < 1 << 20:
                    raise OSError(28, "short")
    except OSError as error:
        full += 1
        if full > 20:
            break
say("full")
"""
    + SLEEP
)
DEAF_ONLY: Final = DEAF + 'say("deaf")\n' + SLEEP
CHATTER: Final = (
    DEAF
    + """
say("chattering")
while True:
    os.write(1, b'{"type":"agent_event","event":{"type":"news"}}\\n' * 500)
"""
)

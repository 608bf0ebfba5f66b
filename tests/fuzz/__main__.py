"""``python -m tests.fuzz [--seconds N] [TARGET]…``: looks for inputs that break a target, N seconds in all.

Guided by coverage with atheris where it is installed, else by hypothesis and mutation of the corpus. An input that
breaks a target is kept in tests/fuzz/corpus/TARGET, where the tests replay it; ``--keep`` adds the shortest of those
that reached new code.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import re
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
KEPT, LONGEST = 40, 600
"""At most so many inputs of a target are kept, none longer than so many bytes."""


def fuzz_with_atheris(name: str, seconds: float, keep: bool) -> tuple[int, bool]:
    """Inputs tried, and whether one broke it. In a process of its own: libFuzzer ends the one it runs in."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [
            sys.executable, "-m", "tests.fuzz", "--inside", name, scratch, str(CORPUS / name),
            f"-max_total_time={max(int(seconds), 1)}", "-max_len=4096", "-timeout=20", "-rss_limit_mb=2048",
            "-print_final_stats=1", f"-artifact_prefix={CORPUS / name}/",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        found = re.findall(r"(?:number_of_executed_units:|#)\s*(\d+)", done.stderr)
        broken = done.returncode != 0
        if broken:
            print(done.stderr[-3000:])
        if keep and not broken:
            keep_some(name, sorted(Path(scratch).iterdir(), key=lambda path: path.stat().st_size))
    return max(map(int, found), default=0), broken


def keep_some(name: str, found: list[Path]) -> None:
    directory = CORPUS / name
    room = KEPT - len(list(directory.iterdir()))
    step = max(len(found) // max(room, 1), 1)
    for path in found[::step][: max(room, 0)]:
        data = path.read_bytes()
        if len(data) <= LONGEST:
            (directory / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)


def inside(name: str, arguments: list[str]) -> None:
    import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]

    with atheris.instrument_imports(include=["agentrq", "agentrq_worker"]):
        from tests.fuzz.targets import TARGETS
    atheris.Setup([sys.argv[0], *arguments], TARGETS[name])
    atheris.Fuzz()


def fuzz_with_hypothesis(name: str, seconds: float) -> tuple[int, bool]:
    from hypothesis import HealthCheck, given, seed, settings
    from hypothesis import strategies as st

    from tests.fuzz.targets import TARGETS

    known = [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]
    tried, until = 0, time.monotonic() + seconds
    last = b""
    while time.monotonic() < until:

        @seed(random.randrange(1 << 32))
        @settings(max_examples=300, database=None, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.binary(max_size=400), st.sampled_from(known), st.lists(st.integers(0, 4000), max_size=4))
        def once(piece: bytes, base: bytes, places: list[int]) -> None:
            nonlocal tried, last
            last = base if places else piece
            for place in places:  # cut, overwritten, doubled
                at = place % (len(last) + 1)
                last = last[:at] + (piece if place % 3 else last) + last[at + place % 7 :]
            tried += 1
            TARGETS[name](last)

        try:
            once()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what was looked for
            print(f"{name}: {error!r}")
            (CORPUS / name / f"crash-{hashlib.sha256(last).hexdigest()[:16]}").write_bytes(last)
            return tried, True
    return tried, False


def main() -> int:
    if sys.argv[1:2] == ["--inside"]:
        inside(sys.argv[2], sys.argv[3:])
        return 0
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    given = parser.parse_args()
    names = given.targets or sorted(path.name for path in CORPUS.iterdir())
    guided = find_spec("atheris") is not None
    print(
        f"{given.seconds:g} s for {len(names)} targets, by",
        "atheris" if guided else "hypothesis (atheris is not installed)",
    )
    failed, total, began = [], 0, time.monotonic()
    for name in names:
        share = given.seconds / len(names)
        tried, broken = fuzz_with_atheris(name, share, given.keep) if guided else fuzz_with_hypothesis(name, share)
        total += tried
        failed += [name] if broken else []
        print(f"{name:18} {tried:9} inputs{'   BROKEN' if broken else ''}", flush=True)
    print(f"{total} inputs in {time.monotonic() - began:.0f} s; broken: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""``python -m benchmarks``: run the figures, print the table, keep it in RESULTS.md."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from typing import Any

from benchmarks.report import Row, keep, progress, table, told, versions

MODULES = ("decoding", "pipes", "flood", "bun", "latency", "starts", "idle", "replay", "imports", "growth", "paced")


def main() -> int:
    """Exit code 0 if every figure ran, met or not; 1 if one could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds, under a minute")
    parser.add_argument("--only", metavar="N,…", help="these figures; RESULTS.md is left alone")
    given = parser.parse_args()
    wanted = {int(number) for number in given.only.split(",")} if given.only else set(range(1, 15))
    about = versions()
    rows: list[Row] = []
    notes: list[str] = []
    failed = False
    for name in MODULES:
        module: Any = importlib.import_module(f"benchmarks.figures.{name}")
        figures = wanted & set(module.FIGURES)
        if not figures:
            continue
        began = time.monotonic()
        try:
            found, said = module.run(given.quick, figures)
        except Exception as error:  # noqa: BLE001 - one figure that cannot be measured leaves the others worth having
            failed = True
            found, said = [told(min(figures), f"{name}: not measured", "", "", "")], [f"{name}: {error!r}"]
            progress(f"{name}: {error!r}")
        rows += found
        notes += said
        progress(f"{name}: {time.monotonic() - began:.0f} s")
    rows.sort(key=lambda row: row.figure)
    print(table(rows))
    for note in notes:
        print(f"- {note}")
    if not given.only and not given.quick:
        keep(rows, notes, about, given.quick)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

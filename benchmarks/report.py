"""A figure's rows, the table of all, and the file that keeps the last one. Measures nothing."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from agentrq.embedded.server_process import find_server

RESULTS: Final = Path(__file__).parent / "RESULTS.md"
_HEADS: Final = ("#", "measure", "peer or floor", "agentrq", "ratio", "goal", "met")


class Row(NamedTuple):
    """One line of the table; ``met`` is None where nothing is to be met."""

    figure: int
    measure: str
    peer: str
    ours: str
    ratio: str
    goal: str
    met: bool | None

    def cells(self) -> tuple[str, ...]:
        """As shown."""
        met = "" if self.met is None else "yes" if self.met else "NO"
        return str(self.figure), self.measure, self.peer, self.ours, self.ratio, self.goal, met


def at_least(figure: int, measure: str, peer: str, ours: str, ratio: float, goal: float, sign: str = "×") -> Row:
    """A ratio that is to be high."""
    return Row(figure, measure, peer, ours, _shown(ratio, sign), f"≥ {_shown(goal, sign)}", ratio >= goal)


def at_most(figure: int, measure: str, peer: str, ours: str, ratio: float, goal: float, sign: str = "×") -> Row:
    """A ratio that is to be low."""
    return Row(figure, measure, peer, ours, _shown(ratio, sign), f"≤ {_shown(goal, sign)}", ratio <= goal)


def told(figure: int, measure: str, peer: str, ours: str, ratio: str = "") -> Row:
    """Something that is only reported."""
    return Row(figure, measure, peer, ours, ratio, "", None)


def _shown(value: float, sign: str) -> str:
    if sign == "%":
        return f"{value * 100:.3g} %"
    return f"{value:.3g}{sign}" if abs(value) >= 0.01 or not value else f"1/{1 / value:.0f}"


def rate(value: float) -> str:
    """Messages a second."""
    return f"{value / 1000:.1f}k/s" if value < 1e6 else f"{value / 1e6:.2f}M/s"


def us(seconds: float) -> str:
    """A short time."""
    return f"{seconds * 1e6:.3g} us" if seconds < 1e-3 else f"{seconds * 1e3:.3g} ms"


def ratio(upper: Sequence[float], lower: Sequence[float]) -> float:
    """The ratio of two medians."""
    return statistics.median(upper) / statistics.median(lower)


def versions() -> dict[str, str]:
    """Machine and programs that the figures depend on."""
    found = {"date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")}
    model = ""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            model = next((line.partition(":")[2].strip() for line in info if line.startswith("model name")), "")
    except OSError:
        pass
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    found["machine"] = f"{os.cpu_count()} × {model or platform.machine()}, {memory:.0f} GiB, {platform.platform()}"
    found["load before"] = ", ".join(f"{load:.2f}" for load in os.getloadavg())
    found["Python"] = platform.python_version()
    said = subprocess.run([find_server(), "--version"], capture_output=True, text=True, check=False).stdout
    found["server"] = " ".join(said.split()[:3])
    for name in ("agentrq", "agentrq-worker", "redis", "hiredis", "msgspec", "orjson", "rq", "uvloop"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def table(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table, which reads well enough on a terminal."""
    cells = [_HEADS, *(row.cells() for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_HEADS))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
             for row in cells]  # fmt: skip
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def keep(rows: list[Row], notes: list[str], about: dict[str, str], quick: bool) -> None:
    """Write RESULTS.md."""
    mode = "python -m benchmarks" + (" --quick" if quick else "")
    parts = [
        "# Results of the last run",
        f"`{mode}`. Every ratio is one of medians of rounds in which product and peer took turns. Most rows "
        "without a goal tell what is behind the row above: the least that any way of doing the same takes, or where "
        "the time goes.",
        "\n".join(f"- {name}: {value}" for name, value in about.items()),
        table(rows),
    ]
    if notes:
        parts.append("\n".join(f"- {note}" for note in notes))
    RESULTS.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def progress(text: str) -> None:
    """What is being done, beside the table."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()

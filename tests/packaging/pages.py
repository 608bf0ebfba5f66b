"""The snippets of a page: the files that it lets its reader write, and one shell script of all that the reader runs.

A block whose first line is a comment with nothing but a file's name is that file. ``sh`` blocks, and ``python`` blocks
that are not files, are run in the order of the page. A comment before a block says how: ``<!-- run: port 8000 -->`` in
the background, until the port is served; ``<!-- run: worker -->`` in the background, until the worker is ready;
``<!-- run: background -->`` in the background.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

FENCE = re.compile(
    r"^(?:[ ]*<!-- run: (?P<how>[^>]*?) -->\n)?(?P<indent>[ ]*)```(?P<language>[\w{}-]*)\n(?P<text>.*?)^[ ]*```$",
    re.MULTILINE | re.DOTALL,
)
FILE = re.compile(r"(?:#|//|<!--) ?([\w.-]+\.(?:py|html|toml|mjs|ini|yml|env|conf))(?: -->)?\n")
RUN = ("sh", "python")
PROLOGUE = """set -euo pipefail
background() { "$@" & pids+=($!); }
pids=()
finish() { for pid in "${pids[@]}"; do while kill "$pid"; do sleep 0.1; done; done; wait; }
trap 'code=$?; [ ${#pids[@]} = 0 ] || finish 2>> finish.log; exit $code' EXIT
alive() { kill -0 "${pids[-1]}" || { echo "it has ended" >&2; exit 1; }; }
served() { until (exec 3<> "/dev/tcp/127.0.0.1/$1") 2>> waiting.log; do alive; sleep 0.05; done; }
ready() { until grep -q 'is ready' "$1"; do alive; sleep 0.05; done; }
"""


class Block(NamedTuple):
    """One fenced block: its language, how it is run, its text without the page's indentation."""

    language: str
    how: str
    text: str

    @property
    def file(self) -> str | None:
        """The name of the file that it is."""
        found = FILE.match(self.text)
        return found[1] if found else None


def blocks(path: Path) -> Iterator[Block]:
    """The fenced blocks of a page."""
    for found in FENCE.finditer(path.read_text()):
        yield Block(found["language"], found["how"] or "", textwrap.dedent(found["text"]))


def script(page: list[Block]) -> str:
    """The shell script of a page's snippets."""
    parts = [PROLOGUE]
    for number, block in enumerate(page):
        if block.language not in RUN or block.file is not None:
            continue
        text = block.text
        if block.language == "python":
            parts.append(f"cat > block{number}.py << 'END'\n{text}END\npython -W error block{number}.py\n")
        elif not block.how:
            parts.append(text)
        else:
            parts.append(f"cat > block{number}.sh << 'END'\nset -eu\nexec env {text}END\n")
            how, _, argument = block.how.partition(" ")
            wait = {"port": f"served {argument}", "worker": f"ready block{number}.log", "background": "alive"}[how]
            parts.append(f"background bash block{number}.sh 2> block{number}.log\n{wait}\n")
    return "".join(parts)

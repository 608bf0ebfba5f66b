"""What the harness is worth: with one of the guards taken out, it has to fail.

``python -m tests.faults.mutants`` shows how each mutant is found.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final
from unittest import mock

from agentrq.client.subscription import Mailbox
from agentrq.embedded.server_process import ServerProcess
from agentrq.wire import scripts
from tests.faults import harness
from tests.faults.chaos import storm

SEEDS: Final = range(24)
RUN_S: Final = 20.0


def _in_write(*changes: tuple[str, str]) -> Callable[[], contextlib.AbstractContextManager[object]]:
    def patched() -> contextlib.AbstractContextManager[object]:
        source = scripts.SOURCES["write_events"]
        for old, new in changes:
            assert source.count(old) == 1, old
            source = source.replace(old, new)
        return mock.patch.dict(scripts.SOURCES, write_events=source)

    return patched


@contextlib.contextmanager
def _no_reading_after_subscribing() -> Iterator[None]:
    with mock.patch.object(Mailbox, "on_subscribed", return_value=None):
        yield


CONTROL: Final = "nothing is taken out"
MUTANTS: Final[dict[str, Callable[[], contextlib.AbstractContextManager[object]]]] = {
    CONTROL: contextlib.nullcontext,
    "the epoch is not compared": _in_write(
        ("if tonumber(seen[1]) < tonumber(epoch) then return 'behind', seen[3] end", ""),
        ("if seen[1] ~= epoch or seen[2] ~= claim then return 'fenced', seen[3] end", ""),
    ),
    "the stream is not read after subscribing": _no_reading_after_subscribing,
    "the server numbers the events": _in_write(
        ("      elseif seq <= last then\n        repeated = true\n", ""),
        ("        if seq ~= last + 1 and kind ~= 'g' then return 'gap', cursor end\n", ""),
        ("bytes = bytes + append(keys[2], cursor, 'message', json)",
         "bytes = bytes + append(keys[2], epoch .. '-*', 'message', json)"),
        ("bytes = bytes + append(keys[2], cursor, kind == 's' and 'status' or 'receipt', json)",
         "bytes = bytes + append(keys[2], epoch .. '-*', kind == 's' and 'status' or 'receipt', json)"),
    ),
    "a repeated event is not noticed": _in_write(
        ("      elseif seq <= last then\n        repeated = true\n", ""),
        ("        if seq ~= last + 1 and kind ~= 'g' then return 'gap', cursor end\n", ""),
    ),
}  # fmt: skip


async def survives(mutant: str, directory: Path) -> str:
    """Run seeds with a mutant; answers how it was found, or '' if it lived."""
    with ServerProcess(directory) as server, mock.patch.object(harness, "RUN_S", RUN_S), MUTANTS[mutant]():
        try:
            await harness.run_seeds(SEEDS, server, storm)
        except BaseExceptionGroup as group:
            error: BaseException = group
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            return str(error)
    return ""


def main() -> None:
    logging.disable(logging.CRITICAL)
    for mutant in MUTANTS:
        with tempfile.TemporaryDirectory() as directory:
            found = asyncio.run(survives(mutant, Path(directory)))
        print(f"{mutant}: {found[:400] or 'not found'}", flush=True)


if __name__ == "__main__":
    main()

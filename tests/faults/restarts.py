"""A server that is killed and comes back, with all it acknowledged or with an older state of itself."""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from pathlib import Path

from agentrq.embedded.server_process import ServerProcess


class Restartable:
    """A server whose socket stays the same over its lives; ``args`` as for ServerProcess. A context manager."""

    def __init__(self, directory: Path, *args: str) -> None:
        self.directory = directory
        self.kills = 0
        self._args = args
        self._server = ServerProcess(directory, args=args)
        self.path, self.url = self._server.path, self._server.url

    @property
    def pid(self) -> int:
        return self._server.pid

    def kill(self) -> None:
        """SIGKILL."""
        self._server.kill()
        self.kills += 1

    async def stay_down(self, seconds: float) -> None:
        """The time between `kill` and `start`: an outage has no event of its own to wait for."""
        await asyncio.sleep(seconds)

    def start(self) -> None:
        """Come back with what is in the directory. In the thread that made the first: the server dies with it."""
        self._server = ServerProcess(self.directory, args=self._args)

    def remember(self) -> None:
        """Keep a copy of what is on disk now, for `forget`."""
        shutil.copytree(self.directory / "appendonlydir", self.directory / "older", dirs_exist_ok=True)

    def forget(self) -> None:
        """While it is down: put that copy back."""
        shutil.rmtree(self.directory / "appendonlydir")
        shutil.copytree(self.directory / "older", self.directory / "appendonlydir")

    def close(self) -> None:
        self._server.stop()

    def __enter__(self) -> Restartable:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


async def kill_again_and_again(server: Restartable, chance: random.Random) -> None:
    """SIGKILL and restart, until cancelled; a life is 2 to 12 times as long as a start takes here and now."""
    start_s = 0.07
    while True:
        await asyncio.sleep(start_s * chance.uniform(2, 12))
        server.kill()
        await asyncio.sleep(chance.choice((0.0, 0.1, 0.3)))
        began = time.monotonic()
        server.start()
        start_s = time.monotonic() - began

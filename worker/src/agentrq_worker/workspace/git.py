"""Runs git for the worker: bounded in time and bytes, ended with its tree, deaf to what a repository configures.

Owns the command line, the environment and the credentials of every git process of the worker. Does not own what is done
with a repository (the modules beside it).

A repository is hostile: its configuration, hooks, filters and submodules are its author's, or the agent's. No git of
the worker reads a configuration that an agent can write: none of the machine or the user, and none of a workspace's own
`.git`, but for what `upload-pack` serves of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from agentrq.wire.workspace import Workspace
from agentrq_worker.process.environment import is_public
from agentrq_worker.process.runner_process import RunnerProcess
from agentrq_worker.workspace_settings import GitCredentials

MOST_OUTPUT: Final = 256 << 20
"""Bytes that a git may print: the list of the changed files of a large repository fits."""
_DRAIN_S: Final = 5.0
_CONFIG: Final = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.untrackedCache": "false",
    "core.quotePath": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "init.defaultBranch": "main",
    "init.templateDir": "",
    "advice.detachedHead": "false",
    "safe.directory": "*",
    "submodule.recurse": "false",
    "fetch.recurseSubmodules": "false",
    "protocol.allow": "never",
    "user.name": "agentrq",
    "user.email": "agentrq@localhost",
}
_BLOCK: Final = 512  # bytes, of POSIX sh's `ulimit -f`


class GitFailed(Exception):
    """A git command failed; the text is git's own last words, in one line."""


class Access:
    """What git may reach, and with which credentials."""

    def __init__(self, source: Workspace | None = None, credentials: GitCredentials | None = None) -> None:
        """``source``: the repository that is reached; None where git stays on the machine.

        ``credentials`` are told to the repository's own host only, and only where they name it.
        """
        self.variables: dict[str, str] = {}
        self._config = {"protocol.file.allow": "always"}  # workspaces are made from mirrors
        self._password = self._asked_for = ""
        if source is None or source.host is None:
            return
        self._config |= {f"protocol.{scheme}.allow": "always" for scheme in ("https", "http", "ssh", "git")}
        self.variables["GIT_SSH_COMMAND"] = ssh = "ssh -o BatchMode=yes"
        if credentials is None or source.host not in credentials.hosts:
            return
        if credentials.ssh_key is not None:
            self.variables["GIT_SSH_COMMAND"] = f"{ssh} -o IdentitiesOnly=yes -i {shlex.quote(credentials.ssh_key)}"
        elif secret := os.environ.get(credentials.password_env or ""):
            self._password = f"username={credentials.username}\npassword={secret}\n"
            scheme, _, rest = (source.git or "").partition("://")
            place = rest.partition("/")[0].rpartition("@")[2]
            self._asked_for = f"credential.{scheme}://{place}.helper"

    @contextlib.contextmanager
    def opened(self) -> Iterator[tuple[dict[str, str], list[int]]]:
        """Configuration, and the descriptors that go with it. The password is in memory only, never in a list of
        processes, an environment or a file.
        """
        if not self._password:
            yield self._config, []
            return
        descriptor = os.memfd_create("agentrq-credentials", 0)
        try:
            os.write(descriptor, self._password.encode())
            helper = f'!f() {{ test "$1" = get && cat /proc/self/fd/{descriptor}; }}; f'
            yield self._config | {self._asked_for: helper}, [descriptor]
        finally:
            os.close(descriptor)


LOCAL: Final = Access()


class Git:
    """Runs git until a deadline, for one session."""

    def __init__(self, mark: str, *, deadline: float, max_bytes: int) -> None:
        """``mark``: the session's (`marks.make_mark`), by which leftovers are found. ``deadline``: loop time.

        ``max_bytes``: the largest file that git may write.
        """
        self._mark = mark
        self._deadline = deadline
        self._blocks = -(-max_bytes // _BLOCK)

    async def run(
        self,
        *arguments: str,
        directory: Path,
        stdin: bytes = b"",
        access: Access = LOCAL,
        variables: Mapping[str, str] | None = None,
    ) -> bytes:
        """What ``git -C directory arguments…`` prints. Raises `GitFailed`, TimeoutError; a cancellation ends it."""
        with access.opened() as (config, descriptors):
            environment = self._environment(_CONFIG | config) | access.variables | dict(variables or {})
            argv = ["git", "-C", str(directory), *arguments]
            return await self.execute(argv, environment, stdin, descriptors)

    async def execute(
        self, argv: Sequence[str], environment: Mapping[str, str], stdin: bytes = b"", descriptors: Sequence[int] = ()
    ) -> bytes:
        """What a program prints. Raises as `run` does."""
        chunks: list[bytes] = []
        size = 0
        too_much = False

        def keep(chunk: bytes) -> None:
            nonlocal size, too_much
            size += len(chunk)
            too_much = too_much or size > MOST_OUTPUT
            if not too_much:
                chunks.append(bytes(chunk))

        limited = ["/bin/sh", "-c", 'ulimit -f "$0" && exec "$@"', str(self._blocks), *argv]
        try:
            process = await RunnerProcess.spawn(
                limited, env=environment, mark=self._mark, pass_fds=descriptors, on_chunk=keep, on_stdout_end=_nothing
            )
        except OSError as error:
            raise GitFailed(f"{argv[0]} cannot be started: {error}") from None
        try:
            async with asyncio.timeout_at(self._deadline):
                process.write(stdin)
                process.close_stdin()
                code = await process.wait()
                await process.drain_output(_DRAIN_S)
        finally:
            await process.aclose()
        if too_much:
            raise GitFailed(f"it printed over {MOST_OUTPUT} bytes")
        if code == 127:
            raise GitFailed("git is not installed on the worker's machine")
        if code != 0:
            raise GitFailed(_last_words(process.stderr_tail) or f"git {argv[3]} failed (exit code {code})")
        return b"".join(chunks)

    @staticmethod
    def _environment(config: Mapping[str, str]) -> dict[str, str]:
        given = {name: value for name, value in os.environ.items() if is_public(name) and not name.startswith("GIT_")}
        pairs = {"GIT_CONFIG_COUNT": str(len(config))}
        for place, (name, value) in enumerate(config.items()):
            pairs |= {f"GIT_CONFIG_KEY_{place}": name, f"GIT_CONFIG_VALUE_{place}": value}
        return given | pairs | {
            "HOME": "/nonexistent",
            "XDG_CONFIG_HOME": "/nonexistent",
            "LC_ALL": "C.UTF-8",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "/bin/false",
            "GIT_NO_LAZY_FETCH": "1",
        }  # fmt: skip


def _nothing() -> None:
    pass


def _last_words(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    wrong = [line for line in lines if line.startswith(("fatal:", "error:", "remote:", "ssh:"))]
    return "; ".join((wrong or lines)[-3:])[:500]

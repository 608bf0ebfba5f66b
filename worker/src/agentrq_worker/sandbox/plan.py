"""Plans how a runner is confined: makes of ``[providers.NAME.sandbox]`` a command that confines itself.

Owns what a sandbox means on this machine, the check that this machine can enforce it, and the session's own home. Does
not own the measures themselves (sandbox/apply.py, landlock.py: they run in the new process) nor the environment's
allow-list.

An exec wrapper, because a ``preexec_fn`` forces fork instead of vfork and is not safe beside threads; some 20 ms a
spawn, and only where a sandbox is configured. Limits hold from before the runner's first instruction.
"""

from __future__ import annotations

import marshal
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

from agentrq_worker.sandbox import landlock, seccomp
from agentrq_worker.sandbox.apply import CANNOT, NOT_FOUND, REFUSED
from agentrq_worker.sandbox_settings import Sandbox

OWN_HOME: Final = "own home"
_BOOT: Final = "import sys; sys.path.append(sys.argv.pop(1)); from agentrq_worker.sandbox.apply import main; main()"
_ROOM: Final = str(Path(__file__).parents[2])
SYSTEM: Final = (
    "/bin", "/sbin", "/usr", "/lib", "/lib32", "/lib64", "/etc", "/opt", "/proc", "/sys/devices/system",
    "/sys/fs/cgroup", "/run/systemd/resolve", "/nix/store", "/dev/random", "/dev/urandom", "/dev/zero", "/dev/full",
)  # fmt: skip
"""What every sandboxed runner may read and execute, where it exists."""
_DEVICES: Final = ("/dev/null", "/dev/tty", "/dev/ptmx", "/dev/pts")


class CannotConfine(Exception):
    """What the settings ask for cannot be enforced here; the text says what and why."""


class ConfinedCommand(NamedTuple):
    """A command that confines itself; ``plan`` has to be inherited, and closed after the spawn."""

    argv: list[str]
    plan: IO[bytes]
    enforced: str
    """What holds for the runner, for people."""


class Home(NamedTuple):
    """A session's own home; made and removed here."""

    path: Path

    @classmethod
    def make(cls, homes: Path, session_id: str, login: Iterable[str]) -> Home:
        """The home of a session, new or as its last owner on this machine left it. Raises `CannotConfine`.

        ``login``: files or directories under this worker's own home; copied into a new home only: in an old one the
        agent may have put a link where the copy would go.
        """
        home = cls(homes / session_id)
        try:
            homes.mkdir(0o700, parents=True, exist_ok=True)
            found = homes.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
                raise CannotConfine(f"homes_dir {homes} is not a directory that only this user writes")
            try:
                home.path.mkdir(0o700)
            except FileExistsError:
                if home.path.is_symlink() or not home.path.is_dir():
                    raise CannotConfine(f"{home.path} is not a directory") from None
                return home
            for name in ("home", "tmp"):
                (home.path / name).mkdir(0o700)
            for name in login:
                _copy(Path.home() / name, home.path / "home" / name)
        except OSError as error:
            raise CannotConfine(f"The session's home {home.path} cannot be made: {error}") from None
        return home

    @property
    def variables(self) -> dict[str, str]:
        """What makes it the runner's home."""
        home = self.path / "home"
        xdg = {"CONFIG": ".config", "CACHE": ".cache", "DATA": ".local/share", "STATE": ".local/state"}
        places = {f"XDG_{name}_HOME": str(home / place) for name, place in xdg.items()}
        return {"HOME": str(home), "TMPDIR": str(self.path / "tmp"), **places}

    def remove(self) -> None:
        """Delete it with everything in it; links are not followed. Blocks. What cannot be deleted stays."""
        shutil.rmtree(self.path, ignore_errors=True)


def confine(
    sandbox: Sandbox,
    argv: Sequence[str],
    environment: Mapping[str, str],
    *,
    workspace: Sequence[str] = (),
    roots: Sequence[str] | None = None,
    home: Home | None = None,
    read: Sequence[str] = (),
    keep_variables: Sequence[str] = (),
) -> ConfinedCommand:
    """The command to spawn instead of ``argv``, with an empty environment. Raises `CannotConfine`, FileNotFoundError.

    ``workspace``: writable besides the directory it is spawned in; under ``roots``, where there are any. ``read``: what
    the program itself needs. ``keep_variables``: names that the spawned process gets from its own environment.
    """
    limits = {name: value for name in _LIMITS if (value := getattr(sandbox, name)) is not None}
    if "processes" in limits and os.geteuid() == 0:
        raise CannotConfine("sandbox.processes: this worker runs as root, whom the limit does not bind (setrlimit(2))")
    for name in ("read", "write"):
        for path in getattr(sandbox, name):
            if not os.path.exists(path):
                raise CannotConfine(f"sandbox.{name}: {path} does not exist")
    program = shutil.which(argv[0], path=environment.get("PATH"))
    if program is None and "/" not in argv[0]:
        raise FileNotFoundError(argv[0])
    enforced = ["no_new_privs", "no capabilities", *(f"{name} {value}" for name, value in limits.items())]
    files: dict[str, Any] | None = None
    if sandbox.kind == "landlock":
        found = landlock.version()
        if found < landlock.NEEDED:
            missing = "this kernel has none" if not found else f"this kernel has version {found}"
            raise CannotConfine(f"sandbox.kind landlock: {missing}, version {landlock.NEEDED} (Linux 6.2) is needed")
        if sandbox.connect is not None and found < landlock.NEEDED_FOR_TCP:
            needed = f"version {landlock.NEEDED_FOR_TCP} (Linux 6.7)"
            raise CannotConfine(f"sandbox.connect: this kernel's landlock has version {found}, {needed} is needed")
        if sandbox.connect is not None and not seccomp.known():
            raise CannotConfine(f"sandbox.connect: not on this kind of machine ({os.uname().machine})")
        own = [program, os.path.realpath(program)] if program else []
        files = {
            "read": [*SYSTEM, *own, *_interpreter(), *read, *sandbox.read],
            "write": [
                *(path for path in _DEVICES if os.path.exists(path)), *sandbox.write,
                *([str(home.path)] if home is not None else []),
            ],
            "workspace": [".", *workspace],
            "connect": sandbox.connect,
            "roots": None if roots is None else [os.path.realpath(root) for root in roots],
        }  # fmt: skip
        enforced.insert(0, f"landlock {found}")
        if found >= landlock.SCOPES_SINCE:
            enforced.append("no signals to others")
        if sandbox.connect is not None:
            enforced.append("TCP only to " + (" ".join(map(str, sandbox.connect)) or "nobody"))
    if home is not None:
        enforced.append(OWN_HOME)
    umask = None if sandbox.umask is None else int(sandbox.umask, 8)
    plan = {
        "argv": list(argv), "env": dict(environment), "keep": list(keep_variables),
        "umask": umask, "limits": limits, "landlock": files,
    }  # fmt: skip
    # No name anywhere: the environment in it is nobody else's to read.
    file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed after the spawn
    file.write(marshal.dumps(plan))
    file.flush()
    file.seek(0)
    command = [sys.executable, "-I", "-S", "-B", "-X", "utf8", "-c", _BOOT, _ROOM, str(file.fileno())]
    return ConfinedCommand(command, file, ", ".join(enforced))


_LIMITS: Final = ("memory", "open_files", "processes", "file_size", "cpu_s")


def complaint(code: int, stderr: str) -> tuple[bool, str] | None:
    """What a confinement that failed says: whether it was refused (else: the program is not there), and why."""
    last = stderr.rstrip().rpartition("\n")[2]
    if code != CANNOT:
        return None
    if last.startswith(REFUSED):
        return True, "The sandbox cannot be enforced: " + last.removeprefix(REFUSED)
    if last.startswith(NOT_FOUND):
        return False, "Runner could not be started: " + last.removeprefix(NOT_FOUND)
    return None


def _interpreter() -> list[str]:
    """What the built-in runners need: this Python and what it imports from."""
    return [sys.prefix, sys.base_prefix, *(path for path in sys.path if os.path.isdir(path) and path not in ("", "."))]


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(0o700, parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    elif source.exists():
        shutil.copy2(source, target)
        target.chmod(0o600)

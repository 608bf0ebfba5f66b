"""Confines itself as a plan says, then becomes the runner.

Owns the order of the measures. Runs as a process and with an environment of its own (sandbox/plan.py writes the plan it
reads): nothing that a start can set reaches this interpreter. Fails closed: it exits with `CANNOT` where a measure
fails.
Imports little: `json` and `typing` alone would double what a confined spawn costs.
"""

from __future__ import annotations

import marshal
import os
import resource
import sys

from agentrq_worker.sandbox import landlock, seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final, NoReturn

CANNOT: Final = 125
"""The exit code of a confinement that failed, as with other exec wrappers (env, timeout, nice)."""
REFUSED: Final = "agentrq: cannot be confined as asked: "
NOT_FOUND: Final = "agentrq: cannot be executed: "
LIMITS: Final = {
    "memory": resource.RLIMIT_DATA,  # and not RLIMIT_AS: V8 and others reserve far more than they use
    "open_files": resource.RLIMIT_NOFILE,
    "processes": getattr(resource, "RLIMIT_NPROC", -1),
    "file_size": resource.RLIMIT_FSIZE,
    "cpu_s": resource.RLIMIT_CPU,
}


def main() -> NoReturn:
    """``argv[1]``: the descriptor of the plan."""
    try:
        with open(int(sys.argv[1]), "rb") as file:
            plan = marshal.load(file)  # noqa: S302 - from the worker itself, by an anonymous file
        apply(plan)
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        _give_up(REFUSED, error)
    try:
        # What the worker marked this process with stays: it knows its children by it.
        kept = {name: os.environ[name] for name in plan["keep"] if name in os.environ}
        os.execvpe(plan["argv"][0], plan["argv"], plan["env"] | kept)  # noqa: S606
    except OSError as error:
        _give_up(NOT_FOUND, f"{plan['argv'][0]}: {error.strerror}")


def apply(plan: dict[str, Any]) -> None:
    """Umask, limits, privileges, files. Raises OSError, ValueError."""
    if plan["umask"] is not None:
        os.umask(plan["umask"])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would be everybody's secrets on disk
    for name, value in plan["limits"].items():
        hard = resource.getrlimit(LIMITS[name])[1]
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(LIMITS[name], (bound, bound))
    landlock.no_new_privs()
    files = plan["landlock"]
    if files is None:
        landlock.no_capabilities()
    else:
        read = [_opened(path, None) for path in files["read"] if os.path.exists(path)]
        write = [_opened(path, None) for path in files["write"]]
        write += [_opened(path, files["roots"]) for path in files["workspace"]]
        landlock.no_capabilities()
        landlock.restrict(read, write, files["connect"])
        if files["connect"] is not None:
            seccomp.connect_only_by_connect()
        for descriptor in (*read, *write):
            os.close(descriptor)


def _opened(path: str, roots: list[str] | None) -> int:
    """A descriptor for a rule; a path of a workspace has to lie under the roots after links are followed."""
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    if roots is not None:
        real = os.readlink(f"/proc/self/fd/{descriptor}")
        if not any(real == root or real.startswith(root.rstrip("/") + "/") for root in roots):
            raise OSError(f"{real} is not under policy.roots")
    return descriptor


def _give_up(what: str, why: object) -> NoReturn:
    print(f"{what}{why}", file=sys.stderr, flush=True)  # noqa: T201 - stderr is the runner's log
    os._exit(CANNOT)

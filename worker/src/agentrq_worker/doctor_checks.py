"""What ``agentrq doctor`` checks of a machine that runs workers: files, /proc, landlock, directories, agents.

`agentrq.cli.doctor` finds it by the entry-point group ``agentrq.doctor``. Owns the findings and their words. Changes
nothing; of the agents it runs ``--version``, each at most `VERSION_S`.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeAlias

from agentrq_worker.process import procfs
from agentrq_worker.providers import registry
from agentrq_worker.sandbox import landlock
from agentrq_worker.settings import InvalidSetting, Settings, load
from agentrq_worker.settings_checks import check_directories, unknown_variables

Finding: TypeAlias = tuple[str, str, str]
"""What was checked; ``ok``, ``warn`` or ``fail``; the detail."""

VERSION_S: Final = 10.0
FILES_A_SESSION: Final = 5
_MEMORY_FILE_SYSTEMS: Final = frozenset({"tmpfs", "ramfs"})


def checks() -> Iterator[Finding]:
    """All findings about this machine, with the settings of this environment."""
    try:
        settings = load()
        check_directories(settings)
    except InvalidSetting as error:
        yield "settings", "fail", str(error)
        settings = Settings()
    else:
        told = unknown_variables(settings, os.environ)
        yield (("settings", "warn", f"variables {told}") if told else ("settings", "ok", "those of the environment"))
    yield _open_files(settings)
    yield _proc()
    yield _landlock()
    yield _on_disk("homes", settings.homes_path, "sessions' files take memory and are gone with a restart")
    yield _on_disk("spool", settings.spool_path, "events that wait for Redis take the memory that they were to spare")
    for spec in registry.providers().specs.values():
        if spec.program:
            yield _agent(spec)


def _open_files(settings: Settings) -> Finding:
    needed = 256 + FILES_A_SESSION * settings.max_sessions
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        detail = f"limit {hard}: {settings.max_sessions} sessions need {needed} (ulimit -Hn, LimitNOFILE=)"
        return "open files", "warn", detail
    limit = "none" if hard == resource.RLIM_INFINITY else str(hard)
    return "open files", "ok", f"hard limit {limit}; {settings.max_sessions} sessions need {needed}"


def _proc() -> Finding:
    if not procfs.AVAILABLE:
        return "/proc", "warn", "not there: an agent's processes are ended by their group only"
    if not procfs.sees_all(procfs.snapshot()):
        return "/proc", "warn", "hides processes (hidepid=, ProtectProc=): what dead workers left behind is not ended"
    return "/proc", "ok", "shows all processes"


def _landlock() -> Finding:
    version = landlock.version()
    if version < landlock.NEEDED:
        return "landlock", "warn", f'version {version}: sandbox kind = "landlock" needs {landlock.NEEDED} (Linux 6.2)'
    ports = "" if version >= landlock.NEEDED_FOR_TCP else f", connect needs {landlock.NEEDED_FOR_TCP} (Linux 6.7)"
    return "landlock", "ok", f"version {version}{ports}"


def _on_disk(check: str, path: Path, harm: str) -> Finding:
    there = path
    while not there.exists() and there != there.parent:
        there = there.parent
    kind = file_system(there)
    if kind in _MEMORY_FILE_SYSTEMS:
        return check, "warn", f"{path} is in memory ({kind}): {harm}; set {check}_dir"
    free = shutil.disk_usage(there).free
    return check, "ok", f"{path}, {free >> 30} GiB free"


def file_system(path: Path) -> str:
    """The type of the file system that a path is on; empty where that is not known."""
    best, kind = -1, ""
    resolved = os.path.realpath(path)
    for line in procfs.read_file("/proc/self/mountinfo").decode(errors="replace").splitlines():
        before, found, behind = line.partition(" - ")
        if not found or not behind:
            continue
        place = before.split(" ")[4].replace("\\040", " ").rstrip("/")
        if (resolved == place or resolved.startswith(f"{place}/")) and len(place) >= best:
            best, kind = len(place), behind.split(" ", 1)[0]
    return kind


def _agent(spec: registry.ProviderSpec) -> Finding:
    name = spec.program[0]
    places = [os.path.expanduser(place) for place in spec.places]
    found = next((place for place in places if os.path.isfile(place) and os.access(place, os.X_OK)), None)
    found = found or shutil.which(name)
    if found is None:
        return name, "warn", f"not installed: needed for provider {spec.name} only"
    version = _version(found)
    if version is None:
        return name, "warn", f"{found} does not tell its version"
    if spec.tested and version != spec.tested:
        return name, "warn", f"{version} at {found}; tested with {spec.tested}"
    return name, "ok", f"{version} at {found}"


def _version(program: str) -> str | None:
    try:
        done = subprocess.run(
            [program, "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=VERSION_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    said = re.search(rb"\d+\.\d+(\.\d+)?[\w.-]*", done.stdout)
    return said[0].decode() if said else None

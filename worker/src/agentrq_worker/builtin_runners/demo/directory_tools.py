"""The demo's tools: they read the working directory, and only so much of it.

Follows no symlink and opens nothing but regular files, so that no device, pipe or place outside the directory is read.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from agentrq_worker.builtin_runners.demo.claude_output import ToolOutput
from agentrq_worker.builtin_runners.protocol import displayable

SKIPPED = frozenset({".git", ".venv", "node_modules"})
MAX_FILES = 2000
MAX_DIRECTORIES = 2000
MAX_LISTED = 100
MAX_READ = 4096
"""Bytes shown of the file that is read."""
MAX_COUNTED = 64 * 1024 * 1024
"""Bytes read, over all files, to count lines."""
_MAX_TRIED = 50
"""Files opened to find one that is text."""


class Count(NamedTuple):
    """What `count` found: ``lines`` are newlines, as ``wc -l`` counts; ``bounds`` names each bound it met."""

    files: int
    lines: int
    bytes: int
    bounds: list[str]

    def __str__(self) -> str:
        figures = f"{self.files} files, {self.lines} lines, {self.bytes} bytes"
        return f"{figures} ({'; '.join(self.bounds)})" if self.bounds else figures


def list_names(directory: str) -> ToolOutput:
    """The names in ``directory``, one a line, sorted; directories end with a slash."""
    try:
        entries = _entries(directory)
    except OSError as error:
        return _why(error), True
    names = [displayable(entry.name) + ("/" if _is_directory(entry) else "") for entry in entries]
    more = [f"… and {len(names) - MAX_LISTED} more"] if len(names) > MAX_LISTED else []
    return "\n".join(names[:MAX_LISTED] + more) or "(empty)", False


def choose_file(directory: str) -> str | None:
    """The path of the file to read: a README, else the first text, else the first file; None without any."""
    try:
        files = [entry.path for entry in _entries(directory) if _is_file(entry)]
    except OSError:
        return None
    for path in files:
        if os.path.basename(path).lower().startswith("readme"):
            return path
    for path in files[:_MAX_TRIED]:
        if not read_start(path)[1]:
            return path
    return files[0] if files else None


def read_start(path: str) -> ToolOutput:
    """The first `MAX_READ` bytes of a text file, as text; an error when it is binary or cannot be read."""
    try:
        with _open(path) as file:
            data = os.read(file, MAX_READ)
    except OSError as error:
        return _why(error), True
    try:
        # Incremental: the bound may cut the last character.
        text = codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        text = "\0"
    return ("This is a binary file.", True) if "\0" in text else (text, False)


def count(directory: str) -> Count:
    """Count the regular files below ``directory``, their lines and bytes, within the bounds above."""
    files = lines = size = 0
    budget = MAX_COUNTED
    bounds: list[str] = []
    for path in _walk(directory, bounds):
        if files == MAX_FILES:
            bounds.append(f"stopped after {MAX_FILES} files")
            break
        try:
            with _open(path) as file:
                length = os.fstat(file).st_size
                read = 0
                # What has no length (as in /proc) may have no end either.
                while read < length and budget > 0 and (data := os.read(file, min(1 << 20, budget))):
                    read += len(data)
                    budget -= len(data)
                    lines += data.count(b"\n")
        except OSError:
            continue
        files += 1
        size += length
    if budget <= 0:
        bounds.append(f"lines of the first {MAX_COUNTED} bytes only")
    return Count(files, lines, size, bounds)


def _walk(directory: str, bounds: list[str]) -> Iterator[str]:
    waiting = [directory]
    for _ in range(MAX_DIRECTORIES):
        if not waiting:
            return
        try:
            entries = _entries(waiting.pop())
        except OSError:
            continue
        yield from (entry.path for entry in entries if _is_file(entry))
        waiting.extend(entry.path for entry in reversed(entries) if _is_directory(entry) and entry.name not in SKIPPED)
    if waiting:
        bounds.append(f"stopped after {MAX_DIRECTORIES} directories")


@contextmanager
def _open(path: str) -> Iterator[int]:
    """A descriptor of a file to read: never blocks on a pipe, never follows a last symlink."""
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield file
    finally:
        os.close(file)


def _entries(directory: str) -> list[os.DirEntry[str]]:
    with os.scandir(directory) as found:
        return sorted(found, key=lambda entry: entry.name)


def _is_file(entry: os.DirEntry[str]) -> bool:
    return entry.is_file(follow_symlinks=False)


def _is_directory(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False)


def _why(error: OSError) -> str:
    return f"{error.strerror or type(error).__name__}: {displayable(os.fspath(error.filename or ''))}"

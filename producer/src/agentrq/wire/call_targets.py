"""Finds what the input of a tool call names: the paths it touches and the commands it runs. Pure.

Owns the names of members that hold paths, commands or contents, over the tools of all providers and of MCP servers, and
the ways to write a path. Whatever may be a path counts as one; what cannot be told is reported. Does not own what a
rule does with it (approval_policy.py), nor links: a function that is given resolves these.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from posixpath import join, normpath
from typing import Any, Final, NamedTuple

MOST_PATHS: Final = 256
"""Paths of one call that are compared; of a call with more none is certain."""
_MOST_VALUES: Final = 20_000
_PATH_MAX: Final = 4096
_PATH_ENDINGS: Final = (
    "path", "paths", "file", "files", "filename", "filenames", "dir", "dirs", "directory", "directories", "folder",
    "folders", "uri", "uris", "notebook",
)  # fmt: skip
_PERHAPS_PATHS: Final = frozenset({
    "source", "sources", "src", "destination", "dest", "dst", "target", "targets", "from", "to", "root", "roots",
    "grantroot", "location", "locations", "read", "write",
})  # fmt: skip
"""Names of members that hold a path if their text looks like one."""
_CONTENTS: Final = frozenset({
    "content", "contents", "text", "filetext", "body", "oldstring", "newstring", "oldstr", "newstr", "oldtext",
    "newtext", "newsource", "codeedit", "description", "title", "reason", "kind", "type", "mode", "outputmode",
    "editmode", "celltype", "cellid", "id", "toolcallid", "encoding", "language", "message", "instruction",
    "instructions", "explanation", "query", "prompt", "regex",
})  # fmt: skip
"""Names of members whose text is no path."""
_MERE_WORDS: Final = frozenset({
    "data", "value", "note", "comment", "label", "tag", "tags", "format", "action", "operation", "method", "status",
    "version", "category", "priority", "unit", "level", "lang", "separator", "delimiter", "indent", "eol", "newline",
    "outputformat", "sortby", "order", "color", "author", "pages", "model",
})  # fmt: skip
"""Names of members whose text is a path only if it looks like one."""
_PATCHES: Final = frozenset({"diff", "patch", "input"})
_HEADER: Final = re.compile(
    r"^(?:\*\*\* (?:Add|Update|Delete) File: |\*\*\* Move to: |(?:rename|copy) (?:from|to) |(?:---|\+\+\+) (?:[ab]/)?)"
    r"(.+?)(?:\t.*)?\r?$",
    re.MULTILINE,
)
"""The lines of a patch that name a file, as git, diff(1) and codex's apply_patch write them."""
_OTHER_HEADER: Final = re.compile("^(?:diff |Index: )", re.MULTILINE)
"""Lines of a patch that name files, which some patches have no other of."""
_COMMANDS: Final = frozenset(
    {"command", "commands", "cmd", "cmds", "cmdline", "commandline", "shellcommand", "bashcommand", "script", "argv"}
)
_ARGUMENTS: Final = frozenset({"args", "arguments"})
_CWD: Final = frozenset({"cwd", "workdir", "workingdir", "workingdirectory"})
_ENVIRONMENT: Final = frozenset({"env", "environment", "envs"})
_NAME: Final = re.compile("[^a-z]")
_VARIABLE: Final = re.compile(r"\$(?:[A-Za-z_{(])")
_HOME: Final = re.compile(r"(?:~|\$HOME\b|\$\{HOME\})(?=/|$)")
_ESCAPES: Final = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_FILE_URI: Final = re.compile("file:(?://(?:localhost)?)?(?=/)", re.IGNORECASE)
_URI: Final = re.compile("[A-Za-z][A-Za-z0-9+.-]*://")
_BETWEEN_PATHS: Final = re.compile(r"[\r\n]+|[,;:\s]+(?=~|\.{0,2}/)")
_BRACES: Final = re.compile(r"\{[^{}]*,")
"""What a tool that knows the globs of a shell makes several paths of."""
_OF_A_PROCESS: Final = re.compile(r"/+(?:proc|dev/fd|dev/std(?:in|out|err))(?:/|$)")


class Directories(NamedTuple):
    """What the paths of a call are read against."""

    cwd: str | None = None
    """What relative paths are below, where the call does not say so."""
    home: str | None = None
    """The agent's home directory, absolute; None where it is not known."""
    resolve: Callable[[str], str] = normpath
    """Answers where a path leads, links followed. Raises OSError or ValueError where that cannot be told."""


NO_DIRECTORIES: Final = Directories()


class Path(NamedTuple):
    """One path of a call."""

    written: list[str]
    """Each way to read it, as a normalized path with its links."""
    leads_to: list[str]
    """The same, links resolved."""
    likely: bool = True
    """It stands where paths stand, or looks like one. Else it is a mere word, which some tool may take for a path."""


class CallTargets(NamedTuple):
    """What a call names."""

    paths: list[Path]
    named: bool
    """At least one of the paths stands in a member whose name says that it holds a path."""
    commands: list[str]
    paths_are_certain: bool
    """All paths of the call are in ``paths``."""
    commands_are_certain: bool
    """All commands of the call are in ``commands``, and run in the environment of the agent."""


def read_call(given: Any, directories: Directories = NO_DIRECTORIES) -> CallTargets:
    """What the input ``given`` of a tool call names; plain JSON values, of any depth."""
    return _Reader(directories).read(given)


class _Reader:
    def __init__(self, directories: Directories) -> None:
        self._directories = directories
        self._paths: list[Path] = []
        self._seen: set[tuple[str, str, bool]] = set()
        self._named = False
        self._commands: list[str] = []
        self._paths_are_certain = True
        self._commands_are_certain = True

    def read(self, given: Any) -> CallTargets:
        # A list of what is still to be read, and no recursion: an input may be nested as deeply as JSON can be.
        waiting: list[tuple[Any, str, str]] = [(given, "", self._directories.cwd or "")]
        for _ in range(_MOST_VALUES):
            if not waiting or len(self._paths) > MOST_PATHS:
                break
            value, name, base = waiting.pop()
            if isinstance(value, dict):
                waiting += self._members(value, name, base)
            elif isinstance(value, list | tuple):
                waiting += [(item, name, base) for item in value]
            elif isinstance(value, str):
                self._text(value, name, base)
                if name not in _CONTENTS and value.lstrip()[:1] in ("{", "["):
                    waiting += self._within(value, name, base)
            elif value is not None and not isinstance(value, bool | int | float):  # what could not be decoded
                self._paths_are_certain = self._commands_are_certain = False
        if waiting or len(self._paths) > MOST_PATHS:
            self._paths_are_certain = self._commands_are_certain = False
        return CallTargets(
            self._paths, self._named, self._commands, self._paths_are_certain, self._commands_are_certain
        )

    def _members(self, value: dict[Any, Any], name: str, base: str) -> list[tuple[Any, str, str]]:
        members = [(_plain(key), key, member) for key, member in value.items() if isinstance(key, str)]
        for plain, _, member in members:
            if plain in _CWD and isinstance(member, str):
                base = join(base, member)
        self._run(members)
        has_path = any(_holds_paths(plain) and member for plain, _, member in members)
        found: list[tuple[Any, str, str]] = []
        for plain, key, member in members:
            if plain in _ENVIRONMENT and member:
                self._commands_are_certain = False
            if plain in _CWD:
                self._paths_are_certain = self._paths_are_certain and isinstance(member, str | None)
                continue
            if plain in _PATCHES and isinstance(member, str):
                self._patch(member, base, beside_a_path=has_path)
                continue
            known = _holds_paths(plain) or plain in _CONTENTS
            if _looks_like_a_path(key) or (_holds_paths(name) and not known):
                self._path(key, base, named=True)
            found.append((member, plain, base))
        return found

    def _run(self, members: list[tuple[str, str, Any]]) -> None:
        """The commands of an object: texts, or lists of words, with the arguments that stand beside them."""
        arguments = next((member for plain, _, member in members if plain in _ARGUMENTS), None)
        for plain, _, member in members:
            if plain not in _COMMANDS:
                continue
            if isinstance(member, str):
                self._commands.append(" ".join([member, *_words(arguments)]))
            elif isinstance(member, list) and plain in ("commands", "cmds") and _is_texts(member):
                self._commands += member
            elif isinstance(member, list) and member and _is_texts(member):
                self._commands.append(shlex.join([*member, *_words(arguments, quoted=False)]))
            elif isinstance(member, list):  # of objects, which are read in their turn, lists or other things
                self._commands += [item if isinstance(item, str) else shlex.join(item) for item in member
                                   if isinstance(item, str) or _is_texts(item)]  # fmt: skip
                self._commands_are_certain = self._commands_are_certain and all(map(_is_command, member))
            elif member is not None:
                self._commands_are_certain = False

    def _text(self, text: str, name: str, base: str) -> None:
        if name in _COMMANDS or re.match("https?://", text, re.IGNORECASE):
            return
        if _holds_paths(name) or (name in _PERHAPS_PATHS and _looks_like_a_path(text)):
            for path in _paths_of_list(text):
                self._path(path, base, named=True)
        elif name in _MERE_WORDS and not _looks_like_a_path(text):
            return
        elif name not in _CONTENTS and text and len(text) <= _PATH_MAX:
            self._path(text, base, named=False)

    def _within(self, text: str, name: str, base: str) -> list[tuple[Any, str, str]]:
        """What is in a text that is JSON, as models write nested arguments."""
        try:
            return [(json.loads(text), name, base)]
        except RecursionError:
            self._paths_are_certain = False
        except ValueError:
            pass
        return []

    def _patch(self, text: str, base: str, *, beside_a_path: bool) -> None:
        headers = [found for found in _HEADER.findall(text) if found != "/dev/null"]
        for header in headers[: MOST_PATHS + 1]:
            self._path(header, base, named=True)
        if not headers and (not beside_a_path or _OTHER_HEADER.search(text)):
            self._paths_are_certain = False

    def _path(self, text: str, base: str, *, named: bool) -> None:
        if (text, base, named) in self._seen:
            return
        self._seen.add((text, base, named))
        likely = named or _looks_like_a_path(text)
        written, certain = self._readings(text, base)
        leads_to: list[str] = []
        for path in written:
            try:
                leads_to.append(self._directories.resolve(path))
            except (OSError, ValueError):
                certain = False
        if not certain and likely:
            self._paths_are_certain = False
        self._named = self._named or named
        self._paths.append(Path([normpath(path) for path in written], leads_to, likely))

    def _readings(self, text: str, base: str) -> tuple[list[str], bool]:
        """The paths that a tool may take this text for, not normalized, and whether there are no others."""
        found: list[str] = []
        certain = "\0" not in text and len(text) <= _PATH_MAX and not _BRACES.search(text)
        for spelled in dict.fromkeys((text, text.strip(), _ESCAPES.sub(_decoded, text.strip()))):
            if file := _FILE_URI.match(spelled):
                found.append(spelled[file.end() :])
                continue
            found.append(join(base, spelled))
            if home := _HOME.match(spelled):
                found += [self._directories.home + spelled[home.end() :]] if self._directories.home is not None else []
                certain = certain and self._directories.home is not None
            elif spelled.startswith("~") or _URI.match(spelled):
                certain = False
            certain = certain and not _VARIABLE.search(_HOME.sub("", spelled, 1))
        return found, certain and not any(_OF_A_PROCESS.match(normpath(path)) for path in found)


def _decoded(escapes: re.Match[str]) -> str:
    """What percent escapes of a URI stand for."""
    return bytes.fromhex(escapes.group().replace("%", "")).decode(errors="surrogateescape")


def _paths_of_list(text: str) -> list[str]:
    """The text itself, and the paths that it lists where a tool takes it for a list."""
    parts = [] if _URI.match(text) or _FILE_URI.match(text) else _BETWEEN_PATHS.split(text)
    return list(dict.fromkeys([text, *filter(None, parts)]))


def _plain(name: str) -> str:
    """A member's name, however its words are joined: ``file_path``, ``filePath`` and ``FILE-PATH`` are one."""
    return _NAME.sub("", name.lower())


def _holds_paths(name: str) -> bool:
    return name.endswith(_PATH_ENDINGS)


def _looks_like_a_path(text: str) -> bool:
    return "/" in text or text[:1] in ("~", ".", "$")


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_command(value: Any) -> bool:
    return isinstance(value, str | dict) or _is_texts(value)


def _words(arguments: Any, *, quoted: bool = True) -> list[str]:
    if isinstance(arguments, str):
        return [arguments]
    words = (
        [str(word) for word in arguments if isinstance(word, str | int | float)] if isinstance(arguments, list) else []
    )
    return [shlex.quote(word) for word in words] if quoted else words

"""Reads a text as a shell does: separators, quotes, expansions, redirections and here-documents. Pure.

Owns the syntax that sh, bash and zsh share. Gives each simple command, and each text that is a line in its turn, to a
`Reader`. Does not own what the commands are (shell_commands.py).
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple, Protocol

DEEPEST: Final = 20
"""Levels of substitutions that are read."""
_BLANKS: Final = re.compile(r"(?:[ \t\r]|\\\n)+")
_PLAIN: Final = re.compile(r"[^ \t\r\n;&|()<>'\"\\$`*?\[{~=]+")
_IN_DOUBLE: Final = re.compile(r"[^\"\\$`]+")
_IN_BRACES: Final = re.compile(r"[^\"'\\$`}]+")
_REDIRECTION: Final = re.compile(r"<<<|<<-?|<[&>]?|&>>?|>>|>[&|]?")
_PARAMETER: Final = re.compile(r"\$(?:[A-Za-z_][A-Za-z0-9_]*|[0-9@*#?$!_-])")
_ANSI_C: Final = re.compile(r"\$'((?:[^'\\]|\\.)*)'", re.DOTALL)
_BACKQUOTED: Final = re.compile(r"`((?:[^`\\]|\\.)*)`", re.DOTALL)
_BACKQUOTE_ESCAPE: Final = re.compile(r"\\([`\\$])")


class Word(NamedTuple):
    """One word of a command."""

    text: str
    """Without quotes; expansions stand as they were written."""
    certain: int | None = None
    """Characters before the first expansion of the shell; None if there is no expansion."""


class Reader(Protocol):
    """Receives the commands that a scan finds."""

    opaque: bool
    """Commands run that cannot be listed."""

    def add(self, written: str, words: list[Word], depth: int) -> None:
        """Receive a simple command."""

    def read(self, text: str, depth: int) -> None:
        """Receive a text that the command would run as a shell line."""

    def spend(self, characters: int) -> bool:
        """Whether so much more may be read."""


class Scanner:
    """Reads one text as a shell does; what it finds goes to the `Reader`."""

    def __init__(self, found: Reader, text: str, depth: int, at: int = 0) -> None:
        self._found = found
        self._text = text
        self._depth = depth
        self._at = at
        self._begin = at
        self._words: list[Word] = []
        self._here: list[tuple[Word, bool, bool]] = []
        """Here-documents that begin with the next line: their last line, if it is quoted, if tabs may precede it."""

    def commands(self, *, within: bool = False) -> int:
        """Read to the end, or ``within`` a substitution to its parenthesis; answers where it stopped."""
        text, nested = self._text, 0
        while self._at < len(text):
            character = text[self._at]
            if blanks := _BLANKS.match(text, self._at):
                self._at = blanks.end()
            elif character == "#":
                end = text.find("\n", self._at)
                self._at = len(text) if end < 0 else end
            elif character in "<>" or text.startswith("&>", self._at):
                self._redirect()
            elif character in "\n;&|()":
                self._finish(within=within)
                self._at += 1
                self._begin = self._at
                if character == "\n":
                    self._skip_here_documents()
                elif character == "(":
                    nested += 1
                elif character == ")":
                    if within and nested == 0:
                        return self._at
                    nested = max(nested - 1, 0)
            else:
                self._take_word()
        self._finish(within=within)
        if within:
            self._give_up()
        return self._at

    def _give_up(self) -> None:
        self._found.opaque = True
        self._at = len(self._text)

    def _finish(self, *, within: bool) -> None:
        words, self._words = self._words, []
        if words:
            if within and words[0].text == "case":  # its patterns end with a parenthesis
                self._found.opaque = True
            self._found.add(self._text[self._begin : self._at].strip(), words, self._depth)

    def _take_word(self) -> None:
        word, _ = self._word()
        if not (word.text.isdigit() and self._text[self._at : self._at + 1] in ("<", ">")):
            self._words.append(word)

    def _redirect(self) -> None:
        if self._text[self._at : self._at + 2] in ("<(", ">("):
            self._words.append(self._process())
            return
        operator = _REDIRECTION.match(self._text, self._at)
        assert operator is not None
        self._at = operator.end()
        if blanks := _BLANKS.match(self._text, self._at):
            self._at = blanks.end()
        following = self._text[self._at : self._at + 1]
        if self._text[self._at : self._at + 2] in ("<(", ">("):
            self._process()
        elif following and following not in "\n;&|()<>":
            target, quoted = self._word()
            if operator.group() in ("<<", "<<-"):
                self._here.append((target, quoted, operator.group() == "<<-"))

    def _process(self) -> Word:
        """``<( … )``: what it runs is listed; the word it stands for is a file's name."""
        begin = self._at
        self._at += 2
        self._substitution()
        return Word(self._text[begin : self._at], 0)

    def _substitution(self) -> None:
        if self._depth >= DEEPEST:
            self._give_up()
            return
        self._at = Scanner(self._found, self._text, self._depth + 1, self._at).commands(within=True)

    def _skip_here_documents(self) -> None:
        here, self._here = self._here, []
        for delimiter, quoted, tabs in here:
            begin = self._at
            while self._at < len(self._text):
                end = self._text.find("\n", self._at)
                end = len(self._text) if end < 0 else end
                line = self._text[self._at : end]
                self._at = end + 1
                if (line.lstrip("\t") if tabs else line) == delimiter.text:
                    break
            if not quoted and self._found.spend(self._at - begin):
                Scanner(self._found, self._text[begin : self._at], self._depth + 1).here_document()
        self._begin = self._at = min(self._at, len(self._text))

    def here_document(self) -> None:
        """Read a text in which only substitutions count."""
        self._double_quoted([], closes=False)

    # -- words

    def _word(self) -> tuple[Word, bool]:
        """The word that begins here, and whether any of it was quoted."""
        text, pieces, size, certain, quoted = self._text, list[str](), 0, None, False
        while self._at < len(text):
            begin = self._at
            character = text[begin]
            if plain := _PLAIN.match(text, begin):
                piece, made = plain.group(), False
                self._at = plain.end()
            elif character in " \t\r\n;&|()<>":
                break
            elif character in "'\"\\":
                quoted = True
                piece, made = self._quoted()
            elif character in "$`":
                piece, made = self._expansion()
            else:  # * ? [ { ~ =
                self._at += 1
                following = text[self._at : self._at + 1]
                piece = character
                made = _is_made(character, first=size == 0, following=following)
            if made and certain is None:
                certain = size + (piece.find("\0") if "\0" in piece else 0)
            piece = piece.replace("\0", "")
            pieces.append(piece)
            size += len(piece)
        return Word("".join(pieces), certain), quoted

    def _quoted(self) -> tuple[str, bool]:
        """A quoted piece, without its quotes; a NUL stands before what the shell makes in it."""
        text, begin = self._text, self._at
        if text[begin] == "\\":
            self._at += 2
            if self._at > len(text):
                self._give_up()
            following = text[begin + 1 : begin + 2]
            return ("" if following == "\n" else following), False
        if text[begin] == "'":
            end = text.find("'", begin + 1)
            if end < 0:
                self._give_up()
                return "", False
            self._at = end + 1
            return text[begin + 1 : end], False
        self._at += 1
        pieces: list[str] = []
        made = self._double_quoted(pieces)
        return "".join(pieces), made

    def _double_quoted(self, pieces: list[str], *, closes: bool = True) -> bool:
        """The inside of double quotes; whether the shell makes any of it."""
        text, made = self._text, False
        while self._at < len(text):
            character = text[self._at]
            if plain := _IN_DOUBLE.match(text, self._at):
                pieces.append(plain.group())
                self._at = plain.end()
            elif character == '"':
                self._at += 1
                if closes:
                    return made
            elif character == "\\":
                following = text[self._at + 1 : self._at + 2]
                self._at += 2
                pieces.append("" if following == "\n" else following if following in '$`"\\' else "\\" + following)
            else:
                piece, is_made = self._expansion(quoted=True)
                pieces.append("\0" + piece if is_made and not made else piece)
                made = made or is_made
        if closes:
            self._give_up()
        return made

    def _expansion(self, *, quoted: bool = False) -> tuple[str, bool]:
        """What begins with ``$`` or a backquote, as written; whether the shell makes something of it."""
        text, begin = self._text, self._at
        if text[begin] == "`":
            found = _BACKQUOTED.match(text, begin)
            if found is None:
                self._give_up()
                return "", True
            self._at = found.end()
            self._found.read(_BACKQUOTE_ESCAPE.sub(r"\1", found.group(1)), self._depth + 1)
            return found.group(), True
        following = text[begin + 1 : begin + 2]
        if following == "(":
            self._at += 2
            self._substitution()
        elif following == "{":
            self._at += 2
            self._braces(quoted=quoted)
        elif parameter := _PARAMETER.match(text, begin):
            self._at = parameter.end()
        elif following == "'" and not quoted and (found := _ANSI_C.match(text, begin)):
            self._at = found.end()
            return (found.group(1), False) if "\\" not in found.group(1) else (found.group(), True)
        else:  # a mere dollar, also that of $"…"
            self._at += 1
            return ("", False) if following == '"' and not quoted else ("$", False)
        return text[begin : self._at], True

    def _braces(self, *, quoted: bool) -> None:
        """The inside of ``${ … }``."""
        text = self._text
        self._depth += 1
        if self._depth > DEEPEST:
            self._give_up()
        while self._at < len(text):
            character = text[self._at]
            if plain := _IN_BRACES.match(text, self._at):
                self._at = plain.end()
            elif character == "}":
                self._at += 1
                self._depth -= 1
                return
            elif character in "$`":
                self._expansion(quoted=quoted)
            elif character == "'" and quoted:
                self._at += 1
            else:
                self._quoted()
        self._give_up()


def _is_made(character: str, *, first: bool, following: str) -> bool:
    """Whether the shell makes other words of one with this unquoted character."""
    if character in "~=":
        return first
    if character == "{":
        return following not in ("", " ", "\t", "\r", "\n", "}", ";")
    if character == "[":
        return not (first and following in ("", " ", "\t", "["))
    return True

"""Lists the commands that a shell command line runs, as the globs of a policy are compared with them. Pure.

Owns the programs that run another program, and the spellings of a command. It lists too many commands rather than too
few: a rule that denies has to see what runs. Whatever it cannot read makes the line `CommandLine.opaque`. Does not own
the syntax of a shell (shell_scanner.py), nor what a rule does with the commands (approval_policy.py).
"""

from __future__ import annotations

import functools
import re
from typing import Final, NamedTuple

from agentrq.wire.shell_scanner import DEEPEST, Scanner, Word
from agentrq.wire.shell_words import split_words

LONGEST: Final = 128 * 1024
"""Characters of a command line that are read: Linux takes no longer argument (MAX_ARG_STRLEN)."""
_BUDGET: Final = 8 * LONGEST
"""Characters that may be read and listed for one line, its parts read again within others included."""
_MOST_TAILS: Final = 40

_SHELLS: Final = frozenset({
    "sh", "bash", "dash", "zsh", "ksh", "mksh", "ash", "fish", "rbash", "csh", "tcsh", "elvish",
})  # fmt: skip
_RESERVED: Final = frozenset({"if", "then", "elif", "else", "while", "until", "do", "!", "{"})
"""Words of the shell before a command."""
_RUNS_ANOTHER: Final = frozenset({
    "time", "coproc", "function", "noglob", "nocorrect", "sudo", "doas", "su", "runuser", "env", "exec", "command",
    "builtin", "eval", "trap", "alias", "nohup", "nice",
    "ionice", "chrt", "taskset", "timeout", "stdbuf", "unbuffer", "setsid", "setpriv", "xargs", "parallel", "watch",
    "strace", "ltrace", "chroot", "unshare", "nsenter", "flock", "busybox", "toybox", "systemd-run", "caffeinate",
    "script", "ssh", "fakeroot", "proot", "firejail", "bwrap", "faketime", "rlwrap", "torsocks", "proxychains",
    "chpst",
    "setarch", "prlimit", "cgexec",
})  # fmt: skip
"""Programs and words of the shell after which any word may be the program that runs."""
_APPENDS: Final = frozenset({"xargs", "parallel", "-x", "-X", "--exec", "--exec-batch"})
"""Programs, and options of fd, that add arguments to the command they run."""
_FINDS: Final = {
    "find": {"-exec", "-execdir", "-ok", "-okdir"},
    "fd": {"-x", "-X", "--exec", "--exec-batch"}, "fdfind": {"-x", "-X", "--exec", "--exec-batch"},
}  # fmt: skip
"""Programs that run the command behind an option, once for each file that they find."""
_OPTION_TAKES_ONE: Final = frozenset({"-o", "+o", "-O", "+O", "--rcfile", "--init-file"})
_STDIN: Final = frozenset({"-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"})

_SHORT_S: Final = re.compile("-[A-Za-z]*s")
_ASSIGNMENT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\[[^]]*\])?\+?=")
_OF_A_LINE: Final = re.compile(r"[\s;&|`<>()]")
_OPTION_WITH_VALUE: Final = re.compile(r"(?:--[a-z-]+=|-[A-Za-z]*?[Sc])(?=.)")
"""An option in one word with a value that may be a command: env's ``-Srm``, ``--split-string=rm``."""


class CommandLine(NamedTuple):
    """What a line runs."""

    texts: list[str]
    """Each command, in each of its spellings: as written, and its words without quotes."""
    prefixes: list[str]
    """Of commands with words that the shell makes: what is certain before the first of these."""
    opaque: bool
    """The line runs commands that cannot be listed."""


@functools.lru_cache(maxsize=4)  # every rule asks for it
def read_command_line(text: str) -> CommandLine:
    """The commands that a shell runs which is given ``text``."""
    found = _Commands()
    if len(text) > LONGEST:
        found.opaque = True
    else:
        found.read(text, 0)
    return CommandLine(list(found.texts), list(found.prefixes), found.opaque)


@functools.lru_cache(maxsize=4)
def unwrapped(command: str) -> str:
    """The command that a shell is given with ``-c``; any other as it is."""
    shell, _, rest = command.partition(" ")
    if shell.rpartition("/")[2] not in _SHELLS:
        return command
    found = split_words(rest, 3)
    return found[1] if len(found) == 2 and found[0] in ("-c", "-lc") else command


class _Commands:
    """The commands found so far."""

    def __init__(self) -> None:
        self.texts: dict[str, None] = {}
        self.prefixes: dict[str, None] = {}
        self.opaque = False
        self._left = _BUDGET

    def read(self, text: str, depth: int) -> None:
        """Take in a line that a shell would be given."""
        if depth > DEEPEST or not self.spend(len(text)):
            self.opaque = True
        else:
            Scanner(self, text, depth).commands()

    def spend(self, characters: int) -> bool:
        """Whether so much more may be read."""
        self._left -= characters + 1
        self.opaque = self.opaque or self._left < 0
        return self._left >= 0

    def add(self, written: str, words: list[Word], depth: int) -> None:
        """Take in a simple command."""
        first = next((at for at, word in enumerate(words) if not _is_before_a_command(word)), len(words))
        words = words[first:]
        if not words or not self.spend(len(written)):
            return
        self.texts[written] = None
        self._list(words)
        program = _program(words[0])
        if program in _RUNS_ANOTHER:
            self._run_another(program, words, depth)
        elif program in _SHELLS:
            self._run_shell(words, depth)
        elif program in _FINDS:
            places = [place for place, word in enumerate(words) if word.text in _FINDS[program]]
            self.opaque = self.opaque or len(places) > _MOST_TAILS
            for place in places[:_MOST_TAILS]:
                self._run_another(words[place].text, words[place:], depth)
        elif program in (".", "source"):
            self.opaque = self.opaque or any(word.text.startswith("<(") or word.text in _STDIN for word in words)

    def _list(self, words: list[Word], *, surely: bool = True) -> None:
        """Take in a command by its words; not ``surely``: they are only perhaps one."""
        if self._left < 0 or not self.spend(sum(len(word.text) + 1 for word in words)):
            return
        text = " ".join(word.text for word in words)
        self.texts[text] = None
        directory, slash, _ = words[0].text.rpartition("/")
        if slash:
            self.texts[text[len(directory) + 1 :]] = None
        before = 0
        for word in words if surely else ():
            if word.certain is not None:
                prefix = text[: before + word.certain]
                self.prefixes[prefix] = None
                in_program = prefix if before == 0 else words[0].text
                self.prefixes[prefix[in_program.rfind("/") + 1 :]] = None
                return
            before += len(word.text) + 1

    def _run_another(self, program: str, words: list[Word], depth: int) -> None:
        """A program that runs another. Its options are not parsed, so any of its words may be that program."""
        self.opaque = self.opaque or len(words) > _MOST_TAILS
        begun = False
        for place in range(1, min(len(words), _MOST_TAILS)):
            tail = words[place:]
            if option := _OPTION_WITH_VALUE.match(tail[0].text):
                value = Word(tail[0].text[option.end() :], tail[0].certain)
                tail = [value, *tail[1:]]
                if _OF_A_LINE.search(value.text):
                    self.read(value.text, depth + 1)
            self._list([*tail, Word("{}", 0)] if program in _APPENDS else tail, surely=not begun)
            begun = begun or _begins_a_command(words[place], after=words[place - 1] if place > 1 else None)
            if _program(tail[0]) in _SHELLS:
                self._run_shell(tail, depth)
        if program == "eval" and any(word.certain is not None for word in words):
            self.opaque = True
        if program == "su" or (program == "sudo" and any(word.text in ("-s", "-i", "--shell") for word in words)):
            self.opaque = True  # a shell, which may read its commands from its input
        for word in words[1:]:
            if program == "eval" or _OF_A_LINE.search(word.text):
                self.read(word.text, depth + 1)
                if "=" in word.text:  # alias x='…', env -S'X=1 …'
                    self.read(word.text.partition("=")[2], depth + 1)

    def _run_shell(self, words: list[Word], depth: int) -> None:
        """A shell: the commands that it is given, unless it reads them from elsewhere."""
        options, operands, at = list[str](), list[Word](), 1
        while at < len(words):
            text = words[at].text
            if text[:1] in ("-", "+") and text not in _STDIN and not operands:
                options.append(text)
                at += text in _OPTION_TAKES_ONE
            else:
                operands.append(words[at])
            at += 1
        if any("c" in option and not option.startswith("--") for option in options):
            for operand in operands:
                self.opaque = self.opaque or operand.certain is not None
                self.read(operand.text, depth + 1)
        else:
            reads = not operands or operands[0].text in _STDIN or operands[0].text.startswith("<(")
            self.opaque = self.opaque or reads or any(_SHORT_S.match(option) for option in options)


def _is_before_a_command(word: Word) -> bool:
    return word.text in _RESERVED or _ASSIGNMENT.match(word.text) is not None


def _begins_a_command(word: Word, after: Word | None) -> bool:
    """Whether a word after ``sudo`` and the like is the program, not an option, a number or an option's value."""
    if after is not None and after.text.startswith("-"):
        return False
    return not (word.text.startswith(("-", "+")) or word.text[:1].isdigit() or _is_before_a_command(word))


def _program(word: Word) -> str:
    return word.text.rpartition("/")[2]


def may_begin(glob: str, prefix: str) -> bool:
    """Whether some text that begins with ``prefix`` matches ``glob``."""
    at = 0
    for character in prefix:
        if at >= len(glob):
            return False
        expected = glob[at]
        if expected == "*":
            return True
        if expected == "[" and (end := _end_of_set(glob, at)):
            if not re.fullmatch(_set_pattern(glob[at + 1 : end]), character):
                return False
            at = end + 1
            continue
        if expected not in ("?", character):
            return False
        at += 1
    return True


def _end_of_set(glob: str, at: int) -> int:
    """Where the set ends that begins here; 0 where it does not end, as `fnmatch` has it."""
    return max(glob.find("]", at + (3 if glob[at + 1 : at + 2] == "!" else 2)), 0)


def _set_pattern(inside: str) -> str:
    negated = inside.startswith("!")
    members = re.escape(inside[negated:]).replace("\\-", "-")
    return f"[{'^' if negated else ''}{members}]"

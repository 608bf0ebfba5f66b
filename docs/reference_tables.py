"""Writes the tables of docs/reference and ARCHITECTURE.md that are made from the code (`make reference`).

Owns how they look. What they say stands beside the thing itself: a docstring under the field of a struct, the docstring
of an error, the help of a command or of a metric. tests/packaging/test_reference.py holds the pages to them.
"""

from __future__ import annotations

import ast
import inspect
import re
import tomllib
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import click
import msgspec

from agentrq import errors
from agentrq.cli import command_table
from agentrq.wire.commands import Options
from agentrq.wire.state import State, StateRequest
from agentrq.wire.workspace import Workspace
from agentrq_gateway.app import ENDPOINTS
from agentrq_gateway.server_settings import ServerSettings
from agentrq_worker import fleet_metrics, metrics
from agentrq_worker.logs import EVENTS
from agentrq_worker.measurements import Counts, Measurements
from agentrq_worker.providers.registry import COMMANDS, OPTIONS, providers
from agentrq_worker.sandbox_settings import Sandbox
from agentrq_worker.settings import Provider, Settings
from agentrq_worker.start_policy import StartPolicy
from agentrq_worker.workspace_settings import GitCredentials, Workspaces

ROOT: Final = Path(__file__).parents[1]
REFERENCE: Final = ROOT / "docs/reference"
SOURCES: Final = (ROOT / "producer/src", ROOT / "worker/src", ROOT / "gateway/src", ROOT / "page/src")
_PLAIN: Final[dict[Any, str]] = {str: "text", int: "integer", float: "number", bool: "`true`, `false`"}


class NoText(ValueError):
    """Something that users see has no text of its own."""


def field_texts(kind: type) -> dict[str, str]:
    """The docstring under each field of a class, as one line. Raises `NoText`."""
    (body,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, following in zip(body.body, [*body.body[1:], None], strict=True):
        if not isinstance(field, ast.AnnAssign):
            continue
        name = ast.unparse(field.target)
        if not (
            isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
            and isinstance(following.value.value, str)
        ):
            raise NoText(f"{kind.__name__}.{name} has no docstring under it")
        found[name] = _one_line(following.value.value)
    return found


def _one_line(docstring: str) -> str:
    return " ".join(docstring.split()).replace("``", "`")


def type_text(hint: Any) -> str:
    """A type for readers who do not write Python."""
    if hint in _PLAIN:
        return _PLAIN[hint]
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(type_text(each) for each in inner if each is not types.NoneType)
    if origin in (list, tuple):
        return f"list of {type_text(inner[0])}s"
    if origin is dict:
        return "texts by name" if inner[1] is str else "table"
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return "table"
    return "text"


def _table(*rows: tuple[str, ...]) -> str:
    head, *body = rows
    lines = [head, tuple("---" for _ in head), *body]
    return "".join("| " + " | ".join(_escaped(cell) for cell in line) + " |\n" for line in lines)


def _escaped(cell: str) -> str:
    """A cell whose bars, and angle brackets outside of code marks, mean themselves."""
    parts = cell.split("`")
    parts[::2] = [part.replace("<", r"\<") for part in parts[::2]]
    return "`".join(parts).replace("|", r"\|")


def _shown(value: Any) -> str:
    if value in (None, [], {}, ""):
        return "–"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"`{value}`"


def settings_table(kind: type[msgspec.Struct]) -> str:
    """A table of a struct of settings: name, type, default, text."""
    hints = typing.get_type_hints(kind)
    texts: dict[str, str] = {}
    for each in kind.__mro__:
        texts |= field_texts(each) if issubclass(each, msgspec.Struct) and each is not msgspec.Struct else {}
    rows = [
        (
            f"`{field.name}`",
            type_text(hints[field.name]),
            "required" if field.required else _shown(_default(field)),
            texts[field.name],
        )
        for field in msgspec.structs.fields(kind)
    ]
    return _table(("setting", "type", "default", "meaning"), *rows)


def _default(field: msgspec.structs.FieldInfo) -> Any:
    return field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default


def options_table() -> str:
    """The start options: name in Python and on the wire, type, text."""
    texts, hints = field_texts(Options), typing.get_type_hints(Options)
    rows = [
        (f"`{field.name}`", f"`{field.encode_name}`", type_text(hints[field.name]), texts[field.name])
        for field in msgspec.structs.fields(Options)
    ]
    return _table(("option", "on the wire", "type", "meaning"), *rows)


def state_table() -> str:
    """The fields of the state as they stand in the hash."""
    return _members_table("field", State, leave_out="session_id")


def _members_table(head: str, kind: type[msgspec.Struct], leave_out: str = "") -> str:
    """The members of a struct by their names on the wire."""
    texts, hints = field_texts(kind), typing.get_type_hints(kind)
    rows = [
        (f"`{field.encode_name}`", type_text(hints[field.name]), texts[field.name])
        for field in msgspec.structs.fields(kind)
        if field.name != leave_out
    ]
    return _table((head, "type", "holds"), *rows)


def errors_table() -> str:
    """The errors: each with what it derives from and when it is raised."""
    rows = []
    for name, kind in inspect.getmembers(errors, inspect.isclass):
        if kind.__module__ != errors.__name__:
            continue
        if not kind.__doc__:
            raise NoText(f"{name} has no docstring")
        parents = ", ".join(f"`{base.__name__}`" for base in kind.__bases__)
        rows.append((f"`{name}`", parents, _one_line(kind.__doc__)))
    return _table(("error", "is a", "meaning"), *rows)


def metrics_table() -> str:
    """The metrics of a worker: name as it is scraped, kind, labels, help."""
    return _table(("metric", "type", "labels", "meaning"), *_read_metrics(metrics), *_measurements())


def fleet_metrics_table() -> str:
    """The same of the fleet's metrics."""
    return _table(("metric", "type", "labels", "meaning"), *_read_metrics(fleet_metrics))


def _read_metrics(module: types.ModuleType) -> Iterator[tuple[str, ...]]:
    """What a module reads when it is asked for."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if (
            isinstance(node, ast.Call)
            and (kind := re.fullmatch(r"(\w+)MetricFamily", ast.unparse(node.func)))
            and isinstance(node.args[0], ast.Constant)
        ):
            name, text = (ast.literal_eval(argument) for argument in node.args[:2])
            labels: list[str] = next(
                (ast.literal_eval(word.value) for word in node.keywords if word.arg == "labels"), []
            )
            suffix = "_total" if kind[1] == "Counter" else ""
            yield _metric(f"{name}{suffix}", kind[1].lower(), labels, text)


def _measurements() -> Iterator[tuple[str, ...]]:
    """What is counted and timed all along."""
    for family in Measurements().families:
        counts = isinstance(family, Counts)
        name, kind_name = (f"{family.name}_total", "counter") if counts else (family.name, "histogram")
        yield _metric(name, kind_name, family.labels, family.text)


def _metric(name: str, kind: str, labels: Sequence[str], text: str) -> tuple[str, ...]:
    return f"`{name}`", kind, ", ".join(f"`{label}`" for label in labels) or "–", text


def log_events_table() -> str:
    """The names of the events in the worker's log."""
    return _table(("event", "meaning, and its own members"), *((f"`{name}`", text) for name, text in EVENTS.items()))


def support_table() -> str:
    """Which start options and commands each built-in kind of agent supports."""
    specs = [spec for spec in providers().specs.values() if spec.drive is not None or spec.module]
    rows = [
        (f"`{name}`", *("yes" if name in spec.supports else "–" for spec in specs)) for name in (*OPTIONS, *COMMANDS)
    ]
    return _table(("option or command", *(f"`{spec.name}`" for spec in specs)), *rows)


def commands_text() -> str:
    """Every command: its usage, what it does, its arguments and options."""
    return "\n".join(_command(name) for name in command_table.COMMANDS)


def _command(name: str) -> str:
    command = command_table.load(name)
    context = click.Context(command, info_name=f"agentrq {name}")
    usage = " ".join(piece for piece in command.collect_usage_pieces(context) if piece != "[OPTIONS]")
    options = [param for param in command.params if isinstance(param, click.Option)]
    if not command.help:
        raise NoText(f"agentrq {name} has no help")
    text = f"### `{f'agentrq {name} {usage}'.strip()}`\n\n{inspect.cleandoc(command.help)}\n"
    if name == "up":
        return f"{text}\nIts options are those of `agentrq worker`.\n"
    return text + (
        "\n" + _table(("option", "meaning"), *(_option(context, option) for option in options)) if options else ""
    )


def _option(context: click.Context, option: click.Option) -> tuple[str, str]:
    if not option.help:
        raise NoText(f"{context.info_name} {option.opts[0]} has no help")
    value = "" if option.is_flag else f" {option.make_metavar(context)}"
    default = f" Default: {option.default}." if option.show_default else ""
    return f"`{' '.join(option.opts)}{value}`", option.help + default


def packages_table() -> str:
    """Every package of both distributions with the first paragraph of its docstring."""
    rows = []
    for path in sorted(path for source in SOURCES for path in source.glob("*/**/__init__.py")):
        package = path.parent.relative_to(ROOT)
        if package.parent.name == "src":
            continue
        text = ast.get_docstring(ast.parse(path.read_text()))
        if not text:
            raise NoText(f"{package} has no docstring")
        rows.append((f"`{package}/`", _one_line(text.partition("\n\n")[0])))
    return _table(("package", "holds"), *rows)


def modules_table() -> str:
    """The modules that lie beside the packages, with the first sentence of their docstrings."""
    rows = []
    for path in sorted(path for source in SOURCES for path in source.glob("*/[a-z]*.py")):
        text = ast.get_docstring(ast.parse(path.read_text()))
        if not text:
            raise NoText(f"{path.relative_to(ROOT)} has no docstring")
        first = re.split(r"(?<=\w[.])\s|\n\n|\.$", text, maxsplit=1)[0].removesuffix(".")
        rows.append((f"`{path.relative_to(ROOT)}`", f"{_one_line(first)}."))
    return _table(("module", "is"), *rows)


def layers_text(package: str) -> str:
    """The layers of a distribution, from the top, as its import contract has them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (each["layers"] for each in contracts if each["type"] == "layers" and each["containers"] == [package])
    return "```\n" + "".join(f"{layer}\n" for layer in layers) + "```\n"


def endpoints_table() -> str:
    """What the gateway serves: request, action, meaning, answers."""
    rows = []
    for each in ENDPOINTS:
        answers = " ".join(f"{status}: {text}" for status, text in each.answers.items())
        needs = "–" if each.public else f"`{each.action}`" if each.action else "any caller"
        path = re.sub(r"{(\w+)(:\w+)?}", r"{\1}", each.path)
        rows.append((f"`{each.method} {path}`", needs, each.summary, answers))
    return _table(("request", "needs", "does", "answers"), *rows)


GENERATED: Final[dict[str, Callable[[], str]]] = {
    "settings": lambda: settings_table(Settings),
    "provider": lambda: settings_table(Provider),
    "sandbox": lambda: settings_table(Sandbox),
    "policy": lambda: settings_table(StartPolicy),
    "workspaces": lambda: settings_table(Workspaces),
    "git-credentials": lambda: settings_table(GitCredentials),
    "workspace": lambda: settings_table(Workspace),
    "start-options": options_table,
    "state": state_table,
    "state-request": lambda: _members_table("member", StateRequest),
    "errors": errors_table,
    "metrics": metrics_table,
    "fleet-metrics": fleet_metrics_table,
    "log-events": log_events_table,
    "commands": commands_text,
    "support": support_table,
    "packages": packages_table,
    "modules": modules_table,
    "producer-layers": lambda: layers_text("agentrq"),
    "gateway-endpoints": endpoints_table,
    "gateway-settings": lambda: settings_table(ServerSettings),
    "worker-layers": lambda: layers_text("agentrq_worker"),
    "gateway-layers": lambda: layers_text("agentrq_gateway"),
}
"""What stands between ``<!-- generated: NAME -->`` and ``<!-- /generated -->``, by name."""

_PART: Final = re.compile(r"(?<=<!-- generated: )([\w-]+)( -->\n\n).*?(?=\n<!-- /generated -->)", re.DOTALL)


def generate(page: str) -> str:
    """A page with its generated parts made anew."""
    return _PART.sub(lambda part: part[1] + part[2] + GENERATED[part[1]](), page)


def pages() -> Iterator[Path]:
    """The pages that have generated parts."""
    return (
        path
        for path in (ROOT / "ARCHITECTURE.md", *sorted(REFERENCE.glob("*.md")))
        if "<!-- generated: " in path.read_text()
    )


def main() -> None:
    """Write them all."""
    for path in pages():
        path.write_text(generate(path.read_text()))


if __name__ == "__main__":
    main()

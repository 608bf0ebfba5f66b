"""Commands about costs: ``cost``, ``prices``. Owns how they are printed."""

from __future__ import annotations

import csv
import io
from typing import Any, Final

import click
import msgspec
from msgspec import to_builtins

from agentrq.cli.exit_codes import OK
from agentrq.cli.output import put, put_json
from agentrq.cli.sanitize import one_line
from agentrq.cli.shared_options import REDIS, connected, payer_options, shared_options
from agentrq.client import costs
from agentrq.errors import InvalidOption
from agentrq.wire.ledger import CostRow, read_groups, read_prices

_COUNTS: Final = ("turns", "cut_turns", "unknown_turns", "input_tokens", "output_tokens", "cost_nano_usd")


@click.command()
@click.option("--by", default="tenant,model", show_default=True, metavar="NAMES",
              help="Some of day, tenant, user, project, provider, model, basis, with commas.")  # fmt: skip
@click.option("--since", metavar="DAY", help="The first day in UTC, YYYY-MM-DD, or 30d: the last 30 days (default).")
@click.option("--until", metavar="DAY", help="The last day; default: today.")
@payer_options
@click.option("--provider", metavar="NAME", help="Only turns of this provider.")
@click.option("--model", metavar="NAME", help="Only turns of this model.")
@click.option("--csv", "as_csv", is_flag=True, help="Comma-separated values with a line of names.")
@shared_options
def cost(url: str | None, as_json: bool, as_csv: bool, by: str, **wanted: Any) -> int:
    """Show what turns cost, by tenant, model, day and more."""
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    with connected(url) as client:
        rows = client.costs(by, **wanted)
    groups = read_groups(by)
    if as_json:
        for row in rows:
            put_json(to_builtins(row))
    elif as_csv:
        put(_csv(groups, rows))
    else:
        put(_table(groups, rows))
    return OK


def _csv(groups: tuple[str, ...], rows: list[CostRow]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*groups, *_COUNTS])
    for row in rows:
        writer.writerow([_no_formula(getattr(row, name)) for name in (*groups, *_COUNTS)])
    return text.getvalue()


def _no_formula(value: Any) -> Any:
    """A text that a spreadsheet would calculate is told to be a text."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "@", "-", "\t", "\r") else value


def _table(groups: tuple[str, ...], rows: list[CostRow]) -> str:
    heads = [*(name.upper() for name in groups), "TURNS", "CUT", "IN", "OUT", "USD", "UNKNOWN"]
    lines = [heads]
    for row in rows:
        # The cost of a group of which nothing is known is not zero.
        known = row.turns > row.unknown_turns
        counts = [row.turns, row.cut_turns, row.input_tokens, row.output_tokens]
        lines.append([
            *(one_line(getattr(row, name)) or "-" for name in groups), *(str(count) for count in counts),
            f"{row.cost_usd:.4f}" if known else "?", f"{row.unknown_turns} turns" if row.unknown_turns else "",
        ])  # fmt: skip
    widths = [max(len(line[place]) for line in lines) for place in range(len(heads))]
    return "".join(
        "  ".join(part.ljust(width) for part, width in zip(line, widths, strict=True)).rstrip() + "\n" for line in lines
    )


@click.group()
def prices() -> None:
    """Import prices of models, and show them."""


@prices.command(name="import")
@click.argument("file", type=click.File("rb"))
@REDIS
def import_prices(file: Any, url: str | None) -> int:
    """Replace the imported prices by those of FILE, in LiteLLM's JSON (- for stdin)."""
    try:
        found = read_prices(msgspec.json.decode(file.read()))
    except msgspec.DecodeError as error:
        raise InvalidOption("prices", f"{file.name} is not JSON: {error}") from None
    with connected(url) as client:
        count = client.run(costs.set_prices(client.context, found))
    put(f"{count} prices imported\n")
    return OK


@prices.command(name="list")
@REDIS
def list_prices(url: str | None) -> int:
    """Show the imported prices, in USD for a million tokens in and out."""
    with connected(url) as client:
        found = client.run(costs.get_prices(client.context))
    for model, price in sorted(found.items()):
        shown = "  ".join(f"{int(part) / 1e9:g}" for part in price.split() if part.isdigit())
        put(f"{one_line(model)}  {shown}\n")
    return OK

"""The command ``why``: why a session is where it is, or all sessions that are stuck. Owns how findings are printed."""

from __future__ import annotations

from typing import Any, Final

import click

from agentrq.cli.exit_codes import FAILED, OK
from agentrq.cli.output import put, put_json
from agentrq.cli.sanitize import one_line
from agentrq.cli.shared_options import connected, shared_options
from agentrq.client import AgentClient
from agentrq.client.diagnosis import Finding, diagnose, is_stuck
from agentrq.client.evidence import collect_evidence
from agentrq.client.session_filter import MAX_LIMIT
from agentrq.client.session_list import SessionPage
from agentrq.errors import SessionNotFound
from agentrq.wire.ids import check_session_id
from agentrq.wire.status import ENDED, Status

_LIVING: Final = tuple(status for status in Status if status not in ENDED)


@click.command()
@click.argument("sid", required=False)
@click.option("--all", "everything", is_flag=True, help="All sessions that are stuck; exit 1 if there are any.")
@shared_options
def why(sid: str | None, everything: bool, url: str | None, as_json: bool) -> int:
    """Say why a session is where it is, and the command that helps."""
    if (sid is None) is not everything:
        raise click.UsageError("Give a session id, or --all")
    with connected(url) as client:
        if sid is not None:
            check_session_id(sid)
            _show(sid, diagnose(client.run(collect_evidence(client.context, sid))), as_json)
            return OK
        stuck = [(name, findings) for name, findings in _all_findings(client) if is_stuck(findings)]
    for name, findings in stuck:
        _show(name, findings, as_json)
    if not stuck and not as_json:
        put("no session is stuck\n")
    return FAILED if stuck else OK


def _all_findings(client: AgentClient) -> list[tuple[str, list[Finding]]]:
    found: list[tuple[str, list[Finding]]] = []
    page: SessionPage | None = None
    while page is None or page.next is not None:
        page = client.sessions(status=_LIVING, limit=MAX_LIMIT, before=None if page is None else page.next)
        for state in page:
            try:
                found.append(
                    (state.session_id, diagnose(client.run(collect_evidence(client.context, state.session_id))))
                )
            except SessionNotFound:  # removed meanwhile
                continue
    return found


def _show(sid: str, findings: list[Finding], as_json: bool) -> None:
    if as_json:
        shown: dict[str, Any] = {"sessionId": sid, "stuck": is_stuck(findings)}
        put_json(shown | {"findings": [finding._asdict() for finding in findings]})
        return
    for finding in findings:
        put(f"{sid}  {'STUCK ' if finding.stuck else ''}{finding.cause}: {one_line(finding.says)}\n")
        for fact in finding.evidence:
            put(f"    {one_line(fact)}\n")
        if finding.remedy:
            put(f"    $ {one_line(finding.remedy)}\n")

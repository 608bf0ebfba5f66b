"""The forms in which people answer an agent's requests, read once for all providers. Pure.

An approval is answered by ``"allow"`` or ``"deny"``, or by an object: ``decision`` (or ``behavior``) ``allow`` or
``deny``, ``message`` (why not), ``input`` (or ``updatedInput``: a changed one), ``always`` (allow the like from now
on), ``interrupt`` (deny, and end the turn), ``suggestion`` (one of the request's ``suggestions``).
A question is answered by an object from its questions' ids to texts (also within ``answers``), or by one text.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from agentrq_worker.providers.dialect import Refused


class Decision(NamedTuple):
    """An answer to an approval request."""

    allow: bool
    message: str = ""
    changed: Any = None
    """The input to use in place of the agent's; None for as it is."""
    always: bool = False
    interrupt: bool = False
    choice: Any = None
    """One of the request's suggestions; None where none was named."""


def decision(answer: Any) -> Decision:
    """Read an answer to an approval request. Raises `Refused` for what is none."""
    members = answer if isinstance(answer, dict) else {}
    said = answer if isinstance(answer, str) else members.get("decision", members.get("behavior"))
    choice = members.get("suggestion")
    if said is None and choice is not None:
        said = "allow"
    if said not in ("allow", "deny"):
        raise Refused('an approval is answered by "allow" or "deny", or an object with a decision')
    message = members.get("message")
    changed = members.get("input", members.get("updatedInput"))
    return Decision(
        allow=said == "allow",
        message=message if isinstance(message, str) else "",
        changed=changed if said == "allow" else None,
        always=members.get("always") is True,
        interrupt=members.get("interrupt") is True,
        choice=choice,
    )


def answers_to(ids: list[str], answer: Any) -> dict[str, list[str]]:
    """The answers by question id, those not answered empty. Raises `Refused` for what answers none of ``ids``."""
    if isinstance(answer, str):
        if len(ids) != 1:
            raise Refused("a question of several parts is answered by an object from their ids to texts")
        return {ids[0]: [] if answer == "deny" else [answer]}
    found = answer.get("answers", answer) if isinstance(answer, dict) else None
    if not isinstance(found, dict) or not any(name in found for name in ids):
        raise Refused(f"a question is answered by an object from its ids ({', '.join(ids)}) to texts")
    return {name: _texts(found.get(name)) for name in ids}


def _texts(found: Any) -> list[str]:
    if isinstance(found, dict):
        found = found.get("answers")
    if isinstance(found, str):
        return [found]
    return [text for text in found if isinstance(text, str)] if isinstance(found, list) else []

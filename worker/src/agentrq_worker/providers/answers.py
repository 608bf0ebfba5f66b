"""The forms in which people answer an agent's requests, read once for all providers. Pure.

An approval is answered by ``"allow"`` or ``"deny"``, or by an object: ``decision`` (or ``behavior``) ``allow`` or
``deny``, ``message`` (why not), ``input`` (or ``updatedInput``: a changed one), ``always`` (allow the like from now
on), ``interrupt`` (deny, and end the turn), ``suggestion`` (one of the request's ``suggestions``).
A question is answered by an object from its questions' ids to texts (also within ``answers``), or by one text; it is
declined, or left without an answer, as an approval is denied or allowed. A form is a question whose text is an object.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from agentrq_worker.providers.json_line import mapping, text
from agentrq_worker.providers.protocol import CommandRefused

_DECIDES: Final = ("decision", "behavior", "suggestion")


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
    """Read an answer to an approval request. Raises `CommandRefused` for what is none."""
    found = mapping(answer)
    said = answer if isinstance(answer, str) else found.get("decision", found.get("behavior"))
    choice = found.get("suggestion")
    if said is None and choice is not None:
        said = "allow"
    if said not in ("allow", "deny"):
        raise CommandRefused('an approval is answered by "allow" or "deny", or an object with a decision')
    message = found.get("message")
    changed = changed_input(answer)
    return Decision(
        allow=said == "allow",
        message=message if isinstance(message, str) else "",
        changed=changed if said == "allow" else None,
        always=found.get("always") is True,
        interrupt=found.get("interrupt") is True,
        choice=choice,
    )


def changed_input(answer: Any) -> Any:
    """The input that an answer puts in the place of the agent's; None where it puts none."""
    found = mapping(answer)
    return found.get("input", found.get("updatedInput"))


def decided(answer: Any) -> Decision | None:
    """The decision that an answer is; None for the answers to a question. Raises `CommandRefused` for anything else."""
    if answer in ("allow", "deny") or any(name in mapping(answer) for name in _DECIDES):
        return decision(answer)
    if not isinstance(answer, str | dict):
        raise CommandRefused("an answer is a text or an object")
    return None


def answers_to(ids: list[str], answer: Any) -> dict[str, list[str]] | None:
    """The answers by question id, those not answered empty; None where it is declined.

    Raises `CommandRefused` for what answers none of ``ids``.
    """
    given = decided(answer)
    if given is not None:
        found = mapping(answer).get("answers", {}) if given.allow else None
    elif isinstance(answer, str):
        if len(ids) != 1:
            raise CommandRefused("a question of several parts is answered by an object from their ids to texts")
        found = {ids[0]: answer}
    else:
        found = answer.get("answers", answer)
        if not isinstance(found, dict) or not any(name in found for name in ids):
            raise CommandRefused(f"a question is answered by an object from its ids ({', '.join(ids)}) to texts")
    return None if found is None else {name: _texts(mapping(found).get(name)) for name in ids}


def form(schema: Any, answer: Any) -> dict[str, Any] | None:
    """The fields of a form of a JSON schema; None where it is declined. One text will do for a form of one field.

    Raises `CommandRefused` for what fills no form.
    """
    given = decided(answer)
    if given is not None and not given.allow:
        return None
    found = given.changed if given is not None else mapping(answer).get("answers", answer)
    if found is None:
        found = mapping(answer).get("answers", {})
    found = mapping(found).get("0", found)
    fields = list(mapping(mapping(schema).get("properties")))
    if isinstance(found, dict):
        return found
    if len(fields) == 1 and text(found):
        return {fields[0]: found}
    raise CommandRefused(f"this form is answered by an object with its fields: {', '.join(fields)}")


class AnswerSummary(NamedTuple):
    """What others are told of an answer: ``decision`` allow | deny | answer, and by whom."""

    decision: str
    by: str


def summarize_answer(answer: Any, by: str = "client") -> AnswerSummary:
    """The gist of an answer. Raises `CommandRefused` for what is none."""
    given = decided(answer)
    named = mapping(answer).get("by")
    said = "answer" if given is None else "allow" if given.allow else "deny"
    return AnswerSummary(said, named if isinstance(named, str) and named else by)


def _texts(found: Any) -> list[str]:
    if isinstance(found, dict):
        found = found.get("answers")
    if isinstance(found, str):
        return [found]
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []

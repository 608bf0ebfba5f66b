"""Reads the forms in which people answer an agent's requests, for all providers. Pure.

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
    """The input to use instead of the agent's own; None to keep it."""
    always: bool = False
    interrupt: bool = False
    choice: Any = None
    """The suggestion of the request that was chosen; None if there was none."""


def read_decision(answer: Any) -> Decision:
    """Reads an answer to an approval request. Raises `CommandRefused` for any other answer."""
    found = mapping(answer)
    word = answer if isinstance(answer, str) else found.get("decision", found.get("behavior"))
    choice = found.get("suggestion")
    if word is None and choice is not None:
        word = "allow"
    if word not in ("allow", "deny"):
        raise CommandRefused('an approval is answered by "allow" or "deny", or an object with a decision')
    message = found.get("message")
    changed = changed_input(answer)
    return Decision(
        allow=word == "allow",
        message=message if isinstance(message, str) else "",
        changed=changed if word == "allow" else None,
        always=found.get("always") is True,
        interrupt=found.get("interrupt") is True,
        choice=choice,
    )


def lets_ask_less(answer: Any) -> bool:
    """Whether an answer may allow calls beside the one that is asked about, as a suggestion may."""
    found = mapping(answer)
    if found.get("suggestion") is not None:  # only the agent knows what it means, whatever the decision beside it says
        return True
    return found.get("always") is True and found.get("decision", found.get("behavior")) != "deny"


def changed_input(answer: Any) -> Any:
    """The input that an answer puts in the place of the agent's; None where it puts none."""
    found = mapping(answer)
    return found.get("input", found.get("updatedInput"))


def find_decision(answer: Any) -> Decision | None:
    """Reads a decision; None if ``answer`` answers a question. Raises `CommandRefused` for anything else."""
    if answer in ("allow", "deny") or any(name in mapping(answer) for name in _DECIDES):
        return read_decision(answer)
    if not isinstance(answer, str | dict):
        raise CommandRefused("an answer is a text or an object")
    return None


def read_answers(ids: list[str], answer: Any) -> dict[str, list[str]] | None:
    """Reads the answers by question id, empty where one is missing; None if the questions were declined.

    Raises `CommandRefused` for an answer to none of ``ids``.
    """
    given = find_decision(answer)
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


def read_form(schema: Any, answer: Any) -> dict[str, Any] | None:
    """Reads the fields of a form with a JSON schema; None if it was declined. One text fills a form of one field.

    Raises `CommandRefused` for an answer that fills no field.
    """
    given = find_decision(answer)
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
    """What readers are told of an answer: ``decision`` is allow, deny or answer; ``by`` is who gave it."""

    decision: str
    by: str


def summarize_answer(answer: Any, by: str = "client") -> AnswerSummary:
    """Summarizes an answer. Raises `CommandRefused` for anything that is not one."""
    given = find_decision(answer)
    named = mapping(answer).get("by")
    word = "answer" if given is None else "allow" if given.allow else "deny"
    return AnswerSummary(word, named if isinstance(named, str) and named else by)


def _texts(found: Any) -> list[str]:
    if isinstance(found, dict):
        found = found.get("answers")
    if isinstance(found, str):
        return [found]
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []

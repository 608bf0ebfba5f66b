"""Requests answered by key in ``attach`` and ``run``: the form without IO, then the real command on a pty."""

import getpass
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from agentrq.cli.prompt_form import Form
from agentrq.client.pending_requests import PendingRequests
from agentrq.embedded.server_process import ServerProcess
from agentrq.wire.events import Message, StatusEvent, make_message
from agentrq.wire.messages import ApprovalRequest, ApprovalResolved, Question
from tests.polling import wait_until
from tests.producer.command_line import COMMAND, Follower, following
from tests.producer.session_writer import Writer

APPROVAL = {"requestId": "r1", "name": "Bash", "input": {"command": "rm -r build"}}
COLOUR = {"id": "0", "header": "Colour", "question": "Which?", "options": [{"label": "Red"}, "Green"]}
NAME = {"id": "1", "header": "Name", "question": "Whose?"}
PUT = "[Esc] leave it"
ALLOWED = {"decision": "allow", "by": getpass.getuser()}


# -- forms


FIELDS = {
    "name": {"type": "string", "title": "Name", "description": "as in your passport"},
    "age": {"type": "integer"},
    "well": {"type": "boolean"},
}
FORM = {"id": "0", "header": "server", "question": "Who are you?",
        "requestedSchema": {"required": ["name", "well"], "properties": FIELDS}}  # fmt: skip
FILLED = {"answers": {"0": {"name": "Ann", "age": 3, "well": True}}}


def fill(request: Any, keys: str) -> Form:
    form = Form(request, "me")
    for key in keys:
        form.press(key)
    return form


def approval(**members: Any) -> ApprovalRequest:
    return ApprovalRequest("r1", "Bash", {}, **members)


def question(*parts: Any) -> Question:
    return Question("q1", list(parts))


@pytest.mark.parametrize(
    ("request_", "keys", "answer"),
    [
        (approval(), "a", {"decision": "allow", "by": "me"}),
        (approval(), "d", {"decision": "deny", "by": "me"}),
        (approval(), "mno\x7fot\r", {"decision": "deny", "message": "not", "by": "me"}),
        (approval(), "mno\x1bd", {"decision": "deny", "by": "me"}),
        (approval(), "mno\x15yet\n", {"decision": "deny", "message": "yet", "by": "me"}),
        (approval(), "m\r \r", None),
        (approval(), "xA\r y", None),
        (approval(suggestions=[{}]), "A", {"decision": "allow", "always": True, "by": "me"}),
        (question(COLOUR), "2", {"answers": {"0": "Green"}, "by": "me"}),
        (question(COLOUR), "3", None),
        (question(COLOUR), "Blue\r", {"answers": {"0": "Blue"}, "by": "me"}),
        (question(COLOUR, NAME), "1Ann é\n", {"answers": {"0": "Red", "1": "Ann é"}, "by": "me"}),
        (question(COLOUR, NAME), "1", None),
        (question(COLOUR | {"multiSelect": True}), "1, 2\r", {"answers": {"0": ["Red", "Green"]}, "by": "me"}),
        (question(COLOUR | {"multiSelect": True}), "1 or 2\r", {"answers": {"0": "1 or 2"}, "by": "me"}),
        (question(COLOUR | {"options": list("abcdefghijkl")}), "11\r", {"answers": {"0": "k"}, "by": "me"}),
        (question(NAME), "3\r", {"answers": {"1": "3"}, "by": "me"}),
        (question(FORM), "Ann\r3\r1", FILLED | {"by": "me"}),
        (
            question(FORM),
            "Ann\rthree\rtrue\r",
            {"answers": {"0": {"name": "Ann", "age": "three", "well": True}}, "by": "me"},
        ),
        (question(FORM), "Ann\r\r2", {"answers": {"0": {"name": "Ann", "well": False}}, "by": "me"}),
        (question(FORM), "\r\r2", None),
        (question("no object"), "hm\r", {"answers": {"0": "hm"}, "by": "me"}),
    ],
)
def test_keys_make_an_answer(request_: Any, keys: str, answer: Any) -> None:
    form = fill(request_, keys)
    assert (form.answer, form.left) == (answer, False)


@pytest.mark.parametrize("request_", [approval(), question(COLOUR)])
def test_escape_leaves_it_to_others(request_: Any) -> None:
    form = fill(request_, "\x1b")
    assert (form.answer, form.left) == (None, True)


def test_a_form_is_put_field_by_field() -> None:
    form = Form(question(FORM), "me")
    assert form.hint() == ["Question 1 of 3: Name - as in your passport", "Answer by a text and Enter; [Esc] leave it"]
    for key in "Ann\r":
        form.press(key)
    assert form.hint() == [
        "Question 2 of 3: age", "Answer by a text and Enter; Enter alone leaves it out; [Esc] leave it",
    ]  # fmt: skip


def test_a_secret_is_not_shown() -> None:
    form = Form(question(NAME | {"isSecret": True}), "me")
    assert [form.press("p"), form.press("w"), form.shown] == ["•", "•", "••"]


# -- which requests are open


def message(seq: int, content: Any) -> Message:
    kind = "approval_resolved" if isinstance(content, ApprovalResolved) else "approval_request"
    return make_message("s", f"m{seq}", kind, 0, content, f"1-{seq}")


def status(seq: int, name: str) -> StatusEvent:
    return StatusEvent(f"1-{seq}", "s", name, 0)


def ask(request_id: str) -> ApprovalRequest:
    return ApprovalRequest(request_id, "Bash", {})


def put(present: str, *events: Any) -> list[tuple[str, str]]:
    """What is put, and at which event."""
    requests = PendingRequests(present)
    return [(event.cursor, request.request_id) for event in events for request in requests.see(event)]


def test_what_was_resolved_before_is_not_put() -> None:
    history = [message(1, ask("a")), status(2, "waiting"), message(3, ApprovalResolved("a", "allow", "x")),
               message(4, ask("b")), message(5, ask("c"))]  # fmt: skip
    assert put("1-5", *history) == [("1-5", "b"), ("1-5", "c")]
    assert put("1-1", *history) == [("1-2", "a"), ("1-4", "b"), ("1-5", "c")]


def test_what_a_policy_decides_is_not_put() -> None:
    decided = [message(1, ask("a")), message(2, ApprovalResolved("a", "allow", "policy"))]
    assert put("0-1", *decided, message(3, ask("b")), status(4, "waiting")) == [("1-4", "b")]


def test_a_request_is_put_once_unless_it_is_asked_again() -> None:
    events = [message(1, ask("a")), status(2, "waiting"), status(3, "recovering"), status(4, "running"),
              message(5, ask("a")), status(6, "waiting"), message(7, ask("b"))]  # fmt: skip
    assert put("0-1", *events) == [("1-2", "a"), ("1-6", "a"), ("1-7", "b")]


def test_deltas_put_nothing() -> None:
    assert put("0-1", message(1, ask("a")), make_message("s", "d", "text_delta", 0, {}, None)) == []


# -- on a terminal


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with ServerProcess(tmp_path_factory.mktemp("server"), args=("--appendonly", "no")) as server:
        yield server.url


@contextmanager
def asked(url: str, sid: str, kind: str, content: Any, *options: str) -> Iterator[tuple[Writer, Follower]]:
    """A session that asks, attached to on a terminal; the request has been put."""
    writer = Writer.start(url, sid)
    writer.statuses("running")
    writer.message(kind, content)
    writer.statuses("waiting")
    with following(*COMMAND, "attach", sid, *options, url=url, terminal=True, keyboard=True, NO_COLOR="1") as follower:
        follower.read_until(PUT)
        wait_until(writer.followed)
        yield writer, follower


def answers(writer: Writer) -> list[Any]:
    return [command["answer"] for command in writer.inbox()]


def settle(writer: Writer, decision: str, by: str, request_id: str = "r1") -> None:
    """What a worker writes once an answer was applied."""
    for command in writer.inbox():
        writer.receipt(command["commandId"], "answer", "applied")
        writer.redis.delete(f"agentrq:{{{writer.sid}}}:inbox")
    writer.message("approval_resolved", {"requestId": request_id, "decision": decision, "by": by})
    writer.statuses("running")


def test_the_key_a_allows_the_request(url: str) -> None:
    with asked(url, "allow", "approval_request", APPROVAL) as (writer, follower):
        assert not follower.echoes()
        follower.type("xa")
        wait_until(writer.inbox)
        assert answers(writer) == [ALLOWED]
        settle(writer, "allow", "me")
        follower.read_until("allowed by me")
        wait_until(follower.echoes)
        writer.end("done", "completed")
        code, shown, said = follower.finish()
    assert (code, said) == (0, "")
    assert "rm -r build" in shown
    assert "agentrq answer" not in shown  # keys answer here
    assert "Not asked any more" not in shown


def test_deny_with_a_message_while_the_session_goes_on(url: str) -> None:
    with asked(url, "deny", "approval_request", APPROVAL) as (writer, follower):
        follower.type("m")
        follower.read_until("Why not?")
        follower.type("not on")
        follower.read_until("› not on")
        writer.delta("text_delta", "torn", "b1", 0)
        writer.message("text", {"text": "Another agent speaks"}, parentId="t1")
        follower.read_until("Another agent speaks")
        follower.type(" Friday\x7fys\r")
        wait_until(writer.inbox)
        assert answers(writer) == [
            {"decision": "deny", "message": "not on Fridays", "by": getpass.getuser()},
        ]
        shown = follower.read_until("ys\r").replace("\r\n", "\n")
    assert re.search(r"› not on\n\S+ ↳ Another agent speaks\n +› not on Friday", shown)
    assert "torn" not in shown


def test_a_question_by_number_and_text(url: str) -> None:
    content = {"requestId": "q", "questions": [COLOUR, NAME]}
    with asked(url, "question", "question", content) as (writer, follower):
        follower.read_until("[2] Green")
        follower.type("2")
        follower.read_until("› Green")
        follower.read_until("Question 2 of 2: Whose?")
        follower.type("Zoë\r")
        wait_until(writer.inbox)
        assert answers(writer) == [{"answers": {"0": "Green", "1": "Zoë"}, "by": getpass.getuser()}]


def test_others_answer_first_and_the_next_is_put(url: str) -> None:
    with asked(url, "others", "approval_request", APPROVAL) as (writer, follower):
        writer.message("approval_request", APPROVAL | {"requestId": "r2", "name": "Write"})
        settle(writer, "deny", "bob")
        follower.read_until("Not asked any more: deny by bob.")
        follower.read_until(PUT, times=2)
        follower.type("a")  # meant for the first: for a moment no key counts

        def answered() -> bool:
            follower.type("a")
            return bool(writer.inbox())

        wait_until(answered)
        assert {command["requestId"] for command in writer.inbox()} == {"r2"}


def test_an_answer_that_came_too_late_says_who_won(url: str) -> None:
    with asked(url, "late", "approval_request", APPROVAL) as (writer, follower):
        follower.type("a")
        wait_until(writer.inbox)
        command = writer.inbox()[0]["commandId"]
        writer.message("approval_resolved", {"requestId": "r1", "decision": "deny", "by": "bob"})
        writer.receipt(command, "answer", "rejected", reason="answered already: deny by bob")
        writer.end("done", "completed")
        shown = follower.finish()[1]
    assert "Not asked any more: deny by bob." in shown
    assert "answered already: deny by bob" in shown
    assert shown.count(PUT) == 1


def test_an_answer_that_was_refused_is_asked_again(url: str) -> None:
    with asked(url, "refused", "question", {"requestId": "q", "questions": [NAME]}) as (writer, follower):
        follower.type("x\r")
        wait_until(writer.inbox)
        writer.receipt(writer.inbox()[0]["commandId"], "answer", "rejected", reason="no such form")
        follower.read_until("no such form")
        follower.read_until(PUT, times=2)


def test_what_was_typed_before_does_not_count(url: str) -> None:
    writer = Writer.start(url, "early")
    with following(*COMMAND, "attach", "early", url=url, terminal=True, keyboard=True, NO_COLOR="1") as follower:
        follower.read_until("starting")
        wait_until(writer.followed)
        follower.type("a~~\n")
        follower.read_until("a~~")  # its echo: the terminal has taken it, no kernel buffer brings it later
        writer.statuses("running")
        writer.message("approval_request", APPROVAL)
        writer.statuses("waiting")
        follower.read_until(PUT)
        follower.type("d")
        wait_until(writer.inbox)
        assert [answer["decision"] for answer in answers(writer)] == ["deny"]


def test_a_request_before_the_cursor_is_put_too(url: str) -> None:
    writer = Writer.start(url, "after")
    writer.statuses("running")
    writer.message("approval_request", APPROVAL)
    writer.statuses("waiting")
    command = (*COMMAND, "attach", "after", "--after", f"1-{writer.seq}")
    with following(*command, url=url, terminal=True, keyboard=True) as follower:
        follower.read_until(PUT)
        follower.type("a")
        wait_until(writer.inbox)


def test_escape_leaves_the_request_open(url: str) -> None:
    with asked(url, "left", "approval_request", APPROVAL) as (writer, follower):
        follower.type("\x1b")
        follower.read_until("Left to others.")
        wait_until(follower.echoes)
        writer.end("done", "completed")
        assert follower.finish()[0] == 0


def test_ctrl_c_gives_the_keyboard_back(url: str) -> None:
    with asked(url, "ctrl-c", "approval_request", APPROVAL) as (_, follower):
        follower.interrupt()
        code, _, said = follower.finish()
        assert follower.echoes()
    assert code == 130
    assert "detached" in said


@pytest.mark.parametrize(("options", "keyboard"), [(["--json"], True), ([], False)])
def test_nobody_is_asked_without_a_person(url: str, options: list[str], keyboard: bool) -> None:
    sid = f"nobody-{keyboard}"
    writer = Writer.start(url, sid)
    command = (*COMMAND, "attach", sid, *options)
    with following(*command, url=url, terminal=True, keyboard=keyboard, NO_COLOR="1") as follower:
        wait_until(writer.followed)
        writer.statuses("running")
        writer.message("approval_request", APPROVAL)
        writer.statuses("waiting")
        follower.read_until("waiting")
        assert follower.echoes()
        writer.end("done", "completed")
        assert PUT not in follower.finish()[1]

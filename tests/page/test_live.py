"""The page in a real browser, beside real workers and gateways that are killed: it shows all, once, and the truth."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Browser, Route, expect

from agentrq import AgentClient
from tests.gateway.gateway_process import serves, start
from tests.page.chromium import Tab, needs_chromium
from tests.polling import wait_until
from tests.producer.session_writer import Writer
from tests.workers import Worker, free_port

expect.set_options(timeout=30_000)
pytestmark = [pytest.mark.slow, needs_chromium]
StartWorker = Callable[..., Worker]


def shown_texts(tab: Tab) -> list[str]:
    return tab.page.locator(".entry-text:not(.being-written) .markdown").all_text_contents()


def test_a_reload_in_mid_text_shows_all_of_the_text(
    redis_url: str, start_worker: StartWorker, open_tab: Callable[..., Tab]
) -> None:
    start_worker()
    with AgentClient.from_url(redis_url) as client:
        client.start("slow", "What is here?", "written", cwd="/")
    tab = open_tab()
    page = tab.open("#/session/written")
    written = page.locator(".entry-text.being-written .markdown")
    expect(written).to_contain_text("Hello. I am the")
    page.reload()
    expect(written).to_contain_text("Hello. I am the")
    expect(page.locator(".entry-text:not(.being-written) .markdown").first).to_contain_text("I read / now.")
    assert shown_texts(tab)[0].count("Hello.") == 1
    tab.check()


def test_a_gateway_that_is_killed_and_started_again_loses_and_doubles_nothing(
    redis_url: str, chromium: Browser
) -> None:
    writer = Writer.start(redis_url, "kept")
    writer.statuses("running")
    port = free_port()
    process, address = start(port, redis_url=redis_url)
    tab = Tab(chromium, address)
    try:
        wait_until(lambda: serves(process, address))
        page = tab.open("#/session/kept")
        for number in range(1, 31):
            writer.message("text", {"text": f"text {number}"})
            if number % 10 == 0:
                expect(page.get_by_text(f"text {number}", exact=True)).to_be_visible()
                process.kill()
                process.communicate()
                expect(page.get_by_text("Reconnecting…")).to_be_visible()
                process, _ = start(port, redis_url=redis_url)
        expect(page.get_by_text("Live", exact=True)).to_be_visible()
        writer.message("text", {"text": "the last"})
        expect(page.get_by_text("the last")).to_be_visible()
        assert shown_texts(tab) == [*(f"text {number}" for number in range(1, 31)), "the last"]
        tab.check()
    finally:
        tab.close()
        process.kill()
        process.communicate()


def test_a_session_of_50_000_events_opens_at_its_end_and_has_its_beginning_too(
    redis_url: str, open_tab: Callable[..., Tab]
) -> None:
    writer = Writer.start(redis_url, "long")
    writer.statuses("running")
    for batch in range(50):
        writer.messages(
            ("text", {"text": f"entry {batch * 1000 + place}" + (" with the needle" if batch + place == 0 else "")})
            for place in range(1000)
        )
    tab = open_tab()
    page = tab.open("#/session/long")
    expect(page.get_by_text("entry 49999", exact=True)).to_be_in_viewport()
    writer.message("text", {"text": "one more, live"}, most=100_000)
    expect(page.get_by_text("one more, live")).to_be_in_viewport()
    expect(page.locator(".entry-text")).to_have_count(50_001, timeout=100_000)
    assert page.evaluate("find('with the needle', false, true)"), "find-in-page reaches the first entry"
    texts = shown_texts(tab)
    assert len(texts) == 50_001
    assert texts[:2] == ["entry 0 with the needle", "entry 1"]
    assert len(set(texts)) == 50_001
    tab.check()


def test_two_visitors_answer_one_request_and_both_are_told_who_was_first(
    redis_url: str, start_worker: StartWorker, open_tab: Callable[..., Tab]
) -> None:
    start_worker()
    with AgentClient.from_url(redis_url) as client:
        client.start("demo", "/ask rm -rf build", "asked")
        tabs = [open_tab(), open_tab()]
        for tab in tabs:
            tab.open("#/inbox")
            expect(tab.page.locator(".request pre").first).to_have_text("$ rm -rf build")
        first, second = (tab.page for tab in tabs)
        first.keyboard.press("d")
        for page in (first, second):
            expect(page.get_by_text("Nothing waits for an answer.")).to_be_visible()
            expect(page.locator(".history")).to_contain_text("Denied by client")
        second.get_by_role("link", name="asked").click()
        expect(second.locator(".entry-request")).to_contain_text("Denied by client")
        expect(second.get_by_text("Not allowed. Thank you for the answer.")).to_be_visible()
        assert client.session("asked").state().pending_approvals == 0
    for tab in tabs:
        tab.check()


def test_who_answers_too_late_is_told_the_decision_that_won(
    redis_url: str, start_worker: StartWorker, open_tab: Callable[..., Tab]
) -> None:
    start_worker()
    with AgentClient.from_url(redis_url) as client:
        session = client.start("demo", "/ask make release", "late")

        def answer_first(route: Route) -> None:
            (request,) = session.state().requests
            session.answer(request.id, {"decision": "deny", "by": "alice"}, wait=True)
            route.continue_()

        tab = open_tab()
        page = tab.open("#/session/late")
        allow = page.get_by_role("button", name="Allow", exact=True)
        expect(allow).to_be_visible()
        # Until the answer of the visitor has left, the page hears nothing of the other one.
        with page.expect_request("**/answers/**"):
            page.route("**/answers/**", answer_first)
            allow.click()
        expect(page.locator(".entry-request")).to_contain_text("Denied by alice")
        assert page.get_by_text("Allowed by").count() == 0
    tab.check()


def test_a_session_is_started_prompted_and_stopped_by_keyboard_alone(
    redis_url: str, start_worker: StartWorker, open_tab: Callable[..., Tab]
) -> None:
    start_worker()
    tab = open_tab()
    page = tab.open()
    page.get_by_role("heading", name="Sessions").wait_for()
    page.keyboard.press("3")
    page.get_by_role("heading", name="Start a session").wait_for()
    for _ in range(40):
        if page.evaluate("document.activeElement.tagName") == "TEXTAREA":
            break
        page.keyboard.press("Tab")
    page.keyboard.type("/echo I was started by keyboard")
    page.keyboard.press("Tab")
    page.keyboard.type("/tmp")
    page.keyboard.press("Enter")
    expect(page.locator(".entry-text")).to_contain_text("I was started by keyboard")
    prompt = page.get_by_role("textbox", name="Prompt")
    prompt.focus()
    page.keyboard.type("/echo and prompted")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".entry-text").last).to_contain_text("and prompted")
    page.get_by_role("button", name="Stop").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Stop the session?")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_text("It takes no more prompts.")).to_be_visible()
    expect(page.locator(".facts")).to_contain_text("done (stopped)")
    tab.check()


def test_the_list_is_live_and_its_filters_are_the_address(
    redis_url: str, start_worker: StartWorker, open_tab: Callable[..., Tab]
) -> None:
    start_worker()
    tab = open_tab()
    page = tab.open("#/sessions?status=idle")
    expect(page.get_by_text("No session.")).to_be_visible()
    with AgentClient.from_url(redis_url) as client:
        session = client.start("demo", "/echo hello", "seen", cwd="/tmp")
        expect(page.get_by_role("link", name="seen")).to_be_visible()
        page.get_by_role("button", name="idle").click()
        page.get_by_role("button", name="done").click()
        assert page.url.endswith("#/sessions?status=done")
        expect(page.get_by_role("link", name="seen")).to_have_count(0)
        session.stop()
        expect(page.get_by_role("link", name="seen")).to_be_visible()
        page.reload()
        expect(page.get_by_role("button", name="done")).to_have_attribute("aria-pressed", "true")
        session.remove()
        expect(page.get_by_role("link", name="seen")).to_have_count(0)
    tab.check()

"""Hostile content in a real browser: nothing of what an agent prints runs, hides, or fetches anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.page.chromium import Tab, needs_chromium
from tests.page.hostile import ATTEMPTS, write_session

pytestmark = [pytest.mark.slow, needs_chromium]

PARTS = 4
"""The attempts are shared out over so many sessions: one page each."""
EVERYTHING_POINTED_AT = """() => {
    for (const element of document.querySelectorAll('#page *')) {
        if (element.tagName === 'DETAILS') element.open = true;
        for (const name of ['mouseover', 'mouseenter', 'focus', 'toggle'])
            element.dispatchEvent(new Event(name, {bubbles: true}));
    }
    return document.querySelectorAll('#page *').length;
}"""
MADE_BY_TEXT = "#page :is(script, iframe, img, svg, style, link, base, meta, object, embed, math)"


@pytest.mark.parametrize("part", range(PARTS))
def test_nothing_that_an_agent_says_runs(redis_url: str, open_tab: Callable[..., Tab], part: int) -> None:
    attempts = ATTEMPTS[part::PARTS]
    write_session(redis_url, f"hostile-{part}", attempts)
    tab = open_tab()
    page = tab.open(f"#/session/hostile-{part}")
    page.get_by_text("was rejected").last.wait_for()
    page.get_by_role("button", name="Events").click()
    assert page.evaluate(EVERYTHING_POINTED_AT) > 1000
    assert page.locator(MADE_BY_TEXT).count() == 0
    links = page.locator("#content a").evaluate_all("links => links.map(link => [link.href, link.rel, link.target])")
    for href, rel, target in links:
        if not href.startswith(tab.address):
            assert href.startswith(("https://", "http://"))
            assert (rel, target) == ("noopener noreferrer nofollow", "_blank")
    shown = page.locator(".transcript").text_content() or ""
    for attempt in attempts:
        if attempt.isascii() and attempt.isprintable() and attempt[0] in "<\"'$":
            assert attempt in shown, "it is shown as it came"
    for where in ("#/sessions", "#/inbox", "#/workers", "#/costs"):
        tab.open(where)
        page.get_by_role("heading", level=1).wait_for()
        page.evaluate(EVERYTHING_POINTED_AT)
        assert page.locator(MADE_BY_TEXT).count() == 0
    tab.check()


def test_characters_that_hide_or_reorder_are_visible(redis_url: str, open_tab: Callable[..., Tab]) -> None:
    odd = "\u202e\u2066\u200b\ufeff\u00ad\U000e0041\x00\x07\x9b\u2028"
    writer = write_session(redis_url, "odd", ("harmless",))
    writer.message(
        "approval_request", {"requestId": "r", "name": f"Ba{odd}sh", "input": {"command": f"ls {odd}; rm x"}}
    )
    tab = open_tab()
    page = tab.open("#/session/odd")
    request = page.locator(".request.open").last
    request.wait_for()
    marked = request.locator("pre .hidden-character").all_inner_texts()
    assert marked == [f"U+{ord(character):04X}" for character in odd]
    assert request.locator("pre").first.inner_text().startswith("$ ls U+202E")
    assert not set(odd) & set(page.locator("#page").text_content() or "")
    tab.check()


def test_output_that_is_written_over_shows_that_it_was(redis_url: str, open_tab: Callable[..., Tab]) -> None:
    writer = write_session(redis_url, "over", ("harmless",))
    writer.message("tool_call", {"toolUseId": "t", "name": "Bash", "input": {"command": "deploy\rls"}})
    writer.message("tool_result", {"toolUseId": "t", "output": "10%\r50%\rdone\x1b[31m red", "isError": False})
    tab = open_tab()
    page = tab.open("#/session/over")
    card = page.locator(".entry-tool").last
    assert "deployU+000Dls" in card.locator("pre").first.inner_text(), (
        "a command is shown as it is, not as a terminal would"
    )
    output = card.locator(".output pre")
    assert output.inner_text() == "[2 × overwritten] done red"
    assert output.locator(".ansi-1").inner_text() == " red"
    tab.check()


def test_odd_shapes_take_no_more_than_their_own_entry(redis_url: str, open_tab: Callable[..., Tab]) -> None:
    writer = write_session(redis_url, "shapes", ("harmless",))
    odd: list[Any] = [None, 7, True, [], {}, [[]], {"a": None}, "x" * 300_000, [{"type": "text"}], 1e308, "\n" * 5000]
    for kind in ("text", "thinking", "cost", "init", "error", "question", "approval_request", "rate_limit", "status"):
        for place, value in enumerate(odd):
            members = ("text", "message", "questions", "errors", "model", "cwd", "name", "input", "code", "subtype")
            content = dict.fromkeys((*members, "resetsAt", "blockId"), value) | {"requestId": f"{kind}{place}"}
            writer.message(kind, content)
    deep = "[" * 3000 + "]" * 3000
    writer.message("text", {"text": f"before {deep}"})
    writer.message("text", {"text": "> " * 5000 + "* " * 5000 + "`" * 5000 + "[" * 5000 + "|" * 5000 + "_" * 5000})
    writer.message("text", {"text": "the last text"})
    tab = open_tab()
    page = tab.open("#/session/shapes")
    page.get_by_text("the last text").wait_for()
    assert page.get_by_text("This cannot be shown").count() == 0
    tab.check()

"""The page for everybody: axe finds nothing on any view, light or dark, narrow or wide; roles, motion, copying."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from agentrq import AgentClient
from tests.npm_packages import install
from tests.page.chromium import Tab, needs_chromium
from tests.page.example_sessions import VIEWS, write_examples
from tests.workers import Worker

expect.set_options(timeout=30_000)
pytestmark = [pytest.mark.slow, needs_chromium]
ROOT = Path(__file__).parents[2]
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


def found_by_axe(tab: Tab) -> list[Any]:
    """What axe objects to in what is shown now."""
    source = (install(ROOT / "page") / "axe-core" / "axe.min.js").read_text()
    tab.page.evaluate(source)
    found: dict[str, Any] = tab.page.evaluate(
        "rules => axe.run(document, {runOnly: {type: 'tag', values: rules}})", RULES
    )
    return [(one["id"], [node["target"] for node in one["nodes"]][:5]) for one in found["violations"]]


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1400])
def test_axe_finds_nothing(
    redis_url: str, start_worker: Callable[..., Worker], open_tab: Callable[..., Tab], colours: str, width: int
) -> None:
    write_examples(redis_url)
    start_worker()
    tab = open_tab(color_scheme=colours, viewport={"width": width, "height": 800})
    found = {}
    for name, (where, shown) in VIEWS.items():
        page = tab.open(where)
        expect(page.get_by_text(shown).first).to_be_visible()
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        found[name] = found_by_axe(tab)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{name} scrolls sideways"
    assert found == {name: [] for name in VIEWS}
    tab.check()


def test_roles_tell_what_grows_and_what_is_going_on(redis_url: str, open_tab: Callable[..., Tab]) -> None:
    write_examples(redis_url)
    page = open_tab().open(VIEWS["session"][0])
    expect(page.get_by_role("log", name="Transcript")).to_be_visible()
    expect(page.get_by_role("status").filter(has_text="Waits for an answer")).to_be_visible()
    assert page.title().startswith("("), "the title counts what waits"


def test_nothing_moves_for_those_who_want_no_motion(redis_url: str, open_tab: Callable[..., Tab]) -> None:
    write_examples(redis_url)
    page = open_tab(reduced_motion="reduce").open(VIEWS["session"][0])
    page.get_by_role("log").wait_for()
    assert page.evaluate("document.getAnimations().length") == 0


def test_what_an_agent_said_can_be_copied(redis_url: str, open_tab: Callable[..., Tab]) -> None:
    write_examples(redis_url)
    tab = open_tab()
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = tab.open(VIEWS["session"][0])
    text = page.locator(".entry-text").first
    text.hover()
    text.get_by_role("button", name="Copy").click()
    assert "## The plan" in page.evaluate("navigator.clipboard.readText()")


def test_the_client_library_is_all_that_a_page_needs(redis_url: str, open_tab: Callable[..., Tab]) -> None:
    """Whoever builds a front end uses the same files by the same HTTP."""
    with AgentClient.from_url(redis_url) as client:
        client.start("fake", "Do it", "waits")
    page = open_tab().open()
    listed = page.evaluate(
        """async () => {
            const { AgentRQ } = await import('./page/client/index.js');
            return (await new AgentRQ('./').sessions()).sessions.map(({ sessionId }) => sessionId);
        }"""
    )
    assert listed == ["waits"]

"""Fixtures of the page's browser tests: one browser a test process, a gateway and a writer of sessions a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.gateway.gateway_process import running
from tests.page.chromium import Tab, browser


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    with browser() as launched:
        yield launched


@pytest.fixture
def address(redis_url: str) -> Iterator[str]:
    """The address of a gateway process that serves the page."""
    with running(redis_url=redis_url) as (_, address):
        yield address


@pytest.fixture
def open_tab(chromium: Browser, address: str) -> Iterator[Callable[..., Tab]]:
    """``open_tab(**options of the browser context)``: a tab of a visitor of its own, closed after the test."""
    tabs: list[Tab] = []

    def open_tab(**options: Any) -> Tab:
        tabs.append(Tab(chromium, address, **options))
        return tabs[-1]

    yield open_tab
    for tab in tabs:
        tab.close()

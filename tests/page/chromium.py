"""A real browser with the page of a real gateway: what it fetched, what it said, and whether anything hostile ran."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

PROGRAM = next((found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None)
needs_chromium = pytest.mark.skipif(PROGRAM is None, reason="chromium is not installed")
PATIENCE_MS = 20_000


@contextmanager
def browser() -> Iterator[Browser]:
    """Chromium without a window."""
    assert PROGRAM is not None
    with sync_playwright() as playwright:
        sandbox = [] if os.geteuid() else ["--no-sandbox"]  # as root it has none
        launched = playwright.chromium.launch(executable_path=PROGRAM, args=[*sandbox, "--disable-dev-shm-usage"])
        try:
            yield launched
        finally:
            launched.close()


class Tab:
    """One tab, in a browser profile of its own. It fetches from its gateway alone: everything else is noted and cut."""

    def __init__(self, browser: Browser, address: str, **options: Any) -> None:
        self.address = address
        self.strangers: list[str] = []
        """Requests to anybody else than the gateway."""
        self.failures: list[str] = []
        """Uncaught errors of the page, and violations of its policy."""
        self.context: BrowserContext = browser.new_context(**({"viewport": {"width": 1200, "height": 800}} | options))
        self.context.set_default_timeout(PATIENCE_MS)
        self.page: Page = self.context.new_page()
        self.context.route("**", self._route)
        self.page.on("pageerror", lambda error: self.failures.append(str(error)))
        self.page.on("console", self._hear)
        self.page.on("dialog", self._close_dialog)

    def _route(self, route: Any) -> None:
        if urlsplit(route.request.url).netloc == urlsplit(self.address).netloc:
            route.continue_()
        else:
            self.strangers.append(route.request.url)
            route.abort()

    def _hear(self, said: Any) -> None:
        if said.type == "error" and "Failed to load resource" not in said.text:
            self.failures.append(said.text)

    def _close_dialog(self, dialog: Any) -> None:
        self.failures.append(f"a dialog: {dialog.message}")
        dialog.dismiss()

    def open(self, where: str = "") -> Page:
        """Show a view, for example ``#/session/ID``."""
        self.page.goto(f"{self.address}/{where}")
        return self.page

    def check(self) -> None:
        """Nothing went wrong, nothing hostile ran, nobody else was asked."""
        assert self.strangers == []
        assert self.failures == []
        assert self.page.evaluate("globalThis.pwned") is None

    def close(self) -> None:
        self.context.close()

"""Takes the screenshots of docs/page: every view, light and dark. ``make screenshots`` runs it; it needs Chromium."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from playwright.sync_api import expect

from agentrq import AgentClient
from agentrq.embedded.server_process import ServerProcess
from tests.gateway.gateway_process import running
from tests.page.chromium import Tab, browser
from tests.page.example_sessions import VIEWS, write_examples
from tests.polling import wait_until

PLACE = Path(__file__).parents[2] / "docs" / "page"
WIDE = {"width": 1120, "height": 760}
NARROW = {"width": 360, "height": 700}


def main() -> None:
    """Write the pictures."""
    PLACE.mkdir(exist_ok=True)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(ServerProcess(directory))
        write_examples(server.url)
        command = [sys.executable, "-m", "agentrq_worker", "--redis", server.url]
        worker = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        stack.callback(worker.wait)
        stack.callback(worker.terminate)
        with AgentClient.from_url(server.url) as client:
            ready = client.start("demo", "/echo ready")
            wait_until(lambda: ready.state().status == "idle")
            ready.remove()
        _, address = stack.enter_context(running(redis_url=server.url))
        launched = stack.enter_context(browser())
        for colours in ("light", "dark"):
            take(Tab(launched, address, viewport=WIDE, color_scheme=colours), colours, list(VIEWS))
        take(Tab(launched, address, viewport=NARROW), "narrow", ["sessions", "session", "inbox"])


def take(tab: Tab, mark: str, names: list[str]) -> None:
    """Pictures of some views, as one tab shows them."""
    for name in names:
        where, shown = VIEWS[name]
        page = tab.open(where)
        expect(page.get_by_text(shown).first).to_be_visible()
        expect(page.get_by_text("Reading…")).to_have_count(0)
        if name == "costs":
            expect(page.locator(".u-wrap")).to_be_visible()
        page.screenshot(path=PLACE / f"{name}-{mark}.png", animations="disabled")
    tab.check()
    tab.close()


if __name__ == "__main__":
    main()

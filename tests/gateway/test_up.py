"""`agentrq up` serves the gateway too: its address lets one browser in, once, and it ends with the worker."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import httpx
import psutil
import pytest

from tests.polling import wait_until
from tests.workers import END_S, alive, free_port


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_up_prints_an_address_that_lets_one_browser_in(redis_url: str, end: signal.Signals) -> None:
    port = free_port()
    up = subprocess.Popen(
        [sys.executable, "-m", "agentrq", "up", "--redis", redis_url],
        env=os.environ | {"AGENTRQ_GATEWAY_PORT": str(port)},
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        page = next(line for line in up.stdout or () if line.startswith("Page:"))
        found = re.fullmatch(rf"Page: +(http://127\.0\.0\.1:{port})/#ticket=(\S+)\n", page)
        assert found
        address, ticket = found.groups()
        own = {"Sec-Fetch-Site": "same-origin"}
        with httpx.Client(base_url=address) as browser:
            wait_until(lambda: reached(browser))
            assert browser.get("/sessions").status_code == 401
            made = browser.post("/cookie", json={"ticket": ticket}, headers=own)
            assert made.status_code == 200
            assert browser.post("/cookie", json={"ticket": ticket}, headers=own).status_code == 401
            browser.headers["Cookie"] = made.headers["set-cookie"].partition(";")[0]
            told = browser.get("/whoami").json()
            assert (told["subject"], "admin" in told["actions"]) == ("local", True)
        (gateway,) = [each for each in psutil.Process(up.pid).children() if "gateway" in each.cmdline()]
    finally:
        up.send_signal(end)
        up.wait(END_S)
        if up.stdout is not None:
            up.stdout.close()
    wait_until(lambda: not alive(gateway))


def reached(browser: httpx.Client) -> bool:
    try:
        return browser.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False

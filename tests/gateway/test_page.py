"""The page as the gateway serves it: its files, its headers, and nothing beside them."""

from __future__ import annotations

import base64
import hashlib
import re

import httpx
import pytest

import agentrq_page
from agentrq import AsyncAgentClient
from agentrq_gateway import Gateway, Settings
from tests.gateway.conftest import connect


async def test_the_page_and_its_files_have_the_headers_that_hold_hostile_text(http: httpx.AsyncClient) -> None:
    index = await http.get("/")
    script = await http.get("/page/main.js")
    assert index.headers["content-type"].startswith("text/html")
    assert script.headers["content-type"].startswith("text/javascript")
    for answer in (index, script, await http.get("/page/nothing.js")):
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'self'; ")
        assert "unsafe" not in policy
        for part in ("frame-ancestors 'none'", "require-trusted-types-for 'script'", "object-src 'none'"):
            assert part in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-cache"


async def test_the_import_map_is_the_only_inline_script_and_the_policy_names_it(http: httpx.AsyncClient) -> None:
    index = await http.get("/")
    ((attributes, body),) = re.findall(r"<script([^>]*)>(.+?)</script>", index.text, re.DOTALL)
    assert attributes == ' type="importmap"'
    digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in index.headers["content-security-policy"]
    assert not re.findall(r"<[^>]*\s(?:on\w+|style)=", index.text)


async def test_the_javascript_client_is_served_from_its_sources(http: httpx.AsyncClient) -> None:
    answer = await http.get("/page/client/index.js")
    assert answer.content == (agentrq_page.directory() / "client" / "index.js").read_bytes()


@pytest.mark.parametrize(
    "path", ["/page/../__init__.py", "/page/%2e%2e/__init__.py", "/page/", "/page", "/page/vendor"]
)
async def test_nothing_else_is_served(http: httpx.AsyncClient, path: str) -> None:
    assert (await http.get(path)).status_code == 404


async def test_the_page_is_written_to_by_nobody(http: httpx.AsyncClient) -> None:
    assert (await http.post("/page/main.js")).status_code == 405
    assert (await http.delete("/")).status_code == 405


async def test_without_the_setting_there_is_no_page(client: AsyncAgentClient) -> None:
    gateway = Gateway(client, settings=Settings(page=False))
    async with connect(gateway) as http:
        assert (await http.get("/")).status_code == 404
        assert (await http.get("/page/main.js")).status_code == 404
    await gateway.aclose()


async def test_the_page_is_not_asked_again_for_a_file_that_has_not_changed(http: httpx.AsyncClient) -> None:
    first = await http.get("/page/main.js")
    again = await http.get("/page/main.js", headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304

"""The OpenAPI document: of exactly the routes that are served, and without a breaking change unnoticed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx

from agentrq_gateway.app import ENDPOINTS
from agentrq_gateway.openapi import document

PUBLISHED = Path(__file__).with_name("openapi.json")
"""The document as clients were promised it. After a change that only adds: ``python -m tests.gateway.test_openapi``."""


async def test_the_document_has_exactly_the_routes(http: httpx.AsyncClient) -> None:
    told = (await http.get("/openapi.json")).json()
    documented = {(method.upper(), path) for path, methods in told["paths"].items() for method in methods}
    served = {(each.method, each.path) for each in ENDPOINTS}
    assert documented == served
    names = [operation["operationId"] for methods in told["paths"].values() for operation in methods.values()]
    assert len(names) == len(set(names))
    for method, path in documented:
        named = path.replace("{session_id}", "nobody").replace("{request_id}", "r")
        response = await http.request(method, named, json={} if method == "POST" else None)
        code = response.json()["error"]["code"] if response.status_code >= 400 else ""
        assert code not in ("not_found", "method_not_allowed", "internal"), (method, path)


async def test_every_reference_in_the_document_leads_somewhere(http: httpx.AsyncClient) -> None:
    told = (await http.get("/openapi.json")).json()

    def references(value: Any) -> set[str]:
        if isinstance(value, list):
            return set().union(*map(references, value))
        if isinstance(value, dict):
            here = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
            return here.union(*map(references, value.values()))
        return set()

    found = references(told)
    assert found
    for reference in found:
        place = told
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]


async def test_no_published_route_parameter_or_member_is_gone(http: httpx.AsyncClient) -> None:
    """What clients were promised: paths, methods, parameters, answers, members of bodies, and none newly required."""
    published, now = json.loads(PUBLISHED.read_text()), (await http.get("/openapi.json")).json()
    assert broken(published, now) == []


def test_a_breaking_change_is_found() -> None:
    published = json.loads(PUBLISHED.read_text())
    for path, change in (
        (("paths", "/sessions", "post"), None),
        (("paths", "/sessions", "get", "parameters"), []),
        (("paths", "/sessions", "post", "responses", "201"), None),
        (("components", "schemas", "Start", "properties", "prompt"), None),
        (("components", "schemas", "Prompt", "required"), ["text", "mode"]),
    ):
        changed = json.loads(PUBLISHED.read_text())
        place = changed
        for part in path[:-1]:
            place = place[part]
        if change is None:
            del place[path[-1]]
        else:
            place[path[-1]] = change
        assert broken(published, changed), path


def broken(published: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What a client of the published document would miss in the present one."""
    found = []
    for path, methods in published["paths"].items():
        for method, operation in methods.items():
            present = now["paths"].get(path, {}).get(method)
            if present is None:
                found.append(f"{method} {path}")
                continue
            names = {each["name"] for each in present.get("parameters", [])}
            found += [
                f"{method} {path}: {e['name']}" for e in operation.get("parameters", []) if e["name"] not in names
            ]
            found += [f"{method} {path}: {code}" for code in operation["responses"] if code not in present["responses"]]
    for name, schema in published["components"]["schemas"].items():
        present = now["components"]["schemas"].get(name, {})
        found += [f"{name}.{m}" for m in schema.get("properties", {}) if m not in present.get("properties", {})]
        found += [f"{name}.{m} is required" for m in present.get("required", []) if m not in schema.get("required", [])]
    return found


if __name__ == "__main__":
    PUBLISHED.write_text(json.dumps(document(ENDPOINTS, "0.1.0"), indent=1) + "\n")

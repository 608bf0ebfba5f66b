"""Reading the answers of a gateway."""

from __future__ import annotations

import httpx


def error_of(response: httpx.Response) -> tuple[int, str, str | None]:
    """Status, code and field of an error."""
    error = response.json()["error"]
    assert error["message"]
    return response.status_code, error["code"], error.get("field")

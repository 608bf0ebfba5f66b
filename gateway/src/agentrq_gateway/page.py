"""Serves the page (the distribution agentrq-page) at `/`, where it is installed. Owns its routes, not its files."""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

PACKAGE: Final = "agentrq_page"
"""Not imported by name: a gateway works without it."""


def page_routes() -> list[BaseRoute]:
    """The routes of the page; none where the distribution is not installed."""
    if find_spec(PACKAGE) is None:
        return []
    package = import_module(PACKAGE)
    directory, headers = package.directory(), package.security_headers() | {"Cache-Control": "no-cache"}

    async def show_index(request: Request) -> Response:
        return FileResponse(directory / "index.html", headers=headers)

    return [
        Route("/", show_index),
        Mount("/page", _Files(headers, directory=directory, follow_symlink=True)),
    ]


class _Files(StaticFiles):
    """Static files, each answer with the page's headers."""

    def __init__(self, headers: dict[str, str], **options: Any) -> None:
        super().__init__(**options)
        self._headers = headers

    async def get_response(self, path: str, scope: Scope) -> Response:
        try:
            return await super().get_response(path, scope)
        except HTTPException as error:
            return Response(error.detail, error.status_code, self._headers, "text/plain")

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(self._headers)
        return response

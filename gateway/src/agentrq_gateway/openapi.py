"""The OpenAPI 3.1 document, made from the route table and from the structs of the bodies. Owns its form."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from agentrq import Receipt, State, StatusEvent
from agentrq.wire.commands import Options
from agentrq_gateway.endpoints import Endpoint

REF: Final = "#/components/schemas/{name}"
_PATH_PARAMETER: Final = re.compile(r"{(\w+)(?::\w+)?}")
_ERROR: Final = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "field": {"type": "string", "description": "The member or parameter at fault."},
            },
        }
    },
}


def document(endpoints: Iterable[Endpoint], version: str) -> dict[str, Any]:
    """The whole document."""
    table = list(endpoints)
    bodies = [each.body for each in table if each.body is not None and each.body is not object]
    kinds = list(dict.fromkeys([*bodies, Options, State, StatusEvent, Receipt]))
    _, schemas = msgspec.json.schema_components(kinds, ref_template=REF)
    paths: dict[str, Any] = {}
    for each in table:
        paths.setdefault(_PATH_PARAMETER.sub(r"{\1}", each.path), {})[each.method.lower()] = _operation(each)
    return {
        "openapi": "3.1.0",
        "info": {"title": "agentrq gateway", "version": version},
        "paths": paths,
        "components": {
            "schemas": schemas | {"Error": _ERROR},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PATH_PARAMETER.findall(endpoint.path)
    ]
    parameters += [
        {"name": each.name, "in": each.place, "description": each.meaning, "schema": dict(each.schema)}
        for each in endpoint.parameters
    ]
    operation: dict[str, Any] = {
        "operationId": endpoint.operation_id,
        "summary": endpoint.summary,
        "responses": {str(status): _response(endpoint, status) for status in endpoint.answers}
        | {"default": {"description": "An error.", "content": _json({"$ref": REF.format(name="Error")})}},
        "security": [] if endpoint.public else [{"bearer": []}],
    }
    if parameters:
        operation["parameters"] = parameters
    if endpoint.body is not None:
        schema = {} if endpoint.body is object else {"$ref": REF.format(name=endpoint.body.__name__)}
        needed = endpoint.body is object or any(each.required for each in msgspec.structs.fields(endpoint.body))
        operation["requestBody"] = {"required": needed, "content": _json(schema)}
    return operation


def _response(endpoint: Endpoint, status: int) -> dict[str, Any]:
    found: dict[str, Any] = {"description": endpoint.answers[status]}
    if status < 400 and status not in (204, 304):
        found["content"] = {endpoint.media_type: {"schema": {}}}
    return found


def _json(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}

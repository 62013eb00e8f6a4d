"""The OpenAPI document of the gateway, served at `/openapi.json`: each interface brings its own paths, here they become one document.

Beside `add_routes`, an interface has `describe`, which gives its paths; `operation` writes one. That both say the same is held by
tests/unit/test_openapi.py, that it is true by schemathesis (tests/interop/test_openapi.py).

Owns: the frame, what operations have in common (errors, keys), serving. Does not own: any path.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from aiohttp import web
from pydantic import BaseModel

from voicefleet_contract.http_api import JSON_TYPE, SDP_TYPE
from voicefleet_contract.release import release

PATH = "/openapi.json"
Paths = dict[str, dict[str, Any]]

Keys = tuple[dict[str, list[str]], ...]
STANDARD_KEY: Keys = ({"apiKey": []},)
ANY_KEY: Keys = ({"apiKey": []}, {"ephemeralKey": []})
NO_KEY: Keys = ()

# Statuses of errors that operations share.
KEY_ERRORS = (401, 429)
BODY_ERRORS = (400, 408, 413)
PLACING_ERRORS = (400, 422, 503)
_ERRORS = {
    400: "The request is wrong: `param` names what.",
    401: "No valid key.",
    403: "This key may not do this.",
    404: "There is no such call of this key's tenant.",
    408: "The body took too long.",
    412: "The entity-tag names another ICE session.",
    413: "The body, or a part of it, is too large.",
    415: "The body is of a type that is not taken here.",
    422: "The offer, or what was asked for, cannot be served: `param` names the field.",
    426: "A WebSocket belongs here.",
    428: "`If-Match` is missing.",
    429: "Too many requests of this key or client: `Retry-After` says when to come back.",
    501: "The call's owner is of a version that cannot do this.",
    503: "Nobody can do this now: `Retry-After` says when to come back.",
}

_OFFER = """v=0
o=- 1 1 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0
m=audio 9 UDP/TLS/RTP/SAVPF 111
c=IN IP4 0.0.0.0
a=mid:0
a=sendrecv
a=rtcp-mux
a=ice-ufrag:9fNq
a=ice-pwd:tG0yqQ3xgWYtCFzmA8tDDqDv
a=fingerprint:sha-256 {fingerprint}
a=setup:actpass
a=rtpmap:111 opus/48000/2
""".format(fingerprint=":".join(["AB"] * 32)).replace("\n", "\r\n")
SDP = {
    "type": "string",
    "description": "A session description (RFC 8866).",
    "pattern": "^v=0",
    "examples": [_OFFER],
}
SDP_CONTENT = {SDP_TYPE: {"schema": SDP}}
SESSION = {
    "type": "object",
    "description": "The session object of the Realtime API. The pool's agent gets it; unknown fields pass.",
    "properties": {"type": {"const": "realtime"}, "instructions": {"type": "string"}},
}
CALL_ID = {
    "name": "call_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "The last segment of the `Location` that the offer was answered with.",
}
PLACING_PARAMETERS = (
    {"name": "pool", "in": "query", "schema": {"type": "string"}, "description": "Which pool of transceivers."},
    {"name": "region", "in": "query", "schema": {"type": "string"}, "description": "Which region's relays."},
)
LOCATION = {"Location": {"required": True, "schema": {"type": "string"}, "description": "The call's URL."}}
NOTICE = {
    "X-Voicefleet-Notice": {
        "schema": {"type": "string"},
        "description": "What of the offer could not be taken, though the call is: data channels outside the audio's bundle.",
    }
}


class Interface(Protocol):
    """One interface of the gateway."""

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Serve it."""

    def describe(self) -> Paths:
        """Return its paths, as OpenAPI has them; none for what is no API."""


def operation(
    operation_id: str,
    summary: str,
    responses: Mapping[int, Mapping[str, Any]],
    errors: Iterable[int],
    *,
    security: Keys = ANY_KEY,
    parameters: Sequence[Mapping[str, Any]] = (),
    body: Mapping[str, Any] | None = None,
    body_required: bool = True,
    description: str = "",
) -> dict[str, Any]:
    """Return one operation. ``responses`` and ``body`` are content by status, and content; ``errors`` are statuses."""
    found: dict[str, Any] = {"operationId": operation_id, "summary": summary, "security": list(security)}
    if description:
        found["description"] = description
    if parameters:
        found["parameters"] = list(parameters)
    if body is not None:
        found["requestBody"] = {"required": body_required, "content": body}
    found["responses"] = {str(status): dict(response) for status, response in responses.items()} | {
        str(status): {"$ref": f"#/components/responses/Error{status}"} for status in sorted(set(errors))
    }
    return found


def ok(
    description: str, content: Mapping[str, Any] | None = None, headers: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return a response."""
    return (
        {"description": description}
        | ({"content": content} if content else {})
        | ({"headers": headers} if headers else {})
    )


def json_content(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return content of one type, JSON."""
    return {JSON_TYPE: {"schema": schema}}


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """Return a model's JSON Schema, whole in one place."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def inline(value: Any) -> Any:
        if isinstance(value, dict):
            reference = value.get("$ref")
            if isinstance(reference, str):
                return inline(definitions[reference.rpartition("/")[2]])
            return {key: inline(inner) for key, inner in value.items()}
        return [inline(inner) for inner in value] if isinstance(value, list) else value

    inlined: dict[str, Any] = inline(schema)
    return inlined


def build_document(interfaces: Iterable[Interface]) -> dict[str, Any]:
    """Return the whole document."""
    paths: Paths = {}
    for interface in interfaces:
        for path, operations in interface.describe().items():
            paths.setdefault(path, {}).update(operations)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "voicefleet gateway",
            "version": release(),
            "summary": "Calls over WebRTC, as clients that exist speak to it.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": dict(sorted(paths.items())),
        "components": {
            "securitySchemes": {
                "apiKey": {"type": "http", "scheme": "bearer", "description": "A standard API key: opens everything."},
                "ephemeralKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An ephemeral key (`ek_…`, /v1/realtime/client_secrets): places calls.",
                },
            },
            "schemas": {"Error": _ERROR},
            "responses": {f"Error{status}": _error(status, text) for status, text in _ERRORS.items()},
        },
    }


_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "param", "type"],
            "additionalProperties": False,
            "properties": {
                "code": {"type": "string", "description": "For programs."},
                "message": {"type": "string", "description": "For people: what is wrong, and what helps."},
                "param": {"type": ["string", "null"]},
                "type": {"type": "string"},
            },
        }
    },
}


def _error(status: int, description: str) -> dict[str, Any]:
    response = ok(description, json_content({"$ref": "#/components/schemas/Error"}))
    if status in (429, 503):
        response["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}
    if status == 401:
        response["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
    return response


class OpenApi:
    """Serves the document."""

    def __init__(self, interfaces: Sequence[Interface]) -> None:
        self.document = build_document((*interfaces, self))
        self._body = json.dumps(self.document, ensure_ascii=False, separators=(",", ":")).encode()
        self._etag = hashlib.sha256(self._body).hexdigest()[:32]

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Serve it."""
        router.add_get(PATH, self.get)

    def describe(self) -> Paths:
        """Return its own path."""
        get = operation(
            "openapi",
            "This document",
            {200: ok("It.", json_content({"type": "object"})), 304: ok("As it was.")},
            (),
            security=NO_KEY,
        )
        return {PATH: {"get": get}}

    async def get(self, request: web.Request) -> web.Response:
        """Return the document."""
        if any(one.value == self._etag for one in request.if_none_match or ()):
            response = web.Response(status=304)
        else:
            response = web.Response(body=self._body, content_type=JSON_TYPE)
        response.etag = self._etag
        return response

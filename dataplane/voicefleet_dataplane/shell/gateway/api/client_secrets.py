"""`POST /v1/realtime/client_secrets`: a server asks for an ephemeral key to give to a browser.

Owns: that request and its answer. Does not own: the key's format (contract.ephemeral_keys), what it opens (gateway/admission).
"""

import secrets
import time
from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from voicefleet_contract.ephemeral_keys import (
    DEFAULT_LIFE_S,
    MAX_LIFE_S,
    MIN_LIFE_S,
    SALT_BYTES,
    EphemeralKey,
    SessionTooLargeError,
    encode_ephemeral_key,
)
from voicefleet_contract.http_api import MAX_SESSION_BYTES
from voicefleet_contract.keys import KeyRing
from voicefleet_contract.session_object import SessionObjectError, check_session
from voicefleet_dataplane.shell.gateway.admission import Admission
from voicefleet_dataplane.shell.gateway.api.bodies import read_json
from voicefleet_dataplane.shell.gateway.api.errors import ApiError, preflight
from voicefleet_dataplane.shell.gateway.api.openapi import (
    BODY_ERRORS,
    KEY_ERRORS,
    SESSION,
    STANDARD_KEY,
    Paths,
    json_content,
    ok,
    operation,
    schema_of,
)
from voicefleet_dataplane.shell.gateway.metrics import GatewayMetrics
from voicefleet_dataplane.shell.process.watched_files import Watched

PATH = "/v1/realtime/client_secrets"
_MAX_BODY_BYTES = 2 * MAX_SESSION_BYTES  # white space and escapes; what counts is the compact form


class ExpiresAfter(BaseModel):
    """When the key stops placing calls; calls that it has placed go on."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    anchor: Literal["created_at"] = "created_at"
    seconds: int = Field(default=DEFAULT_LIFE_S, ge=MIN_LIFE_S, le=MAX_LIFE_S)


class ClientSecretRequest(BaseModel):
    """The body; all of it may be left out."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    expires_after: ExpiresAfter | None = None
    session: dict[str, Any] | None = Field(default=None, description="The Realtime API's session object.")


class ClientSecrets:
    """Handlers."""

    def __init__(self, admission: Admission, call_keys: Watched[KeyRing], metrics: GatewayMetrics) -> None:
        self._admission, self._call_keys, self._metrics = admission, call_keys, metrics

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Serve this interface."""
        router.add_post(PATH, self.create)
        router.add_options(PATH, preflight)

    def describe(self) -> Paths:
        """Return the paths."""
        made = {
            "type": "object",
            "required": ["value", "expires_at", "session"],
            "properties": {
                "value": {"type": "string", "pattern": "^ek_", "description": "The key."},
                "expires_at": {"type": "integer", "description": "Unix seconds."},
                "session": SESSION,
            },
        }
        create = operation(
            "createClientSecret",
            "Make an ephemeral key for a browser",
            {200: ok("The key.", json_content(made))},
            (*KEY_ERRORS, 403, *BODY_ERRORS, 415),
            security=STANDARD_KEY,
            body=json_content(schema_of(ClientSecretRequest)),
            body_required=False,
        )
        return {PATH: {"post": create}}

    async def create(self, request: web.Request) -> web.Response:
        """Make a key."""
        async with self._admission.admitted(request) as caller:
            life_s, session = _parse(await read_json(request, _MAX_BODY_BYTES))
            expires_at = int(time.time()) + life_s
            key = EphemeralKey(caller.tenant, expires_at, session)
            try:
                value = encode_ephemeral_key(key, self._call_keys.value, secrets.token_bytes(SALT_BYTES))
            except SessionTooLargeError as error:
                message = f"{error}: shorten its instructions or tools, or let your server place the call with them (multipart/form-data)"
                raise ApiError(413, "session_too_large", message, param="session") from None
        self._metrics.ephemeral_keys.inc()
        shown = {"type": "realtime"} | session | {"object": "realtime.session", "id": "sess_" + secrets.token_hex(12)}
        return web.json_response({"value": value, "expires_at": expires_at, "session": shown})


def _parse(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Return the key's life in seconds and the session. Raises ApiError 400."""
    try:
        asked = ClientSecretRequest.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        param = ".".join(str(part) for part in first["loc"]) or None
        raise ApiError(400, "invalid_value", f"{param or 'body'}: {first['msg']}", param=param) from None
    try:
        session = check_session(asked.session or {})
    except SessionObjectError as error:
        raise ApiError(400, "invalid_session", str(error), param=error.param) from None
    return (asked.expires_after or ExpiresAfter()).seconds, session

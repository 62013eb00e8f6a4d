"""Bodies of the gateway's public surface: read within a size and a time, and checked before anybody is asked.

Owns: size, time, text, the first line of an offer, the two forms of a call's body. Does not own: what an offer means (the
owner parses it), or a session (a backend does).
"""

import asyncio
from typing import Any

from aiohttp import web

from voicefleet_contract.http_api import JSON_TYPE, MAX_SESSION_BYTES, SDP_TYPE
from voicefleet_contract.outside import JsonError, parse_json
from voicefleet_contract.session_object import MAX_SESSION_DEPTH, SessionObjectError, parse_session_untrusted
from voicefleet_dataplane.shell.gateway.api.errors import ApiError
from voicefleet_dataplane.wire.form import FormError, parse_form_untrusted

FORM_TYPE = "multipart/form-data"
_BODY_TIMEOUT_S = 10.0
_FORM_OVERHEAD_BYTES = 8_192  # boundaries and headers of two parts
_CALL_FORM = frozenset(("sdp", "session"))


async def read_body(request: web.Request, max_bytes: int, what: str) -> bytes:
    """Return the body. ``what`` names it in errors: 413 ``WHAT_too_large``, 408."""
    too_large = ApiError(413, f"{what}_too_large", f"the {what} has at most {max_bytes} bytes", param=what)
    if request.content_length is not None and request.content_length > max_bytes:
        raise too_large
    try:
        async with asyncio.timeout(_BODY_TIMEOUT_S):
            body = await request.content.read(max_bytes + 1)
            while len(body) <= max_bytes and (more := await request.content.readany()):
                body += more
    except TimeoutError:
        raise ApiError(408, "request_timeout", f"the {what} took more than {_BODY_TIMEOUT_S:g} s") from None
    if len(body) > max_bytes:
        raise too_large
    return body


async def read_offer(request: web.Request, max_bytes: int) -> str:
    """Return the offer of a request whose whole body it is."""
    if request.content_type != SDP_TYPE:
        message = f"send the offer as Content-Type: {SDP_TYPE}, not {request.content_type}"
        raise ApiError(415, "unsupported_media_type", message)
    return parse_offer(await read_body(request, max_bytes, "offer"))


async def read_call_form(request: web.Request, max_offer_bytes: int) -> tuple[str, dict[str, Any]]:
    """Return offer and session object of a `multipart/form-data` request."""
    most = max_offer_bytes + MAX_SESSION_BYTES + _FORM_OVERHEAD_BYTES
    body = await read_body(request, most, "form")
    try:
        parts = parse_form_untrusted(request.headers["Content-Type"], body, _CALL_FORM)
    except FormError as error:
        raise ApiError(400, "invalid_form", str(error), param=error.param) from None
    if len(parts["sdp"]) > max_offer_bytes:
        raise ApiError(413, "offer_too_large", f"the offer has at most {max_offer_bytes} bytes", param="sdp")
    if len(parts["session"]) > MAX_SESSION_BYTES:
        message = f"the session has at most {MAX_SESSION_BYTES} bytes"
        raise ApiError(413, "session_too_large", message, param="session")
    try:
        session = parse_session_untrusted(parts["session"])
    except SessionObjectError as error:
        raise ApiError(400, "invalid_session", str(error), param=error.param) from None
    return parse_offer(parts["sdp"], "sdp"), session


async def read_json(request: web.Request, max_bytes: int) -> dict[str, Any]:
    """Return the JSON object of a request; an empty body is an empty object."""
    body = await read_body(request, max_bytes, "body")
    if body and request.content_type != JSON_TYPE:
        message = f"send the body as Content-Type: {JSON_TYPE}, not {request.content_type}"
        raise ApiError(415, "unsupported_media_type", message)
    try:
        value = parse_json(body, max_bytes, MAX_SESSION_DEPTH) if body.strip() else {}
    except JsonError as error:
        raise ApiError(400, "invalid_json", f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ApiError(400, "invalid_json", "the body is a JSON object")
    return value


def parse_offer(body: bytes, param: str = "offer") -> str:
    """Return an offer's text. Raises ApiError 400 that names ``param``."""
    try:
        offer = body.decode("utf-8")
    except UnicodeDecodeError:
        raise ApiError(400, "invalid_offer", "the offer is not UTF-8 text", param=param) from None
    if not offer.startswith("v=0"):  # RFC 8866 §5.1: the first line of every session description
        message = "the offer is not a session description: it starts with 'v=0'" if offer else "the offer is empty"
        raise ApiError(400, "invalid_offer", message, param=param)
    return offer

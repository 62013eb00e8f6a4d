"""Bodies of the gateway's public surface: read within a size and a time, and checked before anybody is asked.

Owns: size, time, text, the first line of an offer. Does not own: what an offer means (the owner parses it).
"""

import asyncio

from aiohttp import web

from voicefleet_contract.http_api import SDP_TYPE
from voicefleet_dataplane.shell.http_errors import ApiError

_BODY_TIMEOUT_S = 10.0


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


def parse_offer(body: bytes) -> str:
    """Return an offer's text. Raises ApiError 400."""
    try:
        offer = body.decode("utf-8")
    except UnicodeDecodeError:
        raise ApiError(400, "invalid_offer", "the offer is not UTF-8 text", param="offer") from None
    if not offer.startswith("v=0"):  # RFC 8866 §5.1: the first line of every session description
        message = "the offer is not a session description: it starts with 'v=0'" if offer else "the offer is empty"
        raise ApiError(400, "invalid_offer", message, param="offer")
    return offer

"""Errors and CORS of the gateway's public HTTP surface: whatever goes wrong, the caller gets OpenAI's error body.

Owns: `ApiError`, the middleware that turns every failure into it, the CORS headers that browsers need. Does not own:
which request fails for which reason (call_placing).
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from math import ceil

from aiohttp import web

from voicefleet_contract.http_api import error_body

log = logging.getLogger("voicefleet.gateway")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# Bearer keys travel in a header that scripts must set themselves, never in a cookie, so any origin may ask: a foreign
# page can do nothing that it could not do without a browser.
CORS_HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "Location, ETag, Link, Retry-After, X-Voicefleet-Notice",
}
PREFLIGHT_HEADERS = CORS_HEADERS | {
    "Access-Control-Allow-Methods": "GET, HEAD, POST, PATCH, DELETE, OPTIONS",
    # ETag: WHIP clients of the drafts send it where If-Match belongs; they shall see the error, not a failed preflight.
    "Access-Control-Allow-Headers": "Authorization, Content-Type, If-Match, ETag, X-OpenAI-Agents-SDK",
    "Access-Control-Max-Age": "7200",
}

_CODE_BY_STATUS = {404: "not_found", 405: "method_not_allowed", 408: "request_timeout", 413: "offer_too_large"}
_KIND_BY_STATUS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """A refusal: HTTP status, machine-readable code, a sentence for people that says what would help."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.headers = headers or {}
        self.status, self.code, self.message, self.param = status, code, message, param
        self.retry_after_s = retry_after_s

    def response(self) -> web.Response:
        """Return the HTTP response."""
        headers = dict(self.headers)
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(max(1, ceil(self.retry_after_s)))
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        kind = _KIND_BY_STATUS.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        body = error_body(self.code, self.message, param=self.param, kind=kind)
        return web.json_response(body, status=self.status, headers=headers)


@web.middleware
async def api_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every failure with an error body, and everything with the CORS headers."""
    try:
        response = await handler(request)
    except ApiError as error:
        response = error.response()
    except web.HTTPException as error:
        if error.status < 400:
            raise
        code = _CODE_BY_STATUS.get(error.status, "invalid_request")
        response = ApiError(error.status, code, f"{request.method} {request.path}: {error.reason}").response()
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
    except Exception:  # the boundary: a caller never sees a traceback, the log does
        log.exception("unexpected error in %s %s", request.method, request.path)
        response = ApiError(500, "internal_error", "the gateway failed; the error is in its log").response()
    response.headers.update(CORS_HEADERS)
    return response


async def preflight(request: web.Request) -> web.Response:
    """Answer a browser's CORS preflight."""
    return web.Response(status=204, headers=PREFLIGHT_HEADERS)

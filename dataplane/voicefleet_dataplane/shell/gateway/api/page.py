"""The page at the gateway's `/`: a few static files, read once.

Everything on it comes from this gateway, and the policy says so to the browser: no script, style or picture of anybody else, and
no page of anybody else around it. It holds no secret: whoever opens it needs an API key to do anything.
"""

import hashlib
from importlib import resources

from aiohttp import web

from voicefleet_dataplane.shell.gateway.api.openapi import Paths

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "media-src 'self' mediastream: blob:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": "microphone=(self), camera=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",  # with an ETag: a new version shows at once, an old one costs a 304
}


class Page:
    """Handlers."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[bytes, str, str]] = {}  # name → content, type, ETag
        for file in resources.files("voicefleet_dataplane.page").iterdir():
            kind = _TYPES.get(file.name.rpartition(".")[2])
            if kind is not None:
                content = file.read_bytes()
                self._files[file.name] = (content, kind, hashlib.sha256(content).hexdigest()[:32])

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Serve the page."""
        router.add_get("/", self.file)
        router.add_get("/page/{name}", self.file)

    def describe(self) -> Paths:
        """Return no paths: it is no API."""
        return {}

    async def file(self, request: web.Request) -> web.Response:
        """Return a file."""
        found = self._files.get(request.match_info.get("name", "index.html"))
        if found is None:
            raise web.HTTPNotFound
        content, kind, etag = found
        asked = request.if_none_match or ()
        response = web.Response(status=304) if any(one.value == etag for one in asked) else web.Response(body=content)
        if response.status == web.HTTPOk.status_code:
            response.content_type, response.charset = kind, "utf-8"
        response.headers.update(_HEADERS)
        response.etag = etag
        return response

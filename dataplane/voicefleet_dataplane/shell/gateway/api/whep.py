"""WHEP (draft-ietf-wish-whep): a player hears the agent of a call that runs.

``POST /whep?call=CALL_ID``: the call is of the same tenant, however it was placed; its owner owns the player's session too, and
the session ends with the call. We take every offer that has Opus, so there are no counter-offers (docs/adr).

Owns: the endpoint. Does not own: session URLs (api/session_urls), placing (call_placing).
"""

from aiohttp import web

from voicefleet_contract.http_api import SDP_TYPE
from voicefleet_dataplane.shell.gateway.admission import Caller
from voicefleet_dataplane.shell.gateway.api.bodies import read_offer
from voicefleet_dataplane.shell.gateway.api.errors import PREFLIGHT_HEADERS, ApiError
from voicefleet_dataplane.shell.gateway.api.openapi import NO_KEY, SDP_CONTENT, Paths, ok, operation
from voicefleet_dataplane.shell.gateway.api.session_urls import SessionUrls
from voicefleet_dataplane.shell.gateway.call_placing import CallPlacer, Offer

WHEP_PATH = "/whep"


class Whep:
    """Handlers."""

    def __init__(self, placer: CallPlacer, ice_servers: tuple[str, ...] = ()) -> None:
        self._placer = placer
        self._sessions = SessionUrls(placer, WHEP_PATH, ice_servers)

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Serve this interface."""
        router.add_post(WHEP_PATH, self.create)
        router.add_get(WHEP_PATH, self.get)
        router.add_options(WHEP_PATH, self.options)
        self._sessions.add_routes(router)

    def describe(self) -> Paths:
        """Return the paths."""
        call = {"name": "call", "in": "query", "required": True, "schema": {"type": "string"}}
        post = self._sessions.describe_post("Hear the agent of a call (WHEP)", (call,))
        get = operation("whepGet", "Is this WHEP", {200: ok("Yes, says its type.", SDP_CONTENT)}, (), security=NO_KEY)
        return {WHEP_PATH: {"post": post, "get": get}} | self._sessions.describe()

    async def create(self, request: web.Request) -> web.Response:
        """Answer an offer."""
        return self._sessions.created(request, await self._placer.place(request, self._offer))

    async def get(self, request: web.Request) -> web.Response:
        """By its type players find out that this is WHEP (they ask by HEAD)."""
        return web.Response(status=200, headers={"Content-Type": SDP_TYPE})

    async def options(self, request: web.Request) -> web.Response:
        """Say what may be sent."""
        return web.Response(status=200, headers=PREFLIGHT_HEADERS | {"Accept-Post": SDP_TYPE})

    async def _offer(self, request: web.Request, caller: Caller) -> Offer:
        call_id = request.query.get("call", "")
        if not call_id:
            message = f"name the call that is to be heard: POST {WHEP_PATH}?call=CALL_ID"
            raise ApiError(400, "missing_call", message, param="call")
        return Offer(await read_offer(request, self._placer.max_offer_bytes), direction="sendonly", joins=call_id)

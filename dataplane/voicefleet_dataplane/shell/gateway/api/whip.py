"""WHIP (RFC 9725): a publisher's speech goes to an agent.

The answer is recvonly, as the RFC demands: the agent is then heard by a WHEP player (api/whep), to which a Link points. With
``?direction=sendrecv``, ours, it comes back in the same session to whoever offers to receive (docs/clients.md).

Owns: the endpoint. Does not own: session URLs (api/session_urls), placing (call_placing).
"""

from aiohttp import web

from voicefleet_contract.http_api import SDP_TYPE
from voicefleet_dataplane.shell.gateway.admission import Caller
from voicefleet_dataplane.shell.gateway.api.bodies import read_offer
from voicefleet_dataplane.shell.gateway.api.errors import PREFLIGHT_HEADERS, ApiError
from voicefleet_dataplane.shell.gateway.api.openapi import NO_KEY, Paths, ok, operation
from voicefleet_dataplane.shell.gateway.api.session_urls import SessionUrls
from voicefleet_dataplane.shell.gateway.api.whep import WHEP_PATH
from voicefleet_dataplane.shell.gateway.call_placing import CallPlacer, Offer

WHIP_PATH = "/whip"
PLAYER = "urn:voicefleet:whep"  # the relation of a Link: here the agent of this session is heard


class Whip:
    """Handlers."""

    def __init__(self, placer: CallPlacer, ice_servers: tuple[str, ...] = ()) -> None:
        self._placer = placer
        self._sessions = SessionUrls(placer, WHIP_PATH, ice_servers)

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Serve this interface."""
        router.add_post(WHIP_PATH, self.create)
        router.add_get(WHIP_PATH, self.get)
        router.add_options(WHIP_PATH, self.options)
        self._sessions.add_routes(router)

    def describe(self) -> Paths:
        """Return the paths."""
        directions = {"type": "string", "enum": ["recvonly", "sendrecv"]}
        direction = {"name": "direction", "in": "query", "schema": directions}
        post = self._sessions.describe_post("Publish speech to an agent (WHIP)", (direction,))
        get = operation("whipGet", "Nothing to see", {204: ok("It is here.")}, (), security=NO_KEY)
        return {WHIP_PATH: {"post": post, "get": get}} | self._sessions.describe()

    async def create(self, request: web.Request) -> web.Response:
        """Answer an offer."""
        placed = await self._placer.place(request, self._offer)
        player = f'<{WHEP_PATH}?call={placed.session.call_id}>; rel="{PLAYER}"'
        return self._sessions.created(request, placed, player)

    async def get(self, request: web.Request) -> web.Response:
        """An endpoint has no representation."""
        return web.Response(status=204)

    async def options(self, request: web.Request) -> web.Response:
        """Say what may be sent."""
        return web.Response(status=200, headers=PREFLIGHT_HEADERS | {"Accept-Post": SDP_TYPE})

    async def _offer(self, request: web.Request, caller: Caller) -> Offer:
        direction = request.query.get("direction", "recvonly")
        if direction not in ("recvonly", "sendrecv"):
            raise ApiError(400, "unknown_direction", "direction is recvonly or sendrecv", param="direction")
        sdp = await read_offer(request, self._placer.max_offer_bytes)
        return Offer(sdp, direction="sendrecv" if direction == "sendrecv" else "recvonly", whole=True)

"""`POST /v1/realtime/calls` and the hang-up, as OpenAI's clients speak them.

The body is the offer alone (`application/sdp`: browsers, whose ephemeral key brings the session), or offer and session object
together (`multipart/form-data`: servers that place calls for their clients).

Owns: that interface's requests and answers. Does not own: everything between them (call_placing).
"""

from aiohttp import web

from voicefleet_contract.http_api import JSON_TYPE, SDP_TYPE
from voicefleet_dataplane.shell.gateway.admission import Caller
from voicefleet_dataplane.shell.gateway.api.bodies import FORM_TYPE, read_call_form, read_offer
from voicefleet_dataplane.shell.gateway.api.errors import ApiError, preflight
from voicefleet_dataplane.shell.gateway.api.openapi import (
    BODY_ERRORS,
    CALL_ID,
    KEY_ERRORS,
    LOCATION,
    NOTICE,
    PLACING_ERRORS,
    PLACING_PARAMETERS,
    SDP,
    SDP_CONTENT,
    SESSION,
    STANDARD_KEY,
    Paths,
    ok,
    operation,
)
from voicefleet_dataplane.shell.gateway.call_placing import CallPlacer, Offer

CALLS_PATH = "/v1/realtime/calls"


class RealtimeCalls:
    """Handlers."""

    def __init__(self, placer: CallPlacer) -> None:
        self._placer = placer

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Serve this interface."""
        for path, handler in ((CALLS_PATH, self.create), (CALLS_PATH + "/{call_id}/hangup", self.hang_up)):
            router.add_post(path, handler)
            router.add_options(path, preflight)

    def describe(self) -> Paths:
        """Return the paths."""
        form = {
            "type": "object",
            "required": ["sdp", "session"],
            "additionalProperties": False,
            "properties": {"sdp": SDP, "session": SESSION},
        }
        encoding = {"sdp": {"contentType": SDP_TYPE}, "session": {"contentType": JSON_TYPE}}
        create = operation(
            "createCall",
            "Place a call",
            {201: ok("The answer.", SDP_CONTENT, LOCATION | NOTICE)},
            (*KEY_ERRORS, *BODY_ERRORS, 415, *PLACING_ERRORS),
            parameters=PLACING_PARAMETERS,
            body=SDP_CONTENT | {FORM_TYPE: {"schema": form, "encoding": encoding}},
            description="The offer alone, or offer and session object as a form (standard keys: an ephemeral key brings its session).",
        )
        hang_up = operation(
            "hangUp",
            "End a call",
            {200: ok("It is over.")},
            (*KEY_ERRORS, 403, 404, 503),
            security=STANDARD_KEY,
            parameters=(CALL_ID,),
        )
        return {CALLS_PATH: {"post": create}, CALLS_PATH + "/{call_id}/hangup": {"post": hang_up}}

    async def create(self, request: web.Request) -> web.Response:
        """Answer an offer: 201, the answer, and where to hang up."""
        placed = await self._placer.place(request, self._offer)
        session = placed.session
        headers = {"Content-Type": SDP_TYPE, "Location": f"{CALLS_PATH}/{session.call_id}"}
        if session.notice:
            headers["X-Voicefleet-Notice"] = session.notice
        return web.Response(status=201, body=session.answer.encode(), headers=headers)

    async def hang_up(self, request: web.Request) -> web.Response:
        """End a call."""
        async with self._placer.admission.admitted(request) as caller:
            await self._placer.hang_up(request.match_info["call_id"], caller.tenant)
        return web.Response(status=200)

    async def _offer(self, request: web.Request, caller: Caller) -> Offer:
        if request.content_type != FORM_TYPE:
            return Offer(await read_offer(request, self._placer.max_offer_bytes))
        if caller.session is not None:
            message = f"an ephemeral key brings its session with it: send the offer alone, as Content-Type: {SDP_TYPE}"
            raise ApiError(400, "session_in_key", message, param="session")
        return Offer(*await read_call_form(request, self._placer.max_offer_bytes))

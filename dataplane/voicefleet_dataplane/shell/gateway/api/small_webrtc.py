"""Pipecat's SmallWebRTC transport: `POST /api/offer` and its PATCH, JSON both ways.

``pc_id`` is the call id. An offer with one that is there is a later offer of that call; with ``restart_pc`` it is a new peer
connection of the same person, and the agent goes on with it. One that is not there, or whose owner is away, is a first offer,
as Pipecat's own server has it. Candidates are checked for their form and forgotten (core/call/ice).

Owns: that interface's requests and answers. Does not own: placing (call_placing), the data channel (media/rtvi).
"""

import logging
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from voicefleet_contract.call_id import PREFIX
from voicefleet_contract.http_api import MAX_SESSION_BYTES
from voicefleet_contract.session_object import SessionObjectError, check_session
from voicefleet_dataplane.shell.gateway.admission import Caller
from voicefleet_dataplane.shell.gateway.api.bodies import parse_offer, read_json
from voicefleet_dataplane.shell.gateway.api.errors import ApiError, preflight
from voicefleet_dataplane.shell.gateway.api.openapi import (
    BODY_ERRORS,
    KEY_ERRORS,
    PLACING_ERRORS,
    PLACING_PARAMETERS,
    SDP,
    SESSION,
    Paths,
    json_content,
    ok,
    operation,
)
from voicefleet_dataplane.shell.gateway.call_placing import CallPlacer, Offer
from voicefleet_dataplane.wire.sdp.fragment import MAX_CANDIDATES, MAX_FRAGMENT_BYTES, is_candidate

log = logging.getLogger("voicefleet.gateway")

OFFER_PATH = "/api/offer"
_OWNER_CANNOT = (501, 503)  # it is of a version before, or away


@dataclass(frozen=True, slots=True)
class _Request:
    sdp: str
    pc_id: str
    restart: bool
    session: dict[str, Any]


class SmallWebRtc:
    """Handlers."""

    def __init__(self, placer: CallPlacer) -> None:
        self._placer = placer
        # JSON escapes line ends, two bytes for one.
        self._max_bytes = 2 * placer.max_offer_bytes + MAX_SESSION_BYTES + 4_096

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Serve this interface."""
        router.add_post(OFFER_PATH, self.offer)
        router.add_patch(OFFER_PATH, self.patch)
        router.add_options(OFFER_PATH, preflight)

    def describe(self) -> Paths:
        """Return the paths."""
        text, maybe = {"type": "string"}, {"type": ["string", "null"]}
        offer = {
            "type": "object",
            "required": ["sdp", "type"],
            "properties": {
                "sdp": SDP,
                "type": {"const": "offer"},
                "pc_id": maybe,
                "restart_pc": {"type": ["boolean", "null"]},
                "request_data": {"type": ["object", "null"], "properties": {"session": SESSION}},
            },
        }
        answer = {
            "type": "object",
            "required": ["sdp", "type", "pc_id"],
            "properties": {"sdp": SDP, "type": {"const": "answer"}, "pc_id": text},
        }
        candidate = {"type": "object", "required": ["candidate"], "properties": {"candidate": text}}
        candidates = {
            "type": "object",
            "required": ["pc_id", "candidates"],
            "properties": {"pc_id": text, "candidates": {"type": "array", "items": candidate}},
        }
        post = operation(
            "pipecatOffer",
            "Place a call, or offer again in one (Pipecat's SmallWebRTC)",
            {200: ok("The answer.", json_content(answer))},
            (*KEY_ERRORS, *BODY_ERRORS, 415, *PLACING_ERRORS, 501),
            parameters=PLACING_PARAMETERS,
            body=json_content(offer),
        )
        patch = operation(
            "pipecatCandidates",
            "Candidates of a call",
            {200: ok("They were heard.", json_content({"type": "object"}))},
            (*KEY_ERRORS, *BODY_ERRORS, 404, 415, 501, 503),
            body=json_content(candidates),
        )
        return {OFFER_PATH: {"post": post, "patch": patch}}

    async def offer(self, request: web.Request) -> web.Response:
        """Answer a first offer, or a later one."""
        async with self._placer.admission.admitted(request, ephemeral=True) as caller:
            asked = self._parse(await read_json(request, self._max_bytes))
            lost = 0
            if asked.pc_id:
                try:
                    answer = await self._placer.renegotiate(
                        request, caller, asked.pc_id, asked.sdp, another_peer=asked.restart
                    )
                    return _answer(answer, asked.pc_id)
                except ApiError as error:
                    lost = error.status
                    if lost != 404 and not (asked.restart and lost in _OWNER_CANNOT):
                        raise

            async def read(request: web.Request, caller: Caller) -> Offer:
                return Offer(asked.sdp, asked.session, keeps=True, chat="rtvi")

            placed = await self._placer.place(request, read, caller)
            if lost in _OWNER_CANNOT:
                await self._replace(asked.pc_id, caller)
        return _answer(placed.session.answer, placed.session.call_id)

    async def patch(self, request: web.Request) -> web.Response:
        """Candidates of a call that runs."""
        async with self._placer.admission.admitted(request, ephemeral=True) as caller:
            body = await read_json(request, MAX_FRAGMENT_BYTES)
            pc_id, candidates = body.get("pc_id"), body.get("candidates")
            if not isinstance(pc_id, str):
                raise ApiError(400, "invalid_request", "pc_id is what the answer to the offer said", param="pc_id")
            if not isinstance(candidates, list) or len(candidates) > MAX_CANDIDATES:
                message = f"candidates is a list of at most {MAX_CANDIDATES}"
                raise ApiError(400, "invalid_request", message, param="candidates")
            for number, candidate in enumerate(candidates):
                text = candidate.get("candidate") if isinstance(candidate, dict) else None
                if not isinstance(text, str) or not is_candidate(text):
                    message = f"candidates[{number}] is not an ICE candidate"
                    raise ApiError(400, "invalid_request", message, param="candidates")
            await self._placer.update_ice(request, caller, pc_id, ("*",), "")
        return web.json_response({"status": "success"})

    async def _replace(self, pc_id: str, caller: Caller) -> None:
        """Hang up the call before; it may be over, or its owner away, and then it ends by itself."""
        try:
            await self._placer.hang_up(pc_id, caller.tenant, replaced=True)
        except ApiError as error:
            log.info("call %s, which its client replaced, was not hung up: %s", pc_id[:64], error.code)

    def _parse(self, body: dict[str, Any]) -> _Request:
        sdp, pc_id = body.get("sdp"), body.get("pc_id")
        if body.get("type") != "offer" or not isinstance(sdp, str):
            raise ApiError(400, "invalid_request", 'send {"sdp": …, "type": "offer"}', param="sdp")
        if pc_id is not None and not isinstance(pc_id, str):
            raise ApiError(400, "invalid_request", "pc_id is a string, or null", param="pc_id")
        if len(sdp) > self._placer.max_offer_bytes:
            message = f"the offer has at most {self._placer.max_offer_bytes} bytes"
            raise ApiError(413, "offer_too_large", message, param="sdp")
        data = body.get("request_data", body.get("requestData"))
        session = data.get("session", {}) if isinstance(data, dict) else {}
        try:
            check_session(session)
        except SessionObjectError as error:
            raise ApiError(400, "invalid_session", str(error), param=f"request_data.{error.param}") from None
        known = pc_id if pc_id is not None and pc_id.startswith(PREFIX) else ""
        return _Request(parse_offer(sdp.encode(), "sdp"), known, body.get("restart_pc") is True, session)


def _answer(sdp: str, pc_id: str) -> web.Response:
    return web.json_response({"sdp": sdp, "type": "answer", "pc_id": pc_id})

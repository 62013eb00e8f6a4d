"""Placing calls: what every client interface of the gateway stands on, whatever its requests look like.

An interface (api/calls, …) says how an offer is read from its request and how the answer is written; here is all that
happens in between: admission, the ingress, the walk to an owner, counting, tracing, the log line. A call is found again by its
id, which says under a MAC who owns it: no registry is asked.

Owns: that order. Does not own: the walk over members (owner_search), limits (gateway/admission), error bodies (api/errors).
"""

import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web

from voicefleet_contract.call_id import CallIdError, decode_call_id
from voicefleet_contract.http_api import (
    MAX_OFFER_BYTES,
    CreateSession,
    IceUpdated,
    RefusalReason,
    Renegotiate,
    Renegotiated,
    SessionCreated,
    UpdateIce,
)
from voicefleet_contract.keys import KeyRing
from voicefleet_contract.registry import client_network
from voicefleet_contract.settings import GatewaySettings
from voicefleet_contract.topology import Member, MemberState, Relay, TopologyIndex
from voicefleet_contract.trace_context import HEADER, parse_traceparent
from voicefleet_dataplane.core.gateway.geo import Place
from voicefleet_dataplane.core.gateway.placement import UnknownRegionError, rank_ingresses, region_place
from voicefleet_dataplane.shell.gateway.admission import Admission, Caller
from voicefleet_dataplane.shell.gateway.api.errors import ApiError
from voicefleet_dataplane.shell.gateway.control_client import ControlClient, Created, NotReached, Refused
from voicefleet_dataplane.shell.gateway.files import PlaceDatabase
from voicefleet_dataplane.shell.gateway.metrics import GatewayMetrics
from voicefleet_dataplane.shell.gateway.owner_search import OwnerWalk, Walk
from voicefleet_dataplane.shell.process.tracing import NoTracer, Tracer
from voicefleet_dataplane.shell.process.watched_files import Watched

log = logging.getLogger("voicefleet.gateway")

REGION_HEADER = "X-Voicefleet-Region"
MAX_CANDIDATES = 8


@dataclass(frozen=True, slots=True)
class Offer:
    """What a client asks for. ``session`` is the Realtime API's session object; pool and region are in the request.

    The session of an ephemeral key takes its place.
    """

    sdp: str
    session: Mapping[str, Any] = field(default_factory=dict)
    direction: Literal["", "sendrecv", "recvonly", "sendonly"] = ""  # http_api.CreateSession says what these mean
    whole: bool = False
    keeps: bool = False
    chat: Literal["", "rtvi"] = ""
    joins: str = ""  # the id of a call: to hear its agent, and have none of its own


@dataclass(frozen=True, slots=True)
class Placed:
    """A call that has an owner, and the ingress that its answer names."""

    session: SessionCreated
    ingress: Relay


ReadOffer = Callable[[web.Request, Caller], Awaitable[Offer]]


class CallPlacer:
    """Places calls over the current topology, and finds them again."""

    def __init__(
        self,
        settings: GatewaySettings,
        admission: Admission,
        *,
        topology: Callable[[], TopologyIndex | None],
        client: Callable[[], ControlClient],
        call_keys: Watched[KeyRing],
        places: Watched[PlaceDatabase],
        metrics: GatewayMetrics,
        tracer: Tracer | None = None,
    ) -> None:
        self._tracer: Tracer = tracer or NoTracer()
        self._settings, self._topology, self._metrics = settings, topology, metrics
        self._call_keys, self._places = call_keys, places
        self.admission, self.client = admission, client
        self.walk = OwnerWalk(client, metrics.owner_asked)
        self.max_offer_bytes = min(settings.max_offer_bytes, MAX_OFFER_BYTES)

    async def place(self, request: web.Request, read: ReadOffer, admitted: Caller | None = None) -> Placed:
        """Admit a request, read its offer and find an owner for it. Raises ApiError; counts and traces either way.

        ``admitted`` is who asks, when the interface had to look into the request before it knew what is asked.
        """
        started = time.monotonic()
        span = self._tracer.start("call", parse_traceparent(request.headers.get(HEADER)))
        try:
            door = nullcontext(admitted) if admitted else self.admission.admitted(request, ephemeral=True)
            async with door as caller:
                placed = await self._place(
                    request, caller, await read(request, caller), started, str(span.context or "")
                )
        except ApiError as error:
            self._metrics.calls.labels(error.code).inc()
            span.end({"http.response.status_code": error.status}, error=error.code)
            raise
        except BaseException:
            span.end({}, error="interrupted")
            raise
        span.end({"http.response.status_code": 201, "voicefleet.call": placed.session.call_id})
        self._metrics.calls.labels("created").inc()
        self._metrics.answer_seconds.observe(time.monotonic() - started)
        return placed

    def owner(self, call_id: str) -> Member:
        """Return who owns a call. Raises ApiError: 404 for an id that is none of ours, or whose owner is gone."""
        not_found = call_not_found(call_id)
        try:
            call = decode_call_id(call_id, self._call_keys.value)
        except CallIdError:
            raise not_found from None
        index = self._current_topology()
        owner = index.member(call.slot, call.generation) if call.cluster == index.cluster else None
        if owner is None or owner.state is MemberState.GONE:
            raise not_found
        return owner

    async def hang_up(self, call_id: str, tenant: str, *, replaced: bool = False) -> None:
        """End a call. Raises ApiError: 404 when there is none of this tenant, 503 when its owner cannot be reached."""
        ended = await self.client().hang_up(self.owner(call_id), call_id, tenant, replaced=replaced)
        self._metrics.hang_ups.labels({True: "ended", False: "unknown", None: "not_reached"}[ended]).inc()
        if ended is None:
            raise owner_not_reached()
        if not ended:
            raise call_not_found(call_id)

    async def renegotiate(
        self, request: web.Request, caller: Caller, call_id: str, sdp: str, *, another_peer: bool = False
    ) -> str:
        """Hand a later offer of a running call to its owner, and return the answer. Raises ApiError."""
        owner = self.owner(call_id)
        ingress = self._ingress(request, caller, self._current_topology(), secrets.token_bytes(16))
        body = Renegotiate(
            tenant=caller.tenant,
            offer=sdp,
            candidates=ingress.advertise[:MAX_CANDIDATES],
            another_peer=another_peer,
            region=ingress.region,
            relay=ingress.name,
        )
        outcome = await self.client().renegotiate(owner, call_id, body)
        if isinstance(outcome, Renegotiated):
            return outcome.answer
        if isinstance(outcome, Refused) and outcome.refusal and outcome.refusal.reason is RefusalReason.OFFER:
            raise ApiError(422, "unsupported_offer", outcome.refusal.message, param=outcome.refusal.param or "offer")
        raise _refused(outcome, call_id)

    async def update_ice(
        self, request: web.Request, caller: Caller, call_id: str, if_match: tuple[str, ...], ufrag: str, pwd: str = ""
    ) -> tuple[IceUpdated, Relay]:
        """Tell a call's owner what the client says of ICE, and name the ingress that is best now. Raises ApiError."""
        owner = self.owner(call_id)
        ingress = self._ingress(request, caller, self._current_topology(), secrets.token_bytes(16))
        body = UpdateIce(
            tenant=caller.tenant,
            if_match=if_match,
            ice_ufrag=ufrag,
            client_pwd=pwd,
            region=ingress.region,
            relay=ingress.name,
        )
        outcome = await self.client().update_ice(owner, call_id, body)
        if isinstance(outcome, IceUpdated):
            return outcome, ingress
        raise _refused(outcome, call_id)

    async def _place(
        self, request: web.Request, caller: Caller, offer: Offer, started: float, traceparent: str
    ) -> Placed:
        index = self._current_topology()
        pool = request.query.get("pool", self._settings.pool)
        if index.pool(pool) is None:
            raise ApiError(400, "unknown_pool", f"there is no pool {pool!r}", param="pool")
        key = secrets.token_bytes(16)
        ingress = self._ingress(request, caller, index, key)
        body = CreateSession(
            request_id=key.hex(),
            offer=offer.sdp,
            candidates=ingress.advertise[:MAX_CANDIDATES],
            region=ingress.region,
            relay=ingress.name,
            tenant=caller.tenant,
            traceparent=traceparent,
            session=dict(offer.session if caller.session is None else caller.session),
            direction=offer.direction,
            whole=offer.whole,
            keeps=offer.keeps,
            chat=offer.chat,
        )
        if offer.joins:
            walk = await self._join(offer.joins, body)
        else:
            walk = await self.walk.find(index, pool, key, body)
        if walk.session is None or walk.owner is None:
            raise _no_owner(walk, pool)
        if request.transport is None or request.transport.is_closing():  # the caller left: nobody will use the session
            self.walk.abandon(walk.owner, walk.session.call_id)
            raise ApiError(499, "caller_left", "the caller closed the connection")
        log.info(
            "call %s tenant=%s pool=%s slot=%d relay=%s client=%s asked=%d answer_ms=%.1f",
            *(walk.session.call_id, caller.tenant, pool, walk.session.slot, ingress.name),
            *(client_network(caller.address), len(walk.outcomes), (time.monotonic() - started) * 1e3),
        )
        return Placed(walk.session, ingress)

    async def _join(self, call_id: str, body: CreateSession) -> Walk:
        """Ask the one member that can: a session that nobody heard of is left to its set-up timeout."""
        owner = self.owner(call_id)
        match await self.client().listen(owner, call_id, body):
            case Created(session):
                return Walk(session, owner)
            case Refused(422, refusal):
                return Walk(offer_refused=True, offer_refusal=refusal)
            case Refused() as refused:
                raise _refused(refused, call_id)
            case _:
                raise owner_not_reached()

    def _current_topology(self) -> TopologyIndex:
        index = self._topology()
        if index is None:
            raise ApiError(503, "no_topology", "the gateway has no topology yet", retry_after_s=2)
        return index

    def _ingress(self, request: web.Request, caller: Caller, index: TopologyIndex, key: bytes) -> Relay:
        relays, settings = index.topology.relays, self._settings
        region = request.query.get("region", "") or request.headers.get(REGION_HEADER, "")
        here = Place(settings.latitude, settings.longitude)
        if region:
            try:
                where: Place = region_place(relays, region)
            except UnknownRegionError as error:
                raise ApiError(400, "unknown_region", str(error), param="region") from None
        else:
            found = self._places.value.place(caller.address)
            if found is not None:
                where = found
            else:  # the gateway stands near its callers, or so its DNS name says
                region, where = settings.region, here
                if any(relay.region == region for relay in relays):
                    where = region_place(relays, region)
        ranked = rank_ingresses(relays, where, key, region)
        if not ranked:
            message = f"no relay is ready ({len(relays)} in the topology)"
            raise ApiError(503, "no_ready_relay", message, retry_after_s=2)
        return ranked[0]


def call_not_found(call_id: str) -> ApiError:
    """Return the error for a call that is not there; whether it ever was is nobody's business."""
    return ApiError(404, "call_id_not_found", f"there is no call {call_id[:64]!r}", param="call_id")


def owner_not_reached() -> ApiError:
    """Return the error for an owner that does not answer."""
    return ApiError(503, "owner_not_reached", "the call's owner cannot be reached", retry_after_s=1)


def _refused(outcome: Refused | NotReached, call_id: str) -> ApiError:
    """Return the error for what an owner did not do in a running call."""
    if isinstance(outcome, NotReached):
        return owner_not_reached()
    refusal = outcome.refusal
    if refusal is None:  # 404 without a word: a member of the version before, which has no such request
        return ApiError(501, "not_supported_by_owner", "the call's owner is of a version that cannot do this")
    if refusal.reason is RefusalReason.UNKNOWN_CALL:
        return call_not_found(call_id)
    return ApiError(
        outcome.status,
        refusal.reason.value,
        refusal.message,
        param=refusal.param,
        retry_after_s=refusal.retry_after_s,
    )


def _no_owner(walk: Walk, pool: str) -> ApiError:
    if walk.offer_refused:
        refusal = walk.offer_refusal
        message = refusal.message if refusal else "the offer was refused"
        return ApiError(422, "unsupported_offer", message, param=(refusal and refusal.param) or "offer")
    if not walk.outcomes:
        return ApiError(503, "no_active_member", f"pool {pool!r} has no active member", retry_after_s=2)
    outcomes = [outcome for _, outcome in walk.outcomes]
    counted = ", ".join(f"{outcomes.count(what)} {what}" for what in sorted(set(outcomes)))
    message = f"no member of pool {pool!r} took the call ({counted})"
    return ApiError(503, "no_capacity", message, retry_after_s=walk.retry_after_s)

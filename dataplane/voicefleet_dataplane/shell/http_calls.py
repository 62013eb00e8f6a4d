"""The gateway's public HTTP surface: `POST /v1/realtime/calls` and the hang-up, as OpenAI's clients speak it.

Owns: reading a request, its limits, the choice of ingress, the answer. Does not own: the walk over members
(owner_walk), error bodies (http_errors), how a topology arrives.

A request is checked in the order of its price: the client's rate, the key, the key's rate, the size, the body.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from voicefleet_contract.call_id import CallIdError, decode_call_id
from voicefleet_contract.http_api import MAX_OFFER_BYTES, SDP_TYPE, CreateSession
from voicefleet_contract.keys import KeyRing
from voicefleet_contract.registry import client_network
from voicefleet_contract.settings import GatewaySettings
from voicefleet_contract.topology import MemberState, Relay, TopologyIndex
from voicefleet_contract.trace_context import HEADER, parse_traceparent
from voicefleet_dataplane.core.api_keys import ApiKeys
from voicefleet_dataplane.core.forwarded import client_address, limit_key, parse_networks
from voicefleet_dataplane.core.geo import Place
from voicefleet_dataplane.core.limits import ConcurrencyLimit, RateLimit
from voicefleet_dataplane.core.placement import UnknownRegionError, rank_ingresses, region_place
from voicefleet_dataplane.shell.control_client import ControlClient
from voicefleet_dataplane.shell.gateway_files import PlaceDatabase
from voicefleet_dataplane.shell.gateway_metrics import GatewayMetrics
from voicefleet_dataplane.shell.http_errors import ApiError
from voicefleet_dataplane.shell.owner_walk import OwnerWalk, Walk
from voicefleet_dataplane.shell.tracing import NoTracer, Tracer
from voicefleet_dataplane.shell.watched import Watched

log = logging.getLogger("voicefleet.gateway")

CALLS_PATH = "/v1/realtime/calls"
REGION_HEADER = "X-Voicefleet-Region"
MAX_CANDIDATES = 8
_ANONYMOUS = "anonymous"
_BODY_TIMEOUT_S = 10.0
_BURST_S = 2.0  # a burst may hold so many seconds of the rate


class CallApi:
    """Handlers of the public surface, over the current topology and the files read last."""

    def __init__(
        self,
        settings: GatewaySettings,
        *,
        topology: Callable[[], TopologyIndex | None],
        client: Callable[[], ControlClient],
        api_keys: Watched[ApiKeys],
        call_keys: Watched[KeyRing],
        places: Watched[PlaceDatabase],
        metrics: GatewayMetrics,
        tracer: Tracer | None = None,
    ) -> None:
        self._tracer: Tracer = tracer or NoTracer()
        self._settings, self._topology, self._client = settings, topology, client
        self._api_keys, self._call_keys, self._places, self._metrics = api_keys, call_keys, places, metrics
        self.walk = OwnerWalk(client, metrics.owner_asked)
        self._trusted = parse_networks(settings.trusted_forwarders)
        self._max_offer_bytes = min(settings.max_offer_bytes, MAX_OFFER_BYTES)
        per_key, per_client = settings.calls_per_second_per_key, settings.calls_per_second_per_client
        self._key_rate = RateLimit(per_key, max(1.0, per_key * _BURST_S))
        self._client_rate = RateLimit(per_client, max(1.0, per_client * _BURST_S))
        self._all_running = ConcurrencyLimit(settings.max_concurrent_requests)
        self._key_running = ConcurrencyLimit(settings.max_concurrent_requests_per_key)
        self._client_running = ConcurrencyLimit(settings.max_concurrent_requests_per_client)

    async def create(self, request: web.Request) -> web.Response:
        """Answer an offer: 201, the answer, and where to hang up."""
        started = time.monotonic()
        span = self._tracer.start("call", parse_traceparent(request.headers.get(HEADER)))
        try:
            async with self._admitted(request) as tenant:
                response = await self._create(request, tenant, started, str(span.context or ""))
        except ApiError as error:
            self._metrics.calls.labels(error.code).inc()
            span.end({"http.response.status_code": error.status}, error=error.code)
            raise
        except BaseException:
            span.end({}, error="interrupted")
            raise
        span.end({"http.response.status_code": 201, "voicefleet.call": response.headers["Location"].rpartition("/")[2]})
        self._metrics.calls.labels("created").inc()
        self._metrics.answer_seconds.observe(time.monotonic() - started)
        return response

    async def _create(self, request: web.Request, tenant: str, started: float, traceparent: str) -> web.Response:
        offer = await self._offer(request)
        index = self._topology()
        if index is None:
            raise ApiError(503, "no_topology", "the gateway has no topology yet", retry_after_s=2)
        pool = request.query.get("pool", self._settings.pool)
        if index.pool(pool) is None:
            raise ApiError(400, "unknown_pool", f"there is no pool {pool!r}", param="pool")
        key = secrets.token_bytes(16)
        ingress = self._ingress(request, index, key)
        walk = await self.walk.find(
            index,
            pool,
            key,
            CreateSession(
                request_id=key.hex(),
                offer=offer,
                candidates=ingress.advertise[:MAX_CANDIDATES],
                region=ingress.region,
                relay=ingress.name,
                tenant=tenant,
                traceparent=traceparent,
            ),
        )
        if walk.session is None or walk.owner is None:
            raise _no_owner(walk, pool)
        if request.transport is None or request.transport.is_closing():  # the caller left: nobody will use the session
            self.walk.abandon(walk.owner, walk.session.call_id)
            raise ApiError(499, "caller_left", "the caller closed the connection")
        log.info(
            "call %s tenant=%s pool=%s slot=%d relay=%s client=%s asked=%d answer_ms=%.1f",
            *(walk.session.call_id, tenant, pool, walk.session.slot, ingress.name),
            *(client_network(self._client_address(request)), len(walk.outcomes), (time.monotonic() - started) * 1e3),
        )
        return web.Response(
            status=201,
            body=walk.session.answer.encode(),
            headers={"Content-Type": SDP_TYPE, "Location": f"{CALLS_PATH}/{walk.session.call_id}"},
        )

    async def hang_up(self, request: web.Request) -> web.Response:
        """End a call. The id itself says who owns it, under a MAC: no registry is asked."""
        async with self._admitted(request):
            call_id = request.match_info["call_id"]
            not_found = ApiError(404, "call_id_not_found", f"there is no call {call_id[:64]!r}", param="call_id")
            try:
                call = decode_call_id(call_id, self._call_keys.value)
            except CallIdError:
                raise not_found from None
            index = self._topology()
            if index is None:
                raise ApiError(503, "no_topology", "the gateway has no topology yet", retry_after_s=2)
            owner = index.member(call.slot, call.generation) if call.cluster == index.cluster else None
            if owner is None or owner.state is MemberState.GONE:
                raise not_found
            ended = await self._client().hang_up(owner, call_id)
            self._metrics.hang_ups.labels({True: "ended", False: "unknown", None: "not_reached"}[ended]).inc()
            if ended is None:
                raise ApiError(503, "owner_not_reached", "the call's owner cannot be reached", retry_after_s=1)
            if not ended:
                raise not_found
            return web.Response(status=200)

    @asynccontextmanager
    async def _admitted(self, request: web.Request) -> AsyncIterator[str]:
        """Let a request in under its client's and its key's limits, and give its tenant."""
        client = limit_key(self._client_address(request))
        self._within_rate(self._client_rate, client, "this client")  # before the key: it also slows down guessing
        tenant = self._api_keys.value.tenant(request.headers.get("Authorization"))
        if tenant is None:
            if not self._settings.allow_anonymous_calls or "Authorization" in request.headers:
                message = "no valid API key: send the header 'Authorization: Bearer KEY'"
                raise ApiError(401, "invalid_api_key", message)
            tenant = _ANONYMOUS
        else:
            self._within_rate(self._key_rate, tenant, "this API key")
        entered: list[tuple[ConcurrencyLimit, str]] = []
        try:
            for limit, key, whose in (
                (self._client_running, client, "this client"),
                (self._key_running, tenant, "this API key"),
                (self._all_running, "", "this gateway"),
            ):
                if not limit.enter(key):
                    message = f"too many requests of {whose} at once"
                    raise ApiError(429, "too_many_requests", message, retry_after_s=1)
                entered.append((limit, key))
            self._metrics.in_progress.set(len(self._all_running))
            yield tenant
        finally:
            for limit, key in entered:
                limit.leave(key)
            self._metrics.in_progress.set(len(self._all_running))

    def _within_rate(self, limit: RateLimit, key: str, whose: str) -> None:
        wait_s = limit.take(key, time.monotonic())
        if wait_s:
            raise ApiError(429, "rate_limit_exceeded", f"too many requests of {whose}", retry_after_s=wait_s)

    async def _offer(self, request: web.Request) -> str:
        if request.content_type != SDP_TYPE:
            message = f"send the offer as Content-Type: {SDP_TYPE}, not {request.content_type}"
            raise ApiError(415, "unsupported_media_type", message)
        too_large = ApiError(
            413, "offer_too_large", f"an offer has at most {self._max_offer_bytes} bytes", param="offer"
        )
        if request.content_length is not None and request.content_length > self._max_offer_bytes:
            raise too_large
        try:
            async with asyncio.timeout(_BODY_TIMEOUT_S):
                body = await request.content.read(self._max_offer_bytes + 1)
                while len(body) <= self._max_offer_bytes and (more := await request.content.readany()):
                    body += more
        except TimeoutError:
            raise ApiError(408, "request_timeout", f"the offer took more than {_BODY_TIMEOUT_S:g} s") from None
        if len(body) > self._max_offer_bytes:
            raise too_large
        try:
            offer = body.decode("utf-8")
        except UnicodeDecodeError:
            raise ApiError(400, "invalid_offer", "the offer is not UTF-8 text", param="offer") from None
        if not offer.startswith("v=0"):  # RFC 8866 §5.1: the first line of every session description
            message = "the body is not a session description: it starts with 'v=0'" if offer else "the body is empty"
            raise ApiError(400, "invalid_offer", message, param="offer")
        return offer

    def _ingress(self, request: web.Request, index: TopologyIndex, key: bytes) -> Relay:
        relays, settings = index.topology.relays, self._settings
        region = request.query.get("region", "") or request.headers.get(REGION_HEADER, "")
        here = Place(settings.latitude, settings.longitude)
        if region:
            try:
                caller: Place = region_place(relays, region)
            except UnknownRegionError as error:
                raise ApiError(400, "unknown_region", str(error), param="region") from None
        else:
            found = self._places.value.place(self._client_address(request))
            if found is not None:
                caller = found
            else:  # the gateway stands near its callers, or so its DNS name says
                region, caller = settings.region, here
                if any(relay.region == region for relay in relays):
                    caller = region_place(relays, region)
        ranked = rank_ingresses(relays, caller, key, region)
        if not ranked:
            message = f"no relay is ready ({len(relays)} in the topology)"
            raise ApiError(503, "no_ready_relay", message, retry_after_s=2)
        return ranked[0]

    def _client_address(self, request: web.Request) -> str:
        forwarded = ",".join(request.headers.getall("X-Forwarded-For", []))
        return client_address(request.remote or "0.0.0.0", forwarded, self._trusted)


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

"""The control API of a transceiver: HTTP over mutual TLS, on the TCP port of the media port's number.

Who may ask is decided twice: TLS takes only certificates of the inner CA, and each request only those whose DNS name is a
gateway's or the operator's; the sessions API's may hang up, Prometheus' may read metrics, a gateway's alone may listen to what
is said in a call. A relay's opens nothing here.

Owns: HTTP, TLS and the bodies. Does not own: calls (a Calls object has them).
"""

import logging
import ssl
from collections.abc import Awaitable, Callable
from enum import StrEnum, unique
from pathlib import Path
from typing import Protocol

from aiohttp import web
from pydantic import BaseModel

from voicefleet_contract import names
from voicefleet_contract.http_api import (
    MAX_OFFER_BYTES,
    MAX_SESSION_BYTES,
    MAX_WATCHERS,
    CreateSession,
    DrainOrder,
    IceUpdated,
    Refusal,
    RefusalReason,
    Renegotiate,
    Renegotiated,
    SessionCreated,
    SessionList,
    SlotStatus,
    UpdateIce,
)
from voicefleet_contract.outside import OutsideError, parse_model
from voicefleet_dataplane.core.transceiver.admission import NoRoom
from voicefleet_dataplane.media.events import EventHub
from voicefleet_dataplane.shell.transceiver.events_socket import serve_watcher
from voicefleet_dataplane.wire.sdp.model import SdpError
from voicefleet_listener.guard import prove

log = logging.getLogger("voicefleet.transceiver")

# JSON escapes line ends, two bytes for one; and the fields around the offer.
MAX_BODY_BYTES = 2 * MAX_OFFER_BYTES + 2 * MAX_SESSION_BYTES + 8_192
_ALLOWED_ROLES = frozenset(names.inner_dns_name(role) for role in ("gateway", "operator"))
_MAY_HANG_UP = _ALLOWED_ROLES | {names.inner_dns_name("sessions")}
_MAY_WATCH = frozenset((names.inner_dns_name("gateway"),))
_MAY_READ_METRICS = _ALLOWED_ROLES | {names.inner_dns_name("monitoring")}

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Calls(Protocol):
    """What stands behind the API."""

    def create(self, request: CreateSession) -> SessionCreated | NoRoom:
        """Answer an offer; raises SdpError."""

    def listen(self, call_id: str, request: CreateSession) -> SessionCreated | NoRoom | Refusal:
        """Answer the offer of a client that wants to hear a call's agent; raises SdpError."""

    def renegotiate(self, call_id: str, request: Renegotiate) -> Renegotiated | Refusal:
        """Answer a later offer of a running call; raises SdpError."""

    def update_ice(self, call_id: str, request: UpdateIce) -> IceUpdated | Refusal:
        """Hear what a client says of ICE in a running call."""

    def hang_up(self, call_id: str, tenant: str | None = None, *, replaced: bool = False) -> bool:
        """End a call; False if there is none, or not of this tenant (None: whoever's)."""

    def events(self, call_id: str, tenant: str | None) -> EventHub | None:
        """The events of a call; None if there is none, or not of this tenant."""

    def sessions(self) -> SessionList:
        """The calls of this moment."""

    def status(self) -> SlotStatus:
        """The slot as it sees itself."""

    def drain(self, order: DrainOrder) -> None:
        """Take no new calls from now on, and hang up when the order says."""

    def metrics(self, accept: str) -> tuple[bytes, str]:
        """The exposition in the form that an Accept header asks for, and its content type."""


@unique
class ControlRefusal(StrEnum):
    """Why somebody got no answer of the control API. Each value is a metric label."""

    NO_CERTIFICATE = "no_certificate"
    OTHER_AUTHORITY = "other_authority"  # or one that has expired
    HANDSHAKE = "handshake"  # plain HTTP, TLS before 1.3, garbage
    WRONG_ROLE = "wrong_role"


_HANDSHAKE_REFUSALS = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": ControlRefusal.NO_CERTIFICATE,
    "CERTIFICATE_VERIFY_FAILED": ControlRefusal.OTHER_AUTHORITY,
}
Refused = dict[ControlRefusal, int]


def build_server_context(tls_dir: Path, refused: Refused) -> ssl.SSLContext:
    """A context that shows our certificate and asks for one of the inner CA. Raises OSError, ssl.SSLError."""

    class Counted(ssl.SSLObject):
        """Counts handshakes that fail: no layer above is told of them."""

        def do_handshake(self) -> None:
            try:
                super().do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise
            except ssl.SSLError as error:
                refused[_HANDSHAKE_REFUSALS.get(error.reason, ControlRefusal.HANDSHAKE)] += 1
                raise

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslobject_class = Counted
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    load_certificates(context, tls_dir)
    return context


def load_certificates(context: ssl.SSLContext, tls_dir: Path) -> ssl.SSLContext:
    """Read the files again: handshakes from now on use them."""
    context.load_verify_locations(tls_dir / names.TLS_CA_FILE)
    context.load_cert_chain(tls_dir / names.TLS_CERT_FILE, tls_dir / names.TLS_KEY_FILE)
    return context


def build_app(calls: Calls, refused: Refused) -> web.Application:
    """The API as an aiohttp application."""
    handlers = _Handlers(calls)

    @web.middleware
    async def only_gateway_and_operator(request: web.Request, handler: _Handler) -> web.StreamResponse:
        certificate = request.transport.get_extra_info("peercert") if request.transport is not None else None
        alternative = (certificate or {}).get("subjectAltName", ())
        allowed = _MAY_HANG_UP if request.method == "DELETE" else _ALLOWED_ROLES
        if request.path == "/metrics":
            allowed = _MAY_READ_METRICS
        elif request.path.endswith("/events"):
            allowed = _MAY_WATCH
        if not any(kind == "DNS" and name in allowed for kind, name in alternative):
            refused[ControlRefusal.WRONG_ROLE] += 1
            raise web.HTTPForbidden(text="the client certificate's role may not ask this\n")
        prove()
        return await handler(request)

    app = web.Application(middlewares=[only_gateway_and_operator], client_max_size=MAX_BODY_BYTES)
    app.router.add_post("/v1/sessions", handlers.create)
    app.router.add_get("/v1/sessions", handlers.sessions)
    app.router.add_post("/v1/sessions/{call_id}/listeners", handlers.listen)
    app.router.add_post("/v1/sessions/{call_id}/offer", handlers.renegotiate)
    app.router.add_post("/v1/sessions/{call_id}/ice", handlers.update_ice)
    app.router.add_delete("/v1/sessions/{call_id}", handlers.hang_up)
    app.router.add_get("/v1/sessions/{call_id}/events", handlers.events)
    app.router.add_get("/v1/status", handlers.status)
    app.router.add_post("/v1/drain", handlers.drain)
    app.router.add_get("/metrics", handlers.metrics)
    return app


def _json(body: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(status=status, text=body.model_dump_json(), content_type="application/json", headers=headers)


def _refusal(error: OutsideError) -> Refusal:
    return Refusal(reason=RefusalReason.OFFER, message=str(error), param=error.param or None)


def no_call(call_id: str) -> Refusal:
    """What is said of a call that is not here, or not the asker's."""
    return Refusal(reason=RefusalReason.UNKNOWN_CALL, message=f"no call {call_id} here")


_STATUS = {
    RefusalReason.UNKNOWN_CALL: 404,
    RefusalReason.OTHER_ICE_SESSION: 412,
    RefusalReason.TOO_MANY_RESTARTS: 429,
}


def _answer(outcome: BaseModel, status: int = 200) -> web.Response:
    return _json(outcome, _STATUS.get(outcome.reason, 422) if isinstance(outcome, Refusal) else status)


class _Handlers:
    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def create(self, request: web.Request) -> web.Response:
        return await self._create(request, self._calls.create)

    async def listen(self, request: web.Request) -> web.Response:
        call_id = request.match_info["call_id"]
        return await self._create(request, lambda body: self._calls.listen(call_id, body))

    async def _create(
        self, request: web.Request, create: Callable[[CreateSession], SessionCreated | NoRoom | Refusal]
    ) -> web.Response:
        try:
            body = parse_model(CreateSession, await request.read(), MAX_BODY_BYTES)
        except OutsideError as error:
            return _json(_refusal(error), 422)
        try:
            outcome = create(body)
        except SdpError as error:
            return _json(Refusal(reason=RefusalReason.OFFER, message=str(error), param=error.field), 422)
        if isinstance(outcome, NoRoom):
            refusal = Refusal(
                reason=outcome.reason,
                message=outcome.message,
                retry_after_s=outcome.retry_after_s,
                sessions=self._calls.status().sessions,
            )
            return _json(refusal, 503, {"Retry-After": str(outcome.retry_after_s)})
        return _answer(outcome, 201)

    async def renegotiate(self, request: web.Request) -> web.Response:
        try:
            body = parse_model(Renegotiate, await request.read(), MAX_BODY_BYTES)
            return _answer(self._calls.renegotiate(request.match_info["call_id"], body))
        except OutsideError as error:
            return _json(_refusal(error), 422)
        except SdpError as error:
            return _json(Refusal(reason=RefusalReason.OFFER, message=str(error), param=error.field), 422)

    async def update_ice(self, request: web.Request) -> web.Response:
        try:
            body = parse_model(UpdateIce, await request.read(), MAX_BODY_BYTES)
        except OutsideError as error:
            return _json(_refusal(error), 422)
        return _answer(self._calls.update_ice(request.match_info["call_id"], body))

    async def hang_up(self, request: web.Request) -> web.Response:
        call_id = request.match_info["call_id"]
        if self._calls.hang_up(call_id, request.query.get("tenant"), replaced="replaced" in request.query):
            return web.json_response({})
        return _json(no_call(call_id), 404)

    async def events(self, request: web.Request) -> web.StreamResponse:
        call_id = request.match_info["call_id"]
        hub = self._calls.events(call_id, request.query.get("tenant"))
        if hub is None or hub.is_closed:
            return _json(no_call(call_id), 404)
        socket = await serve_watcher(request, hub)
        if socket is None:
            message = f"call {call_id} is watched by {MAX_WATCHERS} already"
            return _json(Refusal(reason=RefusalReason.WATCHED, message=message), 429)
        return socket

    async def sessions(self, request: web.Request) -> web.Response:
        return _json(self._calls.sessions())

    async def status(self, request: web.Request) -> web.Response:
        return _json(self._calls.status())

    async def drain(self, request: web.Request) -> web.Response:
        try:
            order = parse_model(DrainOrder, await request.read() or b"{}", MAX_BODY_BYTES)
        except OutsideError as error:
            return _json(_refusal(error), 422)
        self._calls.drain(order)
        return _json(self._calls.status(), 202)

    async def metrics(self, request: web.Request) -> web.Response:
        body, content_type = self._calls.metrics(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

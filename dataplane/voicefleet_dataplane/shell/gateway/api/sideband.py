"""`GET /v1/realtime?call_id=…`: the sideband, a WebSocket of a server beside the client of a call.

It sees the events that the client sees and may speak as the client may. The gateway only joins two sockets, the caller's and one
to the call's owner, which knows the call's tenant; nothing waits here: who is slow makes TCP wait, and the owner lets go of
who does not read.

Owns: the handshake's refusals, the joining, how many sidebands there are. Does not own: events (media/events at the owner).
"""

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager

import aiohttp
from aiohttp import WSMsgType, web

from voicefleet_contract.http_api import MAX_EVENT_BYTES, MAX_WATCHERS
from voicefleet_contract.settings import GatewaySettings
from voicefleet_dataplane.core.limits import ConcurrencyLimit
from voicefleet_dataplane.shell.gateway.api.errors import ApiError
from voicefleet_dataplane.shell.gateway.api.openapi import CALL_ID, KEY_ERRORS, STANDARD_KEY, Paths, ok, operation
from voicefleet_dataplane.shell.gateway.call_placing import CallPlacer, call_not_found, owner_not_reached
from voicefleet_dataplane.shell.gateway.metrics import GatewayMetrics
from voicefleet_dataplane.shell.process.event_sockets import HEARTBEAT_S, Close, close_socket, send_in_time

log = logging.getLogger("voicefleet.gateway")

PATH = "/v1/realtime"
_MAX_MESSAGE_BYTES = 4 * MAX_EVENT_BYTES  # past the bound of an event its sender gets an error event; past this, 1009
_SUBPROTOCOL = "realtime"  # which some clients want to hear again


class Sideband:
    """Handlers, and the sockets that are open."""

    def __init__(self, settings: GatewaySettings, placer: CallPlacer, metrics: GatewayMetrics) -> None:
        self._placer, self._metrics = placer, metrics
        self._all = ConcurrencyLimit(settings.max_sidebands)
        self._of_key = ConcurrencyLimit(settings.max_sidebands_per_key)
        self._leaving = asyncio.Event()

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Serve this interface."""
        router.add_get(PATH, self.attach, allow_head=False)

    def describe(self) -> Paths:
        """Return the paths."""
        attach = operation(
            "sideband",
            "Watch a call's events and speak in it (WebSocket)",
            {101: ok("From now on text messages, one JSON event each, both ways, until the call is over.")},
            (*KEY_ERRORS, 400, 403, 404, 426, 503),
            security=STANDARD_KEY,
            parameters=({**CALL_ID, "in": "query"},),
        )
        return {PATH: {"get": attach}}

    def leave(self) -> None:
        """End every sideband: its client comes back through another gateway."""
        self._leaving.set()

    async def attach(self, request: web.Request) -> web.StreamResponse:
        """Join a caller to a call. Refusals come before the handshake, as HTTP."""
        try:
            return await self._attach(request)
        except ApiError as error:
            self._metrics.sidebands_ended.labels(error.code).inc()
            raise

    async def _attach(self, request: web.Request) -> web.StreamResponse:
        async with AsyncExitStack() as stack:
            async with self._placer.admission.admitted(request) as caller:
                call_id = request.query.get("call_id", "")
                if not call_id:
                    message = "say which call: ?call_id=… (calls themselves come over WebRTC: POST /v1/realtime/calls)"
                    raise ApiError(400, "missing_call_id", message, param="call_id")
                socket = web.WebSocketResponse(
                    heartbeat=HEARTBEAT_S, max_msg_size=_MAX_MESSAGE_BYTES, protocols=(_SUBPROTOCOL,), compress=False
                )
                if not socket.can_prepare(request):
                    raise ApiError(426, "upgrade_required", "the sideband is a WebSocket")
                if self._leaving.is_set():
                    raise ApiError(503, "leaving", "this gateway is leaving: connect again", retry_after_s=1)
                stack.enter_context(self._counted(caller.tenant))
                member = self._placer.owner(call_id)
                owner = await stack.enter_async_context(self._placer.client().watch(member, call_id, caller.tenant))
                if isinstance(owner, int):
                    raise _refusal(owner, call_id)
            await socket.prepare(request)
            began = time.monotonic()
            code, why = await self._join(socket, owner)
            self._metrics.sidebands_ended.labels(code.name.lower()).inc()
            log.info(
                "sideband of call %s tenant=%s ended after %.1f s: %s",
                *(call_id, caller.tenant, time.monotonic() - began, why or "its client left"),
            )
            await close_socket(request, socket, code, why)
        return socket

    @contextmanager
    def _counted(self, tenant: str) -> Iterator[None]:
        if not self._of_key.enter(tenant):
            raise ApiError(429, "too_many_sidebands", "too many sidebands of this API key", retry_after_s=1)
        try:
            if not self._all.enter(""):
                raise ApiError(429, "too_many_sidebands", "too many sidebands of this gateway", retry_after_s=1)
            try:
                self._metrics.sidebands.set(len(self._all))
                yield
            finally:
                self._all.leave("")
        finally:
            self._of_key.leave(tenant)
            self._metrics.sidebands.set(len(self._all))

    async def _join(self, socket: web.WebSocketResponse, owner: aiohttp.ClientWebSocketResponse) -> tuple[Close, str]:
        """Carry events both ways until one side ends; return how to end the caller's."""
        tasks = [
            asyncio.create_task(_carry_out(owner, socket)),  # the owner's word counts first
            asyncio.create_task(_carry_in(socket, owner)),
            asyncio.create_task(self._left()),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return next(task for task in tasks if task.done()).result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _left(self) -> tuple[Close, str]:
        await self._leaving.wait()
        return Close.LEAVING, "this gateway is leaving: connect again"


async def _carry_in(socket: web.WebSocketResponse, owner: aiohttp.ClientWebSocketResponse) -> tuple[Close, str]:
    async for message in socket:
        if message.type is not WSMsgType.TEXT:
            return Close.NOT_TEXT, "events are text: JSON"
        try:  # the owner may take its time: it sets the pace
            await owner.send_str(message.data)
        except (ConnectionError, RuntimeError, aiohttp.ClientError):
            await asyncio.Event().wait()  # _carry_out says why the owner is gone
    return Close.CALL_ENDED, ""  # the caller has closed


async def _carry_out(owner: aiohttp.ClientWebSocketResponse, socket: web.WebSocketResponse) -> tuple[Close, str]:
    async for message in owner:
        if message.type is WSMsgType.TEXT and not await send_in_time(socket, message.data):
            return Close.NOT_READ, "events were not read"
    match owner.close_code:
        case Close.CALL_ENDED:
            return Close.CALL_ENDED, "the call is over"
        case Close.NOT_READ:
            return Close.NOT_READ, "events were not read"
        case _:
            return Close.OWNER_LOST, "the call's owner is gone"


def _refusal(status: int, call_id: str) -> ApiError:
    if status == 404:
        return call_not_found(call_id)
    if status == 429:
        return ApiError(429, "too_many_watchers", f"this call has {MAX_WATCHERS} sidebands", retry_after_s=1)
    return owner_not_reached()

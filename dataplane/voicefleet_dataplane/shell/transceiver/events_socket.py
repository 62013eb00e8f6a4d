"""One sideband at the owner of a call: a gateway's WebSocket as a watcher of the call's events.

::

    EventHub ── on_event ─▶ bounded queue ─▶ socket        who does not read is let go (1008)
    EventHub ◀── hear ── paced reading ◀──── socket        who says too much waits: TCP tells it

Owns: that queue, that pace, how it ends. Does not own: the hub, who may watch (control, gateway/api/sideband).
"""

import asyncio
import time
from collections import deque

from aiohttp import WSMsgType, web

from voicefleet_contract.http_api import MAX_EVENT_BYTES
from voicefleet_dataplane.core.limits import RateLimit
from voicefleet_dataplane.media.events import EventHub
from voicefleet_dataplane.shell.process.event_sockets import HEARTBEAT_S, Close, close_socket, send_in_time

MAX_WAITING = 512
MAX_WAITING_CHARS = 4 << 20
EVENTS_PER_S, EVENTS_AT_ONCE = 50.0, 100.0
_CHARS_A_TOKEN = 16_384  # a long event counts as several


class SocketWatcher:
    """A `Watcher` whose events wait for a socket."""

    def __init__(self) -> None:
        self._waiting: deque[str] = deque()
        self._chars = 0
        self._news = asyncio.Event()
        self.ending: tuple[Close, str] | None = None

    def on_event(self, event: str) -> bool:
        """Queue an event of the backend; a single one may be as long as it likes."""
        if self._waiting and (len(self._waiting) >= MAX_WAITING or self._chars + len(event) > MAX_WAITING_CHARS):
            self.ending = Close.NOT_READ, "events were not read"
            return False
        self._waiting.append(event)
        self._chars += len(event)
        self._news.set()
        return True

    def on_closed(self) -> None:
        """The call is over, unless we were let go."""
        if self.ending is None:
            self.ending = Close.CALL_ENDED, "the call is over"
        self._news.set()

    async def next(self) -> str | None:
        """Return the next event; None when there will be no more."""
        while not self._waiting:
            if self.ending is not None:
                return None
            self._news.clear()
            await self._news.wait()
        event = self._waiting.popleft()
        self._chars -= len(event)
        return event


async def serve_watcher(request: web.Request, hub: EventHub) -> web.WebSocketResponse | None:
    """Let a gateway watch and speak until either is over. None: there are enough watchers."""
    watcher = SocketWatcher()
    if not hub.watch(watcher):
        return None
    socket = web.WebSocketResponse(heartbeat=HEARTBEAT_S, max_msg_size=4 * MAX_EVENT_BYTES, compress=False)
    try:
        await socket.prepare(request)
        tasks = [
            asyncio.create_task(_listen(socket, hub, watcher)),
            asyncio.create_task(_tell(socket, watcher)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        hub.unwatch(watcher)
    await close_socket(request, socket, *(watcher.ending or (Close.CALL_ENDED, "")))
    return socket


async def _listen(socket: web.WebSocketResponse, hub: EventHub, watcher: SocketWatcher) -> None:
    pace = RateLimit(EVENTS_PER_S, EVENTS_AT_ONCE)
    async for message in socket:
        if message.type is not WSMsgType.TEXT:
            return
        for _ in range(1 + len(message.data) // _CHARS_A_TOKEN):
            await _take(pace)
        hub.hear(message.data, watcher)


async def _take(pace: RateLimit) -> None:
    while True:
        wait_s = pace.take("", time.monotonic())
        if not wait_s:
            return
        await asyncio.sleep(wait_s)


async def _tell(socket: web.WebSocketResponse, watcher: SocketWatcher) -> None:
    while (event := await watcher.next()) is not None:
        if not await send_in_time(socket, event):
            watcher.ending = Close.NOT_READ, "events were not read"
            return

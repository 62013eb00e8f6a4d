"""One connection's guard: an asyncio protocol between the transport and aiohttp's.

It ends what a peer leaves unfinished. aiohttp bounds lines and their number, not a head's bytes, and waits for ever for
heads, bodies and readers. `tell_guard` (a middleware) says where a request stands.

Whoever was `proved` (a key or a certificate was accepted) gives its place back and is never ended for being idle.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import cast

from aiohttp import web

from voicefleet_listener.bounds import Bounds, Drop
from voicefleet_listener.head import HeadMeter

_TOO_LONG = b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Guard(asyncio.Protocol):
    """Stands before what ``make_inner`` gives. ``client``: the address that a PROXY header named; ``leave`` gives the place back."""

    def __init__(
        self,
        make_inner: Callable[[], asyncio.Protocol],
        bounds: Bounds,
        count: Callable[[Drop], None],
        leave: Callable[[], None],
        client: str | None,
    ) -> None:
        self._make_inner, self._bounds, self._count, self._leave, self.client = make_inner, bounds, count, leave, client
        self._inner: asyncio.Protocol  # made once somebody shook hands
        self._head: HeadMeter | None = HeadMeter()  # None: a request is being served
        self.was_made = False  # and so gives the place back itself
        self._answered = self._idle = self._ended = self._has_place = self._proved = False
        # Bytes behind the served request; None: its body is not over, or it was upgraded.
        self._ahead: int | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._reader_deadline: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport

    # ---- what a transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: the first head is due."""
        self._transport, self._has_place = cast(asyncio.Transport, transport), True
        self.was_made = True
        self._arm(self._bounds.head_s, Drop.HEAD_DEADLINE)
        self._inner = self._make_inner()
        token = _guard.set(self)  # aiohttp starts the task that calls handlers in this context
        try:
            self._inner.connection_made(transport)
        finally:
            _guard.reset(token)

    def data_received(self, data: bytes) -> None:
        """Count what belongs to heads, and pass it on."""
        if self._ended:
            return
        if self._head is not None:
            if self._idle:
                self._idle = False
                self._arm(self._bounds.head_s, Drop.HEAD_DEADLINE)
            self._head.feed(data)
            if self._head.size > self._bounds.max_head_bytes:
                self._count(Drop.HEAD_BYTES)
                self._ended = True
                self._transport.write(_TOO_LONG)
                self._transport.close()
                return
        elif self._ahead is not None:
            self._ahead += len(data)
            if self._ahead > self._bounds.max_head_bytes:  # an answer is being written: there is no place for a 431
                self._end(Drop.HEAD_BYTES)
                return
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """Pass it on."""
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        """Wait so long for a reader."""
        self._reader_deadline = asyncio.get_running_loop().call_later(
            self._bounds.reader_s, self._end, Drop.READER_DEADLINE
        )
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """The reader has read."""
        if self._reader_deadline is not None:
            self._reader_deadline.cancel()
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """End every timer and give the place back."""
        self._ended = True
        self._disarm()
        if self._reader_deadline is not None:
            self._reader_deadline.cancel()
        self._give_place_back()
        self._inner.connection_lost(exc)

    # ---- what the middleware and handlers say

    def began(self, request: web.Request) -> None:
        """A head was read whole: its body is due."""
        self._head, self._ahead, self._idle, self._answered = None, None, False, False
        self._arm(self._bounds.body_s, Drop.BODY_DEADLINE)
        request.content.on_eof(lambda: self._body_is_over(request))

    def answered(self) -> None:
        """The handler is done: the answer is to be read, and the next head may come."""
        self._answered = True
        if self._ended:
            return
        if self._ahead is not None:
            self._expect_head()
        elif self._head is None:  # aiohttp reads and drops the rest of the body, or closes
            self._arm(self._bounds.idle_s, None)

    def proved(self) -> None:
        """The caller's key or certificate was accepted."""
        self._proved = True
        self._give_place_back()

    def end(self) -> None:
        """End the connection: another one has its place."""
        self._end(None)

    # ---- within

    def _body_is_over(self, request: web.Request) -> None:
        if self._ended:
            return
        if self._answered:
            self._expect_head()
            return
        self._disarm()
        if "upgrade" not in request.headers.get("Connection", "").lower():
            self._ahead = 0

    def _expect_head(self) -> None:
        self._head, self._ahead, self._idle = HeadMeter(), None, True
        if self._proved:
            self._disarm()
        else:
            self._arm(self._bounds.idle_s, None)

    def _give_place_back(self) -> None:
        if self._has_place:
            self._has_place = False
            self._leave()

    def _arm(self, seconds: float, drop: Drop | None) -> None:
        self._disarm()
        self._deadline = asyncio.get_running_loop().call_later(seconds, self._end, drop)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _end(self, drop: Drop | None) -> None:
        """End the connection now: `close` would wait for a peer that may never read."""
        if drop is not None and not self._ended:
            self._count(drop)
        self._ended = True
        self._transport.abort()


_guard: ContextVar[Guard | None] = ContextVar("guard", default=None)


def prove() -> None:
    """Say, in a handler or a middleware, that this connection's caller showed a valid key or certificate."""
    guard = _guard.get()
    if guard is not None:
        guard.proved()


@web.middleware
async def tell_guard(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Tell the connection's guard where its request stands; name the client that a PROXY header named."""
    guard = _guard.get()
    if guard is None:
        return await handler(request)
    guard.began(request)
    try:
        return await handler(request if guard.client is None else request.clone(remote=guard.client))
    finally:
        guard.answered()

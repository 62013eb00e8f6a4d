"""One call's line to its agent: a WebSocket that is opened, read, written, and opened again where that is wanted.

Three tasks for each call, none for each packet: one reads, one writes what waits, one looks each second whether the agent hangs. Both
ways are bounded:

- To the agent: speech that waits too long is worth nothing, so the oldest goes; anything else that waits in numbers means an
  agent that does not read, which is a failure.
- From the agent: while the voice is full, and when more comes than a second's allowance, nobody reads, and TCP makes the
  agent wait.

Owns: the socket's life, both queues, deadlines. Does not own: what is said (media/agent.py), what a failure means for the
call (shell/agents/backend.py).
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import aiohttp

from voicefleet_dataplane.media.backend import Message
from voicefleet_dataplane.shell.agents.dialer import AgentSockets

log = logging.getLogger("voicefleet.transceiver")

MAX_WAITING_SPEECH = 100  # messages: two seconds
MAX_WAITING_EVENTS = 1_000
MAX_WAITING_EVENT_BYTES = 4 << 20
MESSAGES_PER_TURN = 16  # then other calls have theirs
MESSAGES_PER_S = 1_000
BYTES_PER_S = 8 << 20
PING_AFTER_S = 10.0  # of silence; after as long again an agent that has not even answered a ping hangs
_LOOK_S = 1.0
_WRITE_TIMEOUT_S = 10.0  # an agent that takes nothing for so long hangs
_FULL_POLL_S = 0.1
_RETRY_S = 0.25
_CLOSE_NORMAL = 1000
_CLOSE_GOING_AWAY = 1001
_CLOSE_TOO_BIG = 1009


class Lost(Enum):
    """How a line ended."""

    CLOSED = "closed"  # the agent said good-bye
    AWAY = "away"  # it went without a word
    FAILED = "failed"  # it was never there, or broke a bound


class LinkListener(Protocol):
    """Who uses the line. Nothing here may block."""

    def on_open(self) -> None:
        """The line stands (again)."""

    def on_message(self, message: Message) -> None:
        """The agent said something."""

    def on_lost(self, how: Lost, detail: str) -> None:
        """The line is gone; `reopen` may try again, nothing else will come."""

    def is_full(self) -> bool:
        """Whether reading should wait."""


@dataclass(slots=True)
class _Waiting:
    message: Message | None  # None: dropped, it was too old


class AgentLink:
    """Opens at once when made, on the running loop."""

    def __init__(
        self,
        listener: LinkListener,
        sockets: AgentSockets,
        urls: Sequence[str],
        subprotocols: tuple[str, ...],
        *,
        within_s: float,
        traceparent: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._listener = listener
        self._traceparent = traceparent
        self._sockets = sockets
        self._urls = urls
        self._subprotocols = subprotocols
        self._clock = clock
        self._queue: deque[_Waiting] = deque()
        self._speech: deque[_Waiting] = deque()
        self._events_waiting = self._event_bytes = 0
        self._wanted = asyncio.Event()
        self._closing = False
        self._heard_at = 0.0
        self._pinged = False
        self._writes_since: float | None = None
        self._finished: Callable[[AgentLink], object] = lambda _: None
        self.dropped_speech = 0
        self._task = asyncio.create_task(self._run(within_s))

    # ---- to the agent

    def send_speech(self, message: Message) -> None:
        """Send, or drop the oldest that waits."""
        if len(self._speech) >= MAX_WAITING_SPEECH:
            self._speech.popleft().message = None
            self.dropped_speech += 1
        waiting = _Waiting(message)
        self._speech.append(waiting)
        self._queue.append(waiting)
        self._wanted.set()

    def send(self, message: Message) -> bool:
        """Send; False when so much waits that the agent cannot be reading."""
        if self._events_waiting >= MAX_WAITING_EVENTS or self._event_bytes + len(message) > MAX_WAITING_EVENT_BYTES:
            return False
        self._events_waiting += 1
        self._event_bytes += len(message)
        self._queue.append(_Waiting(message))
        self._wanted.set()
        return True

    def reopen(self, within_s: float) -> None:
        """Try again; what waited is forgotten."""
        self._forget()
        self._task = asyncio.create_task(self._run(within_s))

    def close(self) -> None:
        """Send what waits, say good-bye, all of it soon."""
        self._closing = True
        self._wanted.set()

    def on_finished(self, finished: Callable[["AgentLink"], object]) -> None:
        """Be told when the line is done for good."""
        self._finished = finished

    async def wait_closed(self, within_s: float) -> None:
        """Wait for the good-bye, not for ever."""
        await asyncio.wait((self._task,), timeout=within_s)
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    # ---- inside

    async def _run(self, within_s: float) -> None:
        how, detail = Lost.FAILED, ""
        try:
            socket = await self._open(within_s)
            try:
                how, detail = await self._talk(socket)
            finally:
                with contextlib.suppress(Exception):
                    await socket.close(code=_CLOSE_NORMAL)
        except (OSError, aiohttp.ClientError, TimeoutError) as error:
            detail = str(error) or type(error).__name__
        except Exception as error:
            log.error("an agent's line failed", exc_info=error)
            detail = repr(error)
        ran = self._task
        if not self._closing:
            self._listener.on_lost(how, detail)
        if self._task is ran:  # not opened again
            self._finished(self)

    async def _open(self, within_s: float) -> aiohttp.ClientWebSocketResponse:
        """Try the URLs in their order, over and over, until the time is up."""
        give_up_at = self._clock() + within_s
        while True:
            for url in self._urls:
                left_s = give_up_at - self._clock()
                try:
                    return await self._sockets.open(
                        url, max(0.1, left_s / len(self._urls)), self._subprotocols, self._traceparent
                    )
                except TimeoutError:
                    problem: Exception = TimeoutError(f"no connection within {within_s:g} s")
                except (OSError, aiohttp.ClientError) as error:
                    problem = error
            if self._closing or self._clock() + _RETRY_S >= give_up_at:
                raise problem
            await asyncio.sleep(_RETRY_S)

    async def _talk(self, socket: aiohttp.ClientWebSocketResponse) -> tuple[Lost, str]:
        if self._closing:
            return Lost.CLOSED, ""
        self._heard_at, self._pinged, self._writes_since = self._clock(), False, None
        self._listener.on_open()
        tasks = [asyncio.create_task(work(socket)) for work in (self._read, self._write, self._watch)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return next(task for task in tasks if task.done()).result()
        finally:
            for task in tasks:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task

    async def _write(self, socket: aiohttp.ClientWebSocketResponse) -> tuple[Lost, str]:
        while not self._closing or self._queue:
            await self._wanted.wait()
            self._wanted.clear()
            self._writes_since = self._clock()
            try:
                await self._write_waiting(socket)
            except (OSError, aiohttp.ClientError) as error:
                return Lost.AWAY, str(error) or type(error).__name__
            self._writes_since = None
        return Lost.CLOSED, ""

    async def _watch(self, socket: aiohttp.ClientWebSocketResponse) -> tuple[Lost, str]:
        """One timer a second: a timeout around each wait and each write costs as much as the write."""
        while True:
            await asyncio.sleep(_LOOK_S)
            now, since = self._clock(), self._writes_since
            if since is not None:
                if now - since > _WRITE_TIMEOUT_S:
                    return Lost.FAILED, f"the agent has read nothing for {_WRITE_TIMEOUT_S:g} s"
            elif self._listener.is_full():
                self._heard_at = now  # nobody reads, so nobody can say that the agent says nothing
            elif now - self._heard_at > PING_AFTER_S:
                if self._pinged:
                    return Lost.FAILED, f"the agent has not answered a ping for {PING_AFTER_S:g} s"
                self._pinged, self._heard_at = True, now
                with contextlib.suppress(OSError, aiohttp.ClientError, TimeoutError):  # reader and writer say it better
                    async with asyncio.timeout(_LOOK_S):
                        await socket.ping()

    async def _write_waiting(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        while self._queue:
            waiting = self._queue.popleft()
            message = waiting.message
            if message is None:
                continue
            if self._speech and self._speech[0] is waiting:
                self._speech.popleft()
            else:
                self._events_waiting -= 1
                self._event_bytes -= len(message)
            if isinstance(message, str):
                await socket.send_str(message)
            else:
                await socket.send_bytes(message)

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> tuple[Lost, str]:
        second, messages, got = self._clock(), 0, 0
        while True:
            while self._listener.is_full():  # noqa: ASYNC110  the playout clock empties it a frame at a time: no event for each
                await asyncio.sleep(_FULL_POLL_S)
            message = await socket.receive()
            self._heard_at, self._pinged = self._clock(), False
            match message.type:
                case aiohttp.WSMsgType.TEXT | aiohttp.WSMsgType.BINARY:
                    self._listener.on_message(message.data)
                case aiohttp.WSMsgType.PING:
                    await socket.pong(message.data)
                case aiohttp.WSMsgType.PONG:
                    pass
                case aiohttp.WSMsgType.CLOSE | aiohttp.WSMsgType.CLOSING | aiohttp.WSMsgType.CLOSED:
                    return _closed(socket.close_code, str(message.extra or ""))
                case _:
                    return _broken(socket, message.data)
            messages += 1
            got += len(message.data)
            if messages % MESSAGES_PER_TURN == 0:
                await asyncio.sleep(0)
                now = self._clock()
                if now - second >= 1:
                    second, messages, got = now, 0, 0
                elif messages >= MESSAGES_PER_S or got >= BYTES_PER_S:
                    await asyncio.sleep(second + 1 - now)
                    second, messages, got = self._clock(), 0, 0

    def _forget(self) -> None:
        self._queue.clear()
        self._speech.clear()
        self._events_waiting = self._event_bytes = 0
        self._wanted.clear()


def _closed(code: int | None, why: str) -> tuple[Lost, str]:
    if code == _CLOSE_NORMAL:
        return Lost.CLOSED, why or "the agent ended the conversation"
    if code in (None, _CLOSE_GOING_AWAY, 1005, 1006):
        return Lost.AWAY, why or f"the agent went away (WebSocket close code {code})"
    return Lost.FAILED, f"the agent closed with {code}{f': {why}' if why else ''}"


def _broken(socket: aiohttp.ClientWebSocketResponse, error: object) -> tuple[Lost, str]:
    if socket.close_code == _CLOSE_TOO_BIG:
        return Lost.FAILED, f"the agent sent a message that is too long: {error}"
    if isinstance(error, (OSError, TimeoutError, aiohttp.ClientError)):
        return Lost.AWAY, str(error) or type(error).__name__
    return Lost.FAILED, f"the agent broke the WebSocket protocol: {error}"

"""The text stage as a hook: Chat Completions over HTTP, or the same over one WebSocket for each call. docs/pipeline.md.

Owns: asking, reading the answer within its bounds, giving up an answer. Does not own: the dialect (media/pipeline/chat.py),
deadlines of an answer (media/pipeline/conversation.py), whom a URL may lead to (shell/agents/dialer.py).
Invariant: whatever a hook does, a turn of its own call fails with a reason that names it, and nothing else.
"""

import asyncio
import json
import logging
from typing import Any

import aiohttp

from voicefleet_dataplane.media.backend import CallConfig, Message
from voicefleet_dataplane.media.pipeline.chat import (
    MAX_ANSWER_BYTES,
    EventStream,
    Finished,
    HookError,
    parse_answer,
    parse_chunk,
    parse_message,
)
from voicefleet_dataplane.shell.agents.connection import AgentLink, Lost
from voicefleet_dataplane.shell.pipeline.text_handlers import HandlerResources, TextHandler, TextListener

log = logging.getLogger("voicefleet.transceiver")

UNREACHABLE, MALFORMED = "text_handler_unreachable", "text_handler_malformed"
_GOOD_BYE_S = 1.0
_CALL_ID_HEADER = "X-Voicefleet-Call-Id"


class Hook:
    """HTTP or WebSocket, as the URL says."""

    def __init__(self, resources: HandlerResources) -> None:
        self._resources = resources
        self._links: set[AgentLink] = set()

    def open(self, config: CallConfig, listener: TextListener) -> TextHandler:
        """Return one call's."""
        if self._resources.urls[0].startswith("ws"):
            return _SocketHook(self._resources, config, listener, self._links)
        return _HttpHook(self._resources, config, listener)

    async def close(self) -> None:
        """Let open WebSockets say good-bye."""
        if self._links:
            await asyncio.gather(*(link.wait_closed(_GOOD_BYE_S) for link in self._links))


class _HttpHook:
    def __init__(self, resources: HandlerResources, config: CallConfig, listener: TextListener) -> None:
        self._resources, self._config, self._listener = resources, config, listener
        self._task: asyncio.Task[None] | None = None
        self._turn = ""

    def ask(self, turn: str, request: dict[str, Any]) -> None:
        self.close()
        self._turn = turn
        self._task = asyncio.create_task(self._run(turn, json.dumps(request).encode()))

    def withdraw(self, turn: str) -> None:
        if turn == self._turn:
            self.close()

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self, turn: str, body: bytes) -> None:
        try:
            await self._read(turn, await self._post(body))
        except HookError as error:
            self._listener.on_text_failed(turn, MALFORMED, str(error))
        except (OSError, aiohttp.ClientError, TimeoutError) as error:
            self._listener.on_text_failed(turn, UNREACHABLE, str(error) or type(error).__name__)
        except Exception as error:
            log.error("call %s: its hook failed", self._config.call_id, exc_info=error)
            self._listener.on_text_failed(turn, UNREACHABLE, repr(error))

    async def _post(self, body: bytes) -> aiohttp.ClientResponse:
        resources = self._resources
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream, application/json"}
        headers[_CALL_ID_HEADER] = self._config.call_id
        problem: Exception = HookError("no URL")
        for url in resources.urls:
            for _ in range(2):  # a connection that was kept may have been closed in the moment that it is used again
                try:
                    return await resources.sockets.post(
                        url, body, headers, resources.connect_within_s, self._config.traceparent
                    )
                except aiohttp.ServerDisconnectedError as error:
                    problem = error
                except (OSError, aiohttp.ClientError, TimeoutError) as error:
                    problem = error
                    break
        raise problem

    async def _read(self, turn: str, response: aiohttp.ClientResponse) -> None:
        async with response:
            if response.status != 200:
                said = await response.content.read(300)
                raise HookError(f"HTTP {response.status}: {said.decode(errors='replace')[:200]!r}")
            if response.content_type != "text/event-stream":
                body = bytearray()
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > MAX_ANSWER_BYTES:
                        raise HookError(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
                self._listener.on_pieces(turn, parse_answer(bytes(body)))
                return
            stream = EventStream()
            async for chunk in response.content.iter_any():
                for data in stream.push(chunk):
                    pieces = parse_chunk(data)
                    self._listener.on_pieces(turn, pieces)
                    if pieces and isinstance(pieces[-1], Finished):
                        return
        raise HookError("the stream ended before its finish_reason")


class _SocketHook:
    """Opens when the call is made, and again at the next turn when it was lost."""

    def __init__(
        self, resources: HandlerResources, config: CallConfig, listener: TextListener, links: set[AgentLink]
    ) -> None:
        self._resources, self._config, self._listener, self._links = resources, config, listener, links
        self._turn = ""
        self._waiting: str | None = None  # a request, until the line stands
        self._got_bytes = 0
        self._is_up = False
        self._link: AgentLink | None = None
        self._connect()

    def ask(self, turn: str, request: dict[str, Any]) -> None:
        self._turn, self._got_bytes = turn, 0
        message = json.dumps({"id": turn, **request}, separators=(",", ":"))
        if self._link is not None and self._is_up:
            self._send(message)
            return
        self._waiting = message
        if self._link is None:
            self._connect()

    def withdraw(self, turn: str) -> None:
        if turn != self._turn:
            return
        self._turn = ""
        if self._is_up and self._waiting is None:
            self._send(json.dumps({"id": turn, "cancelled": True}))
        self._waiting = None

    def close(self) -> None:
        self._turn = ""
        if self._link is not None:
            self._link.close()

    # ---- what the line says

    def on_open(self) -> None:
        self._is_up = True
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self._send(waiting)

    def on_message(self, message: Message) -> None:
        if not self._turn:
            return
        try:
            turn, pieces = parse_message(message)
            if turn != self._turn:
                return
            self._got_bytes += len(message)
            if self._got_bytes > MAX_ANSWER_BYTES:
                raise HookError(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
        except HookError as error:
            self._fail(MALFORMED, str(error))
            return
        if pieces and isinstance(pieces[-1], Finished):
            self._turn = ""
        self._listener.on_pieces(turn, pieces)

    def on_lost(self, how: Lost, detail: str) -> None:
        self._is_up, self._link, self._waiting = False, None, None
        if how is Lost.CLOSED:
            self._listener.on_text_handler_left(detail)
        else:
            self._fail(UNREACHABLE, detail)

    def is_full(self) -> bool:
        return False

    # ---- inside

    def _connect(self) -> None:
        resources = self._resources
        link = AgentLink(
            self,
            resources.sockets,
            resources.urls,
            (),
            within_s=resources.connect_within_s,
            traceparent=self._config.traceparent,
        )
        self._links.add(link)
        link.on_finished(self._links.discard)
        self._link = link

    def _send(self, message: str) -> None:
        assert self._link is not None
        if not self._link.send(message):
            self._fail(UNREACHABLE, "it does not read what it is sent")

    def _fail(self, code: str, message: str) -> None:
        turn, self._turn = self._turn, ""
        if turn:
            self._listener.on_text_failed(turn, code, message)

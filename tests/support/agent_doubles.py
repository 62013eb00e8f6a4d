"""Doubles of agents: WebSocket servers that speak the real protocols to the letter, do no inference, and record what they got.

Each refuses what the real server would refuse, so a client that is wrong fails here and not in production. A test drives what
the agent says.
"""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Self

from aiohttp import WSMsgType, web

from voicefleet_dataplane.media.mulaw import decode_mulaw, encode_mulaw
from voicefleet_dataplane.media.opus_stream import HEADER, SUBPROTOCOL

HOST = "127.0.0.1"


class AgentDouble:
    """One WebSocket server on loopback. `behave` may take over a whole connection (to misbehave)."""

    path = "/agent"
    subprotocols: tuple[str, ...] = ()

    def __init__(
        self,
        behave: Callable[[web.WebSocketResponse, "AgentDouble"], Awaitable[None]] | None = None,
        port: int = 0,
        host: str = HOST,
    ) -> None:
        self.behave = behave
        self._host, self._port = host, port
        self.requests: list[web.Request] = []
        self.sockets: list[web.WebSocketResponse] = []
        self.received: list[dict] = []
        self.pcm = bytearray()
        self.close_codes: list[int | None] = []
        self._changed = asyncio.Event()
        self.url = ""
        self.gate: asyncio.Event | None = None  # the handshake waits for it

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]
        self.url = f"ws://{self._host}:{port}{self.path}"
        return self

    async def __aexit__(self, *_: object) -> None:
        for socket in self.sockets:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(socket.close(), 0.2)
        await self._runner.cleanup()

    async def vanish(self) -> None:
        """Be away without a word: nobody listens, and no connection is left."""
        for site in self._runner.sites.copy():
            await site.stop()
        for handler in self._runner.server.connections:
            handler.transport.abort()

    @property
    def socket(self) -> web.WebSocketResponse:
        return self.sockets[-1]

    async def until(self, condition: Callable[[], object], within_s: float = 20.0) -> None:
        """Wait for something that a message brings about."""
        async with asyncio.timeout(within_s):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def changed(self) -> None:
        self._changed.set()

    def of(self, kind: str) -> list[dict]:
        """What was received, by its event name."""
        return [one for one in self.received if kind in (one.get("type"), one.get("event"))]

    async def send(self, **fields) -> None:
        await self.socket.send_str(json.dumps(fields))

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        if self.gate is not None:
            await self.gate.wait()
        socket = web.WebSocketResponse(protocols=self.subprotocols, max_msg_size=1 << 24)
        await socket.prepare(request)
        self.sockets.append(socket)
        self.changed()
        if self.behave is not None:
            await self.behave(socket, self)
        else:
            await self.greet(socket)
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    event = json.loads(message.data)
                    self.received.append(event)
                    await self.on_event(socket, event)
                elif message.type is WSMsgType.BINARY:
                    await self.on_bytes(socket, message.data)
                self.changed()
        self.close_codes.append(socket.close_code)
        self.changed()
        return socket

    async def greet(self, socket: web.WebSocketResponse) -> None:
        """First words."""

    async def on_event(self, socket: web.WebSocketResponse, event: dict) -> None:
        """Answer one."""

    async def on_bytes(self, socket: web.WebSocketResponse, data: bytes) -> None:
        """Take one."""
        raise AssertionError("this protocol has no binary messages")


class RealtimeAgent(AgentDouble):
    """The Realtime API's server: sessions, audio in, responses that the test speaks."""

    path = "/v1/realtime?model=double-1"

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.session: dict = {
            "type": "realtime",
            "object": "realtime.session",
            "id": "sess_double",
            "model": "double-1",
        }
        self._events = 0

    async def emit(self, kind: str, **fields) -> None:
        self._events += 1
        await self.send(type=kind, event_id=f"event_{self._events}", **fields)

    async def greet(self, socket) -> None:
        await self.emit("session.created", session=self.session)

    async def on_event(self, socket, event) -> None:
        match event["type"]:
            case "session.update":
                new = event["session"]
                for way in ("input", "output"):
                    if new["audio"][way]["format"] != {"type": "audio/pcm", "rate": 24_000}:
                        error = {"type": "invalid_request_error", "code": "invalid_value", "message": "format"}
                        await self.emit("error", error=error | {"event_id": event.get("event_id")})
                        return
                self.session = self.session | new
                await self.emit("session.updated", session=self.session)
            case "input_audio_buffer.append":
                self.pcm += base64.b64decode(event["audio"], validate=True)
            case "conversation.item.truncate":
                await self.emit(
                    "conversation.item.truncated",
                    **{key: event[key] for key in ("item_id", "content_index", "audio_end_ms")},
                )
            case "conversation.item.create":
                await self.emit("conversation.item.added", item=event["item"], previous_item_id=None)
            case "response.cancel" | "response.create":
                pass
            case unknown:
                error = {"type": "invalid_request_error", "code": "unknown_event", "message": unknown}
                await self.emit("error", error=error | {"event_id": event.get("event_id")})

    async def respond(self, pcm: bytes, *, response: str = "resp_1", item: str = "item_1", done: bool = True) -> None:
        """One spoken response, faster than it can be played."""
        where = {"response_id": response, "item_id": item, "output_index": 0, "content_index": 0}
        await self.emit(
            "response.created", response={"id": response, "object": "realtime.response", "status": "in_progress"}
        )
        for start in range(0, len(pcm), 9_600):
            delta = base64.b64encode(pcm[start : start + 9_600]).decode()
            await self.emit("response.output_audio.delta", **where, delta=delta)
        if done:
            await self.emit("response.output_audio_transcript.done", **where, transcript="a double speaks")
            await self.emit("response.output_audio.done", **where)
            await self.emit(
                "response.done", response={"id": response, "object": "realtime.response", "status": "completed"}
            )

    async def speech_started(self) -> None:
        await self.emit("input_audio_buffer.speech_started", audio_start_ms=0, item_id="item_user")


class TranscriptionAgent(AgentDouble):
    """vLLM's endpoint: 16 kHz in, transcripts out, once a first commit has come."""

    path = "/v1/realtime?model=double-asr"

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.committed = self.final = False
        self.model = ""

    async def greet(self, socket) -> None:
        await self.send(type="session.created", id="sess-double", created=0)

    async def on_event(self, socket, event) -> None:
        match event["type"]:
            case "session.update":
                self.model = event["model"]
            case "input_audio_buffer.commit":
                assert self.model, "commit before the model was set"
                self.committed, self.final = True, bool(event.get("final"))
                if self.final:
                    await self.send(type="transcription.done", text="hello world", usage={})
            case "input_audio_buffer.append":
                assert self.committed, "audio before the first commit"
                self.pcm += base64.b64decode(event["audio"], validate=True)


class MediaStreamAgent(AgentDouble):
    """An agent written for Twilio's Media Streams."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.stream = ""
        self._sequence = 0

    async def on_event(self, socket, event) -> None:
        if event["event"] == "connected":
            assert event == {"event": "connected", "protocol": "Call", "version": "1.0.0"}
            return
        self._sequence += 1
        assert event["sequenceNumber"] == str(self._sequence)
        if event["event"] == "start":
            self.stream = event["start"]["streamSid"]
            assert event["start"]["mediaFormat"] == {"encoding": "audio/x-mulaw", "sampleRate": 8_000, "channels": 1}
        assert event["streamSid"] == self.stream
        if event["event"] == "media":
            media = event["media"]
            codes = base64.b64decode(media["payload"], validate=True)
            assert len(codes) == 160
            assert media["track"] == "inbound"
            assert isinstance(media["chunk"], str)
            assert isinstance(media["timestamp"], str)
            self.pcm += decode_mulaw(codes)

    async def say(self, pcm: bytes) -> None:
        payload = base64.b64encode(encode_mulaw(pcm)).decode()
        await self.send(event="media", streamSid=self.stream, media={"payload": payload})

    async def mark(self, name: str) -> None:
        await self.send(event="mark", streamSid=self.stream, mark={"name": name})

    async def clear(self) -> None:
        await self.send(event="clear", streamSid=self.stream)


class OpusAgent(AgentDouble):
    """An agent of docs/opus-stream.md."""

    subprotocols = (SUBPROTOCOL,)

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.packets: list[tuple[int, int, bytes]] = []

    async def on_bytes(self, socket, data) -> None:
        self.packets.append((*HEADER.unpack_from(data), data[HEADER.size :]))


@contextlib.asynccontextmanager
async def redirecting(target: str, status: int = 307) -> AsyncIterator[str]:
    """A server that sends everybody elsewhere; gives its URL."""

    async def redirect(request: web.Request) -> web.Response:
        return web.Response(status=status, headers={"Location": target})

    app = web.Application()
    app.router.add_get("/{path:.*}", redirect)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, HOST, 0)
    await site.start()
    try:
        yield f"ws://{HOST}:{site._server.sockets[0].getsockname()[1]}/"
    finally:
        await runner.cleanup()

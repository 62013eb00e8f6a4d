"""The agent of bench/media.py, the same for both servers: a WebSocket server of its own process that speaks three protocols."""

import asyncio
import base64
import json

import uvloop
from aiohttp import WSMsgType, web

from bench.media_callers import HOST
from voicefleet_dataplane.media.opus import OpusEncoder
from voicefleet_dataplane.media.opus_stream import HEADER, SUBPROTOCOL

HEARD_MS = 1_000  # what the agent waits for before it answers, when latency is measured
ANSWER_MS = 200
KINDS = {"OpusStream": "opus", "MediaStream": "media", "OpenAIRealtime": "realtime"}  # backend → path
_DELTA = '{"type":"response.output_audio.delta","response_id":"r","item_id":"i","output_index":0,"content_index":0,"delta":"%s"}'


class BenchAgent:
    """Says what it hears at once; with ``?answer`` it is quiet for HEARD_MS and then answers with ANSWER_MS."""

    def __init__(self) -> None:
        self._frame = OpusEncoder(48_000).encode(bytes(range(256)) * 7 + bytes(128))

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(protocols=[SUBPROTOCOL], compress=False)
        await ws.prepare(request)
        answers = "answer" in request.query
        take = {"opus": self.opus, "media": self.media, "realtime": self.realtime}[request.match_info["kind"]]
        heard_ms = 0
        async for message in ws:
            heard_ms += await take(ws, message, say=not answers)
            if answers and heard_ms >= HEARD_MS:
                heard_ms = -3_600_000
                await self.answer(ws, request.match_info["kind"])
        return ws

    async def opus(self, ws: web.WebSocketResponse, message, *, say: bool) -> int:
        if message.type is not WSMsgType.BINARY:
            return 0
        if say:
            await ws.send_bytes(message.data[HEADER.size :])
        return 20

    async def media(self, ws: web.WebSocketResponse, message, *, say: bool) -> int:
        event = json.loads(message.data)
        if event["event"] != "media":
            return 0
        if say:
            payload = event["media"]["payload"]
            await ws.send_str(f'{{"event":"media","media":{{"payload":"{payload}"}}}}')
        return 20

    async def realtime(self, ws: web.WebSocketResponse, message, *, say: bool) -> int:
        event = json.loads(message.data)
        if event["type"] == "session.update":
            await ws.send_str('{"type":"session.updated","session":{}}')
        if event["type"] != "input_audio_buffer.append":
            return 0
        if say:
            await ws.send_str(_DELTA % event["audio"])
        return len(event["audio"]) * 3 // 4 // 48

    async def answer(self, ws: web.WebSocketResponse, kind: str) -> None:
        for _ in range(ANSWER_MS // 20):
            if kind == "opus":
                await ws.send_bytes(self._frame)
            elif kind == "media":
                await ws.send_str(
                    json.dumps({"event": "media", "media": {"payload": base64.b64encode(bytes(160)).decode()}})
                )
            else:
                await ws.send_str(_DELTA % base64.b64encode(bytes(range(240)) * 4).decode())


def serve_agent(port: int) -> None:
    async def run() -> None:
        app = web.Application()
        app.router.add_get("/{kind}", BenchAgent().serve)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, HOST, port).start()
        await asyncio.Event().wait()

    uvloop.run(run())

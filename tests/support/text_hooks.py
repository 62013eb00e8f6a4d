"""Hooks that a pipeline asks: Chat Completions over HTTP and WebSocket, well-behaved and not."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

HOST = "127.0.0.1"


class HookDouble:
    """``answer`` is given each request's body and the response's maker; ``asked`` remembers the bodies."""

    def __init__(self, answer: Callable[[dict], str | None] | None = None) -> None:
        self._answer = answer or (lambda body: f"You asked: {body['messages'][-1]['content']}.")
        self.asked: list[dict] = []
        self.headers: list[dict] = []
        self.messages: list[dict] = []
        self.url = ""

    async def http(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body)
        self.headers.append(dict(request.headers))
        text = self._answer(body)
        return web.json_response({"choices": [{"message": {"role": "assistant", "content": text}}]})

    async def stream(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for word in (self._answer(body) or "").split(" "):
            chunk = {"choices": [{"delta": {"content": word + " "}, "finish_reason": None}]}
            await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
        await response.write(b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n')
        return response

    async def socket(self, request: web.Request) -> web.StreamResponse:
        self.headers.append(dict(request.headers))
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            body = json.loads(message.data)
            self.messages.append(body)
            if "messages" not in body:
                continue
            self.asked.append(body)
            text = self._answer(body)
            if text is None:
                break
            await socket.send_json({"id": body["id"], "choices": [{"delta": {"content": text}}]})
            await socket.send_json({"id": body["id"], "choices": [{"delta": {}, "finish_reason": "stop"}]})
        return socket


@asynccontextmanager
async def serving(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]], scheme: str = "http"
) -> AsyncIterator[str]:
    """Serve one handler at every path; gives the URL."""
    app = web.Application(client_max_size=1 << 24)
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, HOST, 0)
    await site.start()
    try:
        yield f"{scheme}://{HOST}:{site._server.sockets[0].getsockname()[1]}/v1/chat/completions"
    finally:
        await runner.cleanup()

"""Clients that send bytes and leave things unfinished, and a listener for them."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web
from prometheus_client import CollectorRegistry

from voicefleet_listener.bounds import Bounds, Drop
from voicefleet_listener.guard import prove
from voicefleet_listener.listener import ListenerDrops, bind_tcp, serve

PATIENCE_S = 20.0  # no test waits so long, but one that fails
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Listening:
    """A bounded listener; its handlers say who asked, take a body, and write without end."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds, self.registry = bounds, CollectorRegistry()
        self.port = 0
        self._writers: list[asyncio.StreamWriter] = []
        self.entered, self.go_on = asyncio.Event(), asyncio.Event()

    def drops(self, drop: Drop) -> float:
        value = self.registry.get_sample_value(
            "voicefleet_listener_drops_total", {"listener": "test", "reason": drop.value}
        )
        return value or 0.0

    async def connect(self, source: str = "127.0.0.1", tls: ssl.SSLContext | None = None):
        async with asyncio.timeout(PATIENCE_S):
            name = {"server_hostname": "127.0.0.1"} if tls else {}
            opened = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(source, 0), ssl=tls, **name)
        self._writers.append(opened[1])
        return opened

    def abort(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    def app(self) -> web.Application:
        async def who(request):
            return web.Response(text=f"{request.remote}\n")

        async def take(request):
            self.entered.set()
            return web.Response(text=f"{len(await request.read())}\n")

        async def known(request):
            prove()
            self.entered.set()
            response = web.StreamResponse()
            await response.prepare(request)
            await self.go_on.wait()
            await response.write(b"late\n")
            return response

        async def endless(request):
            response = web.StreamResponse()
            await response.prepare(request)
            while True:
                await response.write(b"x" * 65_536)

        async def fails(request):
            raise RuntimeError("a bug")

        app = web.Application()
        app.router.add_get("/fails", fails)
        app.router.add_get("/", who)
        app.router.add_post("/take", take)
        app.router.add_get("/known", known)
        app.router.add_get("/endless", endless)
        return app


@contextlib.asynccontextmanager
async def listening(bounds: Bounds, context: ssl.SSLContext | None = None) -> AsyncIterator[Listening]:
    one = Listening(bounds)
    bound = bind_tcp("127.0.0.1", 0)
    one.port = bound.getsockname()[1]
    drops = ListenerDrops(one.registry)
    runner = await serve(one.app(), bound, "test", bounds, drops, context, shutdown_timeout=0.1)
    try:
        yield one
    finally:
        one.abort()
        async with asyncio.timeout(PATIENCE_S):
            await runner.cleanup()


def server_context(https_dir: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(https_dir / "tls.crt", https_dir / "tls.key")
    return context


async def read_to_end(reader: asyncio.StreamReader) -> bytes:
    """What the server says until it ends the connection, in whatever way."""
    said = b""
    async with asyncio.timeout(PATIENCE_S):
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while more := await reader.read(65_536):
                said += more
    return said


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, str]:
    """Status and body of an answer that says its length."""
    async with asyncio.timeout(PATIENCE_S):
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
        body = await reader.readexactly(int(length.split(b":")[1]))
    return int(head.split()[1]), body.decode()

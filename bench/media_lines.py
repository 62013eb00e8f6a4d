"""How soon an agent's line stands when the agent is far away: with a connection that was ready, and without.

A TCP relay on loopback holds back what passes it, DELAY_S each way, in front of an agent that speaks TLS. TCP's own handshake is with
the relay, so it costs nothing here: without a ready connection a real agent would be one round trip later than these figures say.
"""

import asyncio
import contextlib
import ssl
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web

from bench.media_callers import HOST
from voicefleet_dataplane.commands.dev_secrets import write_dev_secrets
from voicefleet_dataplane.media.agent_address import Network
from voicefleet_dataplane.shell.agents.dialer import AgentSockets

DELAY_S = 0.02


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    loop = asyncio.get_running_loop()
    while data := await reader.read(1 << 16):
        loop.call_later(DELAY_S, writer.write, data)
    loop.call_later(DELAY_S, writer.close)


@contextlib.asynccontextmanager
async def _far_agent(tls: ssl.SSLContext) -> AsyncIterator[str]:
    async def serve(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for _ in socket:
            pass
        return socket

    app = web.Application()
    app.router.add_get("/", serve)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0, ssl_context=tls).start()
    near = runner.addresses[0][1]

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection(HOST, near)
        await asyncio.gather(_carry(reader, inner_writer), _carry(inner_reader, writer))

    server = await asyncio.start_server(relay, HOST, 0)
    try:
        yield f"wss://{HOST}:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()
        await runner.cleanup()


async def lines_ms(warm: int, calls: int) -> list[float]:
    """Milliseconds from a call to its agent's line, for calls that come one after the other; the first, which finds none, is left out."""
    with tempfile.TemporaryDirectory() as directory:
        write_dev_secrets(Path(directory), "sk-bench-0123456789")
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(f"{directory}/https/tls.crt", f"{directory}/https/tls.key")
        trusted = ssl.create_default_context(cafile=f"{directory}/https/ca.crt")
    sockets, found, kept = AgentSockets(Network.LOOPBACK, lambda: "", warm=warm), [], []
    async with _far_agent(tls) as url:
        sockets._open_session().connector._ssl = trusted
        for _ in range(calls + 1):
            before = time.perf_counter()
            kept.append(await sockets.open(url, 5, ()))
            found.append((time.perf_counter() - before) * 1e3)
            await asyncio.sleep(10 * DELAY_S)  # calls that come at intervals
        await sockets.close()
    return found[1:]

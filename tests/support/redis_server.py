"""Real Redis servers on loopback: one that can be killed, stopped and started again on its port; or a cluster."""

import asyncio
import contextlib
import signal
import socket
import tempfile
from collections.abc import AsyncIterator

import redis.asyncio as redis

HOST = "127.0.0.1"
_CLUSTER_BUS = 10_000  # a cluster's nodes talk on a port that much higher


def free_port() -> int:
    while True:
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port = probe.getsockname()[1]
        if port + _CLUSTER_BUS < 65_536:
            return port


class PortTakenError(Exception):
    """Somebody else, often an outgoing connection, took the port between our look and the server's."""


class RedisServer:
    """``url`` is for settings, ``client`` for the test. ``options`` are redis-server's; a file of its configuration first."""

    def __init__(self, *options: str) -> None:
        self.port = free_port()
        self.url = f"redis://{HOST}:{self.port}/0"
        self.client = redis.Redis(host=HOST, port=self.port)
        self._options = options or ("--save", "", "--appendonly", "no")
        self._directory = tempfile.TemporaryDirectory(prefix="voicefleet-redis-")  # a replica leaves a dump behind
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *("redis-server", *self._options, "--port", str(self.port), "--bind", HOST),
            stdout=asyncio.subprocess.DEVNULL,
            cwd=self._directory.name,
        )
        async with asyncio.timeout(20):
            while True:
                try:
                    await self.client.ping()
                    break
                except redis.ConnectionError:
                    if self._process.returncode is not None:
                        raise PortTakenError from None
                    await asyncio.sleep(0.02)

    async def kill(self) -> None:
        if self._process is not None:
            if self._process.returncode is None:
                self._process.kill()
            await self._process.wait()
            self._process = None

    def close(self) -> None:
        """Take its directory away."""
        self._directory.cleanup()

    def freeze(self) -> None:
        """Let it take connections and answer nothing, as a machine that hangs does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    async def keys(self, pattern: str = "*") -> list[bytes]:
        return await self.client.keys(pattern)


@contextlib.asynccontextmanager
async def running_redis(*options: str) -> AsyncIterator[RedisServer]:
    for attempt in range(5):
        server = RedisServer(*options)
        try:
            await server.start()
        except PortTakenError:
            await _end(server)
            if attempt == 4:
                raise
        else:
            break
    try:
        yield server
    finally:
        await _end(server)


async def _end(server: RedisServer) -> None:
    await server.client.aclose()
    await server.kill()
    server.close()


@contextlib.asynccontextmanager
async def running_cluster() -> AsyncIterator[list[RedisServer]]:
    """Three masters that share all hash slots."""
    async with contextlib.AsyncExitStack() as closing:
        servers = []
        for number in range(3):
            options = ("--cluster-enabled", "yes", "--save", "")
            config = ("--cluster-config-file", f"nodes-{number}.conf", "--cluster-node-timeout", "2000")
            servers.append(await closing.enter_async_context(running_redis(*options, *config)))
        create = await asyncio.create_subprocess_exec(
            *("redis-cli", "--cluster", "create", *(f"{HOST}:{server.port}" for server in servers), "--cluster-yes"),
            stdout=asyncio.subprocess.DEVNULL,
        )
        assert await create.wait() == 0
        async with asyncio.timeout(20):
            while (await servers[0].client.execute_command("CLUSTER INFO"))["cluster_state"] != "ok":
                await asyncio.sleep(0.05)
        yield servers

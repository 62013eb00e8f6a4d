"""A real redis-server on loopback that can be killed, stopped and started again on its port."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator

import redis.asyncio as redis

HOST = "127.0.0.1"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


class RedisServer:
    """``url`` is for settings, ``client`` for the test."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"redis://{HOST}:{self.port}/0"
        self.client = redis.Redis(host=HOST, port=self.port)
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *("redis-server", "--port", str(self.port), "--bind", HOST, "--save", "", "--appendonly", "no"),
            stdout=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(10):
            while True:
                try:
                    await self.client.ping()
                    break
                except redis.ConnectionError:
                    await asyncio.sleep(0.02)

    async def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            await self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Let it take connections and answer nothing, as a machine that hangs does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    async def keys(self, pattern: str = "*") -> list[bytes]:
        return await self.client.keys(pattern)


@contextlib.asynccontextmanager
async def running_redis() -> AsyncIterator[RedisServer]:
    server = RedisServer()
    await server.start()
    try:
        yield server
    finally:
        await server.client.aclose()
        await server.kill()

"""Connections that are ready before a call wants one: which are taken, which are made, and that an agent sees no more than a connection."""

import asyncio
import contextlib
import ctypes
import socket
import struct
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from voicefleet_dataplane.media.agent_address import Network
from voicefleet_dataplane.shell.agents import warm_connections
from voicefleet_dataplane.shell.agents.dialer import AgentRefusedError, AgentSockets
from voicefleet_dataplane.shell.agents.warm_connections import WarmConnector

SO_ATTACH_FILTER = 26


class Agent:
    """Knows its connections, and which of them its WebSockets came by."""

    def __init__(self) -> None:
        self.came_by: list[asyncio.Transport] = []
        self._server: web.Server | None = None

    def connections(self) -> list[asyncio.Transport]:
        """Those that stand, oldest first."""
        return [one.transport for one in self._server.connections]

    async def until(self, connections: int) -> list[asyncio.Transport]:
        async with asyncio.timeout(10):
            while len(self.connections()) != connections:
                await asyncio.sleep(0.005)
        return self.connections()

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.came_by.append(request.transport)
        async for _ in socket:
            pass
        return socket

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_get("/", self.serve)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        self._server = runner.server
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield f"ws://127.0.0.1:{runner.addresses[0][1]}/"
        finally:
            await runner.cleanup()


class Kept(AgentSockets):
    """Nobody else holds the WebSockets of these tests."""

    def __init__(self, *arguments, **options) -> None:
        super().__init__(*arguments, **options)
        self.kept = []

    async def open(self, *arguments) -> None:
        self.kept.append(await super().open(*arguments))

    @property
    def connector(self) -> WarmConnector:
        return self._session.connector

    async def settle(self) -> None:
        """What is dialled in the background stands."""
        await asyncio.gather(*self.connector._dialling)


@contextlib.asynccontextmanager
async def sockets_of(warm: int) -> AsyncIterator[AgentSockets]:
    sockets = Kept(Network.LOOPBACK, lambda: "", warm=warm)
    try:
        yield sockets
    finally:
        for one in sockets.kept:
            await one.close()
        await sockets.close()


async def test_the_second_call_comes_by_a_connection_that_was_ready():
    agent = Agent()
    async with agent.running() as url, sockets_of(1) as sockets:
        await sockets.open(url, 5, ())
        await sockets.settle()
        first, ready = await agent.until(2)
        assert agent.came_by == [first]  # the other is a connection and nothing more
        await sockets.open(url, 5, ())
        assert agent.came_by == [first, ready]
        await agent.until(3)


async def test_as_many_as_are_wanted_are_ready_and_no_more():
    agent = Agent()
    async with agent.running() as url, sockets_of(3) as sockets:
        await asyncio.gather(*(sockets.open(url, 5, ()) for _ in range(2)))
        await sockets.settle()
        ready = set(await agent.until(5)) - set(agent.came_by)
        await asyncio.gather(*(sockets.open(url, 5, ()) for _ in range(3)))
        assert set(agent.came_by[2:]) == ready
        await agent.until(8)


async def test_connections_that_the_agent_has_closed_are_not_taken():
    agent = Agent()
    async with agent.running() as url, sockets_of(3) as sockets:
        await sockets.open(url, 5, ())
        await sockets.settle()
        (ready,) = sockets.connector._ready.values()
        for connection in (await agent.until(4))[1:]:
            connection.abort()
        async with asyncio.timeout(10):
            while any(connection.is_connected() for connection in ready):
                await asyncio.sleep(0.005)
        await sockets.open(url, 5, ())  # aiohttp tries a second time, and no third
        assert len(agent.came_by) == 2


async def test_a_connection_whose_peer_is_gone_without_a_word_costs_a_second_and_not_the_call():
    """A socket filter that passes nothing: the agent's kernel acknowledges no byte on it any more, as if its node had died."""
    agent = Agent()
    async with agent.running() as url, sockets_of(1) as sockets:
        await sockets.open(url, 5, ())
        await sockets.settle()
        _, ready = await agent.until(2)
        instruction = struct.pack("HBBI", 0x06, 0, 0, 0)  # BPF_RET, no bytes
        program = ctypes.create_string_buffer(instruction)
        ready.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HxxxxxxP", 1, ctypes.addressof(program))
        )
        await sockets.open(url, 5, ())
        assert len(agent.came_by) == 2
        assert ready not in agent.came_by


async def test_a_line_that_stands_is_as_patient_as_tcp():
    agent = Agent()
    async with agent.running() as url, sockets_of(1) as sockets:
        for _ in range(2):
            await sockets.open(url, 5, ())
            await sockets.settle()
        for opened in sockets.kept:
            assert opened.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0


async def test_none_is_ready_where_none_is_wanted():
    agent = Agent()
    async with agent.running() as url, sockets_of(0) as sockets:
        for _ in range(3):
            await sockets.open(url, 5, ())
        assert agent.came_by == agent.connections()


async def test_one_that_nobody_takes_is_closed(monkeypatch):
    monkeypatch.setattr(warm_connections, "IDLE_S", 0.05)
    agent = Agent()
    async with agent.running() as url, sockets_of(1) as sockets:
        await sockets.open(url, 5, ())
        await agent.until(2)
        assert await agent.until(1) == agent.came_by


async def test_all_are_closed_with_the_process():
    agent = Agent()
    async with agent.running() as url:
        async with sockets_of(2) as sockets:
            await sockets.open(url, 5, ())
            await agent.until(3)
        await agent.until(0)


async def test_an_agent_that_is_away_is_not_dialled_behind_anybodys_back():
    agent = Agent()
    async with agent.running() as url:
        pass
    async with sockets_of(1) as sockets:
        with pytest.raises(aiohttp.ClientConnectorError):
            await sockets.open(url, 5, ())
        assert sockets.connector._dialling == {}


async def test_the_rules_about_addresses_hold_for_connections_that_are_made_ready(monkeypatch):
    agent = Agent()
    async with agent.running() as url, sockets_of(1) as sockets:
        named = url.replace("127.0.0.1", "localhost")
        await sockets.open(named, 5, ())
        await sockets.settle()
        monkeypatch.setattr(sockets.connector._resolver, "_network", Network.PUBLIC)
        sockets.connector.clear_dns_cache()
        await sockets.open(named, 5, ())  # by the one that was ready; no other may follow
        with pytest.raises(AgentRefusedError):
            await sockets.open(named, 5, ())
        assert len(agent.connections()) == 2

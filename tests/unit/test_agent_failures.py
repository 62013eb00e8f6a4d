"""Agents that hang, flood, lie, break off or are somewhere else: a clear end, bounded memory, other calls untouched."""

import socket as sockets

import pytest

from tests.support.agent_doubles import HOST, OpusAgent, redirecting
from tests.support.byte_server import byte_server
from tests.support.fake_call import FakeCall
from voicefleet_dataplane.media.backend import Ending


def free_port() -> int:
    with sockets.socket() as one:
        one.bind((HOST, 0))
        return one.getsockname()[1]


async def ended(call: FakeCall) -> tuple[Ending, str]:
    await call.until(lambda: call.ended)
    return call.ended


async def test_an_agent_that_is_not_there_ends_the_call_with_a_reason_and_tells_the_client():
    url = f"ws://{HOST}:{free_port()}/"
    async with FakeCall(backend="OpusStream", backend_url=url, backend_connect_timeout_s=0.6) as call:
        ending, detail = await ended(call)
        assert ending is Ending.BACKEND_FAILED
        assert "Connect" in detail or "connect" in detail
        assert call.errors() == ["backend_failed"]


async def test_a_fallback_url_is_tried_when_the_first_does_not_answer():
    async with OpusAgent() as agent:
        dead = f"ws://{HOST}:{free_port()}/"
        async with FakeCall(backend="OpusStream", backend_url=dead, backend_fallback_urls=f"{agent.url}"):
            await agent.until(lambda: agent.of("start"))


async def test_an_agent_that_does_not_finish_its_handshake_runs_into_the_deadline():
    async def take_and_say_nothing(reader, writer):
        await reader.read()

    async with byte_server(take_and_say_nothing) as where:
        url = f"ws://{where}/"
        async with FakeCall(backend="OpusStream", backend_url=url, backend_connect_timeout_s=0.3) as call:
            ending, detail = await ended(call)
            assert (ending, detail) == (Ending.BACKEND_FAILED, "no connection within 0.3 s")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_refused(status):
    async with OpusAgent() as agent, redirecting(agent.url.replace("ws:", "http:"), status) as url:
        async with FakeCall(backend="OpusStream", backend_url=url, backend_connect_timeout_s=0.3) as call:
            ending, detail = await ended(call)
            assert ending is Ending.BACKEND_FAILED
            assert "redirects" in detail
        assert agent.requests == []


@pytest.mark.parametrize("host", [HOST, "localhost", "[::1]", "0.0.0.0", "[::ffff:127.0.0.1]"])
@pytest.mark.parametrize("network", ["Public", "Private"])
async def test_this_machine_is_never_dialled_for_a_resource(host, network):
    async with OpusAgent() as agent:
        url = agent.url.replace(HOST, host)
        async with FakeCall(
            backend="OpusStream", backend_url=url, backend_network=network, backend_connect_timeout_s=0.3
        ) as call:
            ending, detail = await ended(call)
            assert ending is Ending.BACKEND_FAILED
            assert "this machine" in detail or "one machine" in detail
        assert agent.requests == []


async def test_an_agent_that_does_not_speak_websocket_is_named():
    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async with byte_server(answer) as where:
        url = f"ws://{where}/"
        async with FakeCall(backend="OpusStream", backend_url=url, backend_connect_timeout_s=0.3) as call:
            ending, detail = await ended(call)
            assert ending is Ending.BACKEND_FAILED
            assert "403" in detail

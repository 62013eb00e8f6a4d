"""The unmodified `@openai/agents-realtime` package in Chromium talks with an agent through relay and transceiver.

With a voice pipeline in the agent's place: tests/interop/test_pipeline.py.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest
import websockets

from tests.support.agent_doubles import HOST, RealtimeAgent
from tests.support.agents_sdk import sdk_session
from tests.support.conversing_agent import ConversingAgent, Speak
from tests.support.offers import CHROMIUM
from tests.support.sdk_story import (
    HEARD_AS,
    TOOL_SAYS,
    at_24_khz,
    script,
    spoken_exchange,
)
from voicefleet_dataplane.commands.dev import DevFleet

pytestmark = pytest.mark.interop

CALLS = "/v1/realtime/calls"


class AgentFleet:
    """A fleet whose agent each test brings: it listens where the fleet looks for it."""

    def __init__(self, fleet: DevFleet, port: int) -> None:
        self.fleet, self.port = fleet, port
        self.calls_url = fleet.url + CALLS

    def openai(self) -> openai.AsyncOpenAI:
        """OpenAI's own client, pointed here."""
        http = openai.DefaultAsyncHttpxClient(verify=False, trust_env=False)
        return openai.AsyncOpenAI(api_key=self.fleet.api_key, base_url=f"{self.fleet.url}/v1", http_client=http)


@pytest.fixture(scope="module")
def agents() -> Iterator[AgentFleet]:
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    backend = {"backend": "OpenAIRealtime", "backend_url": f"ws://{HOST}:{port}{RealtimeAgent.path}"}
    with DevFleet(transceivers=1, backend=backend) as fleet:
        yield AgentFleet(fleet, port)


async def ephemeral_key(client: openai.AsyncOpenAI, **session) -> str:
    made = await client.realtime.client_secrets.create(session={"type": "realtime"} | session)
    assert made.expires_at > time.time() + 500
    return made.value


async def test_a_spoken_exchange_with_transcripts_a_function_call_and_interruptions(agents, speech):
    agent = ConversingAgent(script(speech), HEARD_AS, agents.port)
    async with agent, agents.openai() as client:
        key = await ephemeral_key(client, instructions="of the key")
        async with sdk_session(agents.calls_url, key, speech[0], result=TOOL_SAYS) as session:
            await spoken_exchange(agent, session, speech, "of the key")


async def test_a_server_beside_the_call_listens_speaks_and_hangs_up(agents, speech):
    agent = ConversingAgent(
        [
            Speak(at_24_khz(speech[3]), "this is the answer"),
            Speak(at_24_khz(speech[4]), "and the server asked for this"),
        ],
        port=agents.port,
    )
    tls = ssl.create_default_context(cafile=agents.fleet.ca_file)
    async with agent, agents.openai() as client:
        async with sdk_session(agents.calls_url, await ephemeral_key(client), speech[0]) as session:
            beside = client.realtime.connect(call_id=session.call_id, websocket_connection_options={"ssl": tls})
            async with beside as server, asyncio.timeout(60):
                await server.session.update(session={"type": "realtime", "instructions": "of the server"})
                updated = await seen(server, "session.updated")
                assert updated.session.instructions == "of the server"
                await session.say(speech[0])
                heard = await seen(server, "conversation.item.input_audio_transcription.completed")
                assert heard.transcript == "what the user said"
                done = await seen(server, "response.output_audio_transcript.done")
                assert done.transcript == "this is the answer"
                await seen(server, "output_audio_buffer.stopped")
                await server.response.create()
                assert (await seen(server, "response.done")).response.status == "completed"
                await session.until("output_audio_buffer.stopped", 2)  # the client hears what the server asked for
                await client.realtime.calls.hangup(session.call_id)
                rest = [event.type async for event in server]  # it ends with the call
                assert "error" not in rest
            await agent.until(lambda: agent.close_codes)
            await session.until("state:disconnected")
            assert await session.events("session:error") == []  # its channel was closed in order
        with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
            await client.realtime.connect(call_id=session.call_id, websocket_connection_options={"ssl": tls}).enter()
        assert refused.value.response.status_code == 404


async def seen(server: Any, kind: str) -> Any:
    """The next event of a kind."""
    while True:
        event = await server.recv()
        assert event.type != "error", event
        if event.type == kind:
            return event


async def test_a_server_places_a_call_with_the_official_client(agents):
    async with ConversingAgent(port=agents.port) as agent, agents.openai() as client:
        session = {"type": "realtime", "instructions": "of the form"}
        answer = await client.realtime.calls.create(sdp=CHROMIUM, session=session)
        assert answer.text.startswith("v=0")
        assert answer.response.status_code == 201
        await agent.until(lambda: agent.of("session.update"))
        assert agent.session["instructions"] == "of the form"
        await client.realtime.calls.hangup(answer.response.headers["Location"].rsplit("/", 1)[1])
        with pytest.raises(openai.BadRequestError, match="not 'transcription'"):
            await client.realtime.calls.create(sdp=CHROMIUM, session={"type": "transcription"})
        with pytest.raises(openai.AuthenticationError):
            await client.with_options(api_key="ek_wrong").realtime.calls.create(sdp=CHROMIUM, session=session)

"""The unmodified `@openai/agents-realtime` package in Chromium talks with an agent through relay and transceiver."""

import asyncio
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import websockets

from tests.support.agent_doubles import HOST, RealtimeAgent
from tests.support.agents_sdk import SdkSession, sdk_session
from tests.support.chromium import resembles
from tests.support.conversing_agent import Call, ConversingAgent, Speak
from tests.support.offers import CHROMIUM
from voicefleet_dataplane.commands.dev import DevFleet
from voicefleet_dataplane.media.speech import read_wav

pytestmark = pytest.mark.interop

CALLS = "/v1/realtime/calls"


def at_24_khz(wav: Path) -> bytes:
    """A recording as an agent speaks it."""
    samples = read_wav(wav).astype(float)
    return ((samples[0:-1:2] + samples[1::2]) / 2).astype("<i2").tobytes()


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
    question, order, barge_in, answer, tool_answer = speech[0], speech[1], speech[2], speech[3], speech[4]
    long_speech = b"".join(at_24_khz(wav) for wav in speech * 2)
    agent = ConversingAgent(
        [
            Speak(at_24_khz(answer), "this is the answer"),
            Call("look_up", {"order": 7}),
            Speak(at_24_khz(tool_answer), "order seven is on its way"),
            Speak(long_speech, "a very long story " * 4, complete=False),
            Speak(at_24_khz(answer), "yes, you interrupted me"),
            Speak(long_speech, "another long story " * 4, complete=False),
        ],
        heard_as="where is my order",
        port=agents.port,
    )
    async with agent, agents.openai() as client:
        key = await ephemeral_key(client, instructions="of the key")
        async with sdk_session(agents.calls_url, key, speech[0], result="on its way") as session:
            await its_session_was_set(agent, session)
            await a_question_is_answered(agent, session, question, answer)
            await a_function_is_called(agent, session, order, tool_answer)
            await speech_interrupts(agent, session, barge_in)
            await the_client_interrupts(agent, session)
            errors = await session.events("session:error")
            assert errors == []
            await session.do("close()")
            await agent.until(lambda: agent.close_codes)  # the call's end is the agent's


async def its_session_was_set(agent: ConversingAgent, session: SdkSession) -> None:
    assert session.connect_ms < 4_500  # the package waits 5 s for session.updated, and connects without it
    assert session.call_id.startswith("call_")
    updates = [event["session"] for event in agent.of("session.update")]
    assert updates[0]["instructions"] == "of the key"
    assert agent.session["instructions"] == "You are the agent of a test."  # the client's, set last
    assert [one["name"] for one in agent.session["tools"]] == ["look_up"]
    assert all("model" not in update for update in updates)  # the resource names it


async def a_question_is_answered(agent: ConversingAgent, session: SdkSession, question: Path, answer: Path) -> None:
    await session.say(question)
    await session.until("output_audio_buffer.stopped")
    asked, played = np.repeat(np.frombuffer(bytes(agent.pcm), "<i2"), 2), await session.heard()
    assert resembles(read_wav(question), asked) > 0.7 > resembles(read_wav(answer), asked)
    assert resembles(read_wav(answer), played) > 0.7 > resembles(read_wav(question), played)
    user, assistant = await session.history()
    assert user["content"][0]["transcript"] == "where is my order"
    assert assistant["content"][0]["transcript"] == "this is the answer"
    deltas = await session.events("response.output_audio_transcript.delta")
    assert "this is" in "".join(event["delta"] for event in deltas)
    assert await session.events("response.output_audio.delta") == []  # audio comes as audio
    for name in ("input_audio_buffer.speech_started", "input_audio_buffer.committed", "output_audio_buffer.started"):
        assert len(await session.events(name)) == 1, name


async def a_function_is_called(agent: ConversingAgent, session: SdkSession, order: Path, answer: Path) -> None:
    await session.say(order)
    await session.until("tool")
    assert await session.tool_calls() == [{"order": 7}]
    await session.until("output_audio_buffer.stopped", 2)
    assert [one["output"] for one in agent.outputs] == ["on its way"]
    assert resembles(read_wav(answer), await session.heard()) > 0.7
    calls = [item for item in await session.history() if item["type"] == "function_call"]
    assert [(one["name"], one["output"]) for one in calls] == [("look_up", "on its way")]


async def speech_interrupts(agent: ConversingAgent, session: SdkSession, barge_in: Path) -> None:
    await session.do("sendMessage('tell me a long story')")
    await session.until("output_audio_buffer.started", 3)
    await session.say(barge_in)
    await session.until("output_audio_buffer.cleared")
    await session.until("conversation.item.truncated")
    await session.until("output_audio_buffer.stopped", 3)  # of the next answer
    (truncated,) = agent.of("conversation.item.truncate")
    assert 0 < truncated["audio_end_ms"] < 10_000


async def the_client_interrupts(agent: ConversingAgent, session: SdkSession) -> None:
    await session.do("sendMessage('another one')")
    await session.until("output_audio_buffer.started", 5)
    await session.do("interrupt()")
    await session.until("output_audio_buffer.cleared", 2)
    await session.until("conversation.item.truncated", 2)
    cut = len(await session.heard())
    await asyncio.sleep(1.0)  # audio that goes on has no event: only listening tells
    after = (await session.heard())[cut + 24_000 :]
    assert len(after) > 12_000
    assert np.abs(after.astype(int)).max() < 200


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

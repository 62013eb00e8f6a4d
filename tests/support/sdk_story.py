"""The spoken exchange of a RealtimeSession with an agent, step by step; on loopback and on a cluster it is the same."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.support.agents_sdk import SdkSession
from tests.support.chromium import resembles
from tests.support.conversing_agent import Call, ConversingAgent, Speak
from voicefleet_dataplane.media.speech import Samples, read_wav

HEARD_AS = "where is my order"
TOOL_SAYS = "on its way"


def at_24_khz(wav: Path) -> bytes:
    """A recording as an agent speaks it."""
    samples = read_wav(wav).astype(float)
    return ((samples[0:-1:2] + samples[1::2]) / 2).astype("<i2").tobytes()


def script(speech: Sequence[Path]) -> list[Speak | Call]:
    """What the agent says in `spoken_exchange`."""
    long_speech = b"".join(at_24_khz(wav) for wav in (*speech, *speech))
    return [
        Speak(at_24_khz(speech[3]), "this is the answer"),
        Call("look_up", {"order": 7}),
        Speak(at_24_khz(speech[4]), "order seven is on its way"),
        Speak(long_speech, "a very long story " * 4, complete=False),
        Speak(at_24_khz(speech[3]), "yes, you interrupted me"),
        Speak(long_speech, "another long story " * 4, complete=False),
    ]


async def spoken_exchange(agent: ConversingAgent, session: SdkSession, speech: Sequence[Path], of_key: str) -> None:
    """Everything that the package does in a call, from its set-up to its end. ``of_key``: the instructions that came with the key."""
    await its_session_was_set(agent, session, of_key)
    await a_question_is_answered(agent, session, speech[0], speech[3])
    await a_function_is_called(agent, session, speech[1], speech[4])
    await speech_interrupts(agent, session, speech[2])
    await the_client_interrupts(session)
    assert await session.events("session:error") == []
    await session.do("close()")
    await agent.until(lambda: agent.close_codes)  # the call's end is the agent's


async def its_session_was_set(agent: ConversingAgent, session: SdkSession, of_key: str) -> None:
    assert session.connect_ms < 4_500  # the package waits 5 s for session.updated, and connects without it
    assert session.call_id.startswith("call_")
    updates = [event["session"] for event in agent.of("session.update")]
    assert updates[0]["instructions"] == of_key
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
    assert user["content"][0]["transcript"] == HEARD_AS
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
    assert [one["output"] for one in agent.outputs] == [TOOL_SAYS]
    assert resembles(read_wav(answer), await session.heard()) > 0.7
    calls = [item for item in await session.history() if item["type"] == "function_call"]
    assert [(one["name"], one["output"]) for one in calls] == [("look_up", TOOL_SAYS)]


async def speech_interrupts(agent: ConversingAgent, session: SdkSession, barge_in: Path) -> None:
    await session.do("sendMessage('tell me a long story')")
    await session.until("output_audio_buffer.started", 3)
    await session.say(barge_in)
    await session.until("output_audio_buffer.cleared")
    await session.until("conversation.item.truncated")
    await session.until("output_audio_buffer.stopped", 3)  # of the next answer
    (truncated,) = agent.of("conversation.item.truncate")
    assert 0 < truncated["audio_end_ms"] < 10_000


async def the_client_interrupts(session: SdkSession) -> None:
    await session.do("sendMessage('another one')")
    await session.until("output_audio_buffer.started", 5)
    await session.do("interrupt()")
    await session.until("output_audio_buffer.cleared", 2)
    await session.until("conversation.item.truncated", 2)
    async with asyncio.timeout(
        8
    ):  # the rest of the story would take longer; a busy machine plays late what came before
        while not is_silent((await session.heard())[-48_000:]):
            await asyncio.sleep(0.2)


def is_silent(samples: Samples) -> bool:
    return bool(np.abs(samples.astype(int)).max() < 200)

"""Backends against protocol-true doubles, over real sockets, with the real voice, clock and codec thread."""

import asyncio
import json

import numpy as np
import pytest

from tests.support.agent_doubles import MediaStreamAgent, OpusAgent, RealtimeAgent, TranscriptionAgent
from tests.support.fake_call import FakeCall
from tests.support.voice_world import similarity, speech_like
from voicefleet_dataplane.media.backend import CallConfig, Digit, Ending
from voicefleet_dataplane.media.opus import OpusEncoder
from voicefleet_dataplane.shell.agents.backend import MAX_HELD


def samples_of(pcm) -> np.ndarray:
    return np.frombuffer(bytes(pcm), np.int16)


def at(samples: np.ndarray, rate: int) -> np.ndarray:
    return samples[:: 48_000 // rate]


SAID = speech_like(2.0, 48_000)


# ---- OpenAIRealtime


async def test_realtime_the_agent_hears_the_recording_and_the_client_hears_the_agent(tmp_path):
    key = tmp_path / "key"
    key.write_text("sk-secret\n")
    async with (
        RealtimeAgent() as agent,
        FakeCall(backend="OpenAIRealtime", backend_url=agent.url, backend_key_file=str(key)) as call,
    ):
        await agent.until(lambda: agent.of("session.update"))
        assert agent.requests[0].headers["Authorization"] == "Bearer sk-secret"
        assert agent.requests[0].query["model"] == "double-1"
        await call.speak(SAID)
        await agent.until(lambda: len(agent.pcm) >= 2 * 24_000 * 2)
        assert similarity(at(SAID, 24_000), samples_of(agent.pcm)) > 0.95
        answer = speech_like(1.0, 24_000, seed=3)
        await agent.respond(answer.tobytes())
        await call.until(lambda: call.told("output_audio_buffer.stopped"))
        assert similarity(answer, call.heard_samples()) > 0.93
        assert len(call.sent) == 50
        assert call.errors() == []


async def test_realtime_the_client_sees_a_session_as_it_asked_for_and_no_audio_in_events():
    config = CallConfig("call_9", "acme", {"instructions": "be brief", "model": "evil", "id": "sess_evil"})
    async with (
        RealtimeAgent() as agent,
        FakeCall(config, backend="OpenAIRealtime", backend_url=agent.url) as call,
    ):
        await call.until(lambda: call.told("session.created"))
        (update,) = agent.of("session.update")
        assert update["session"]["instructions"] == "be brief"
        assert not {"model", "id"} & update["session"].keys()
        assert call.told("session.created")[0]["session"]["instructions"] == "be brief"
        assert call.told("session.updated") == []
        for number in range(2):
            call.say_event(
                type="session.update",
                event_id=f"mine_{number}",
                session={
                    "type": "realtime",
                    "model": "the package's default",
                    "audio": {"output": {"voice": "marin", "format": {"type": "audio/pcmu"}}},
                },
            )
        await call.until(lambda: len(call.told("session.updated")) == 2)
        assert not any("model" in event["session"] for event in agent.of("session.update"))  # the resource names it
        assert agent.session["audio"]["output"] == {"voice": "marin", "format": {"type": "audio/pcm", "rate": 24_000}}
        await agent.respond(speech_like(0.2, 24_000).tobytes())
        await call.until(lambda: call.told("response.done"))
        assert not any("audio.delta" in event["type"] for event in call.events)


async def test_realtime_an_interruption_stops_the_agent_and_says_what_was_heard():
    async with RealtimeAgent() as agent, FakeCall(backend="OpenAIRealtime", backend_url=agent.url) as call:
        await call.until(lambda: call.told("session.created"))
        await agent.respond(speech_like(30.0, 24_000).tobytes(), done=False)
        await call.until(lambda: len(call.sent) >= 20)
        await agent.speech_started()
        await call.until(lambda: call.told("output_audio_buffer.cleared"))
        sent = len(call.sent)
        await agent.until(lambda: agent.of("conversation.item.truncate"))
        (truncate,) = agent.of("conversation.item.truncate")
        assert truncate["item_id"] == "item_1"
        assert truncate["audio_end_ms"] == sent * 20
        await agent.respond(speech_like(1.0, 24_000).tobytes())  # late deltas of the same item
        await agent.respond(speech_like(0.1, 24_000).tobytes(), response="resp_2", item="item_2")
        await call.until(lambda: call.told("output_audio_buffer.stopped"))
        assert len(call.sent) == sent + 5
        assert [event["response_id"] for event in call.told("output_audio_buffer.started")] == ["resp_1", "resp_2"]


async def test_realtime_the_clients_own_interruption_reaches_nobody_as_an_unknown_event():
    async with RealtimeAgent() as agent, FakeCall(backend="OpenAIRealtime", backend_url=agent.url) as call:
        await call.until(lambda: call.told("session.created"))
        await agent.respond(speech_like(30.0, 24_000).tobytes(), done=False)
        await call.until(lambda: len(call.sent) >= 5)
        call.say_event(type="response.cancel")
        call.say_event(type="output_audio_buffer.clear")
        await call.until(lambda: call.told("conversation.item.truncated"))
        assert [event["type"] for event in agent.received[-2:]] == ["response.cancel", "conversation.item.truncate"]
        assert call.errors() == []


async def test_realtime_client_events_pass_and_bad_ones_are_answered():
    async with RealtimeAgent() as agent, FakeCall(backend="OpenAIRealtime", backend_url=agent.url) as call:
        await call.until(lambda: call.told("session.created"))
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}
        call.say_event(type="conversation.item.create", item=item)
        for bad in (
            "{",
            "[]",
            "{}",
            '{"type": "input_audio_buffer.append", "audio": ""}',
            '{"type": "session.update"}',
        ):
            call.backend.on_event(bad)
        await call.until(lambda: call.told("conversation.item.added"))
        assert call.errors() == ["invalid_json", "invalid_json", "missing_type", "unsupported_event", "invalid_value"]
        assert agent.of("conversation.item.create")[0]["item"] == item


async def test_realtime_a_key_pressed_is_told_as_an_event():
    async with RealtimeAgent() as agent, FakeCall(backend="OpenAIRealtime", backend_url=agent.url) as call:
        call.backend.on_digit(Digit("5", 60))
        await call.until(lambda: call.told("input_audio_buffer.dtmf_event_received"))
        assert call.told("input_audio_buffer.dtmf_event_received")[0]["event"] == "5"


async def test_transcription_hears_at_its_own_rate_and_its_words_have_the_apis_names():
    async with (
        TranscriptionAgent() as agent,
        FakeCall(backend="OpenAIRealtime", backend_profile="vLLM", backend_url=agent.url) as call,
    ):
        await agent.until(lambda: agent.committed)
        assert agent.model == "double-asr"
        await call.speak(SAID)
        await agent.until(lambda: len(agent.pcm) >= 2 * 16_000 * 2)
        assert similarity(at(SAID, 16_000), samples_of(agent.pcm)) > 0.95
        await agent.send(type="transcription.delta", delta="hello")
        await agent.send(type="transcription.done", text="hello world")
        await call.until(lambda: call.told("conversation.item.input_audio_transcription.completed"))
        assert call.told("conversation.item.input_audio_transcription.delta")[0]["delta"] == "hello"
        assert call.told("conversation.item.input_audio_transcription.completed")[0]["transcript"] == "hello world"
        call.hang_up()
        await agent.until(lambda: agent.final)


# ---- MediaStream


async def test_media_stream_the_agent_hears_the_recording_and_the_client_hears_the_agent():
    async with MediaStreamAgent() as agent, FakeCall(backend="MediaStream", backend_url=agent.url) as call:
        await agent.until(lambda: agent.stream)
        (start,) = agent.of("start")
        assert start["start"]["callSid"] == "call_1"
        assert json.loads(start["start"]["customParameters"]["session"]) == {"instructions": "be brief"}
        await call.speak(SAID)
        await agent.until(lambda: len(agent.pcm) >= 2 * 8_000 * 2)
        assert similarity(at(SAID, 8_000), samples_of(agent.pcm)) > 0.9
        answer = speech_like(1.0, 8_000, seed=3)
        await agent.say(answer.tobytes())
        await agent.mark("said")
        await agent.until(lambda: agent.of("mark"))
        assert agent.of("mark")[0]["mark"] == {"name": "said"}
        assert len(call.sent) == 50
        assert similarity(answer, call.heard_samples()) > 0.9


async def test_media_stream_clear_gives_the_pending_marks_back():
    async with MediaStreamAgent() as agent, FakeCall(backend="MediaStream", backend_url=agent.url) as call:
        await agent.until(lambda: agent.stream)
        await agent.say(speech_like(20.0, 8_000).tobytes())
        for name in ("one", "two"):
            await agent.mark(name)
        await call.until(lambda: len(call.sent) >= 5)
        await agent.clear()
        await agent.until(lambda: len(agent.of("mark")) == 2)
        assert [event["mark"]["name"] for event in agent.of("mark")] == ["one", "two"]
        sent = len(call.sent)
        await agent.say(speech_like(0.1, 8_000).tobytes())
        await agent.mark("after")
        await agent.until(lambda: len(agent.of("mark")) == 3)
        assert len(call.sent) == sent + 5


async def test_media_stream_keys_and_the_end_of_the_call():
    async with MediaStreamAgent() as agent, FakeCall(backend="MediaStream", backend_url=agent.url) as call:
        await agent.until(lambda: agent.stream)
        call.backend.on_digit(Digit("#", 60))
        call.backend.on_event('{"type":"anything"}')
        call.hang_up()
        await agent.until(lambda: agent.close_codes)
        assert agent.of("dtmf")[0]["dtmf"] == {"track": "inbound_track", "digit": "#"}
        assert agent.received[-1]["event"] == "stop"
        assert call.errors() == ["events_unsupported"]
        assert agent.close_codes == [1000]


# ---- OpusStream


async def test_opus_stream_nothing_is_coded_on_the_way():
    async with OpusAgent() as agent, FakeCall(backend="OpusStream", backend_url=agent.url) as call:
        await agent.until(lambda: agent.of("start"))
        assert agent.of("start")[0] | {"version": 1} == {
            "type": "start",
            "version": 1,
            "call_id": "call_1",
            "tenant": "acme",
            "session": {"instructions": "be brief"},
        }
        payloads = await call.speak(speech_like(1.0, 48_000))
        await agent.until(lambda: len(agent.packets) == 50)
        assert [payload for *_, payload in agent.packets] == payloads
        assert [(sequence - agent.packets[0][0]) & 0xFFFF for sequence, *_ in agent.packets] == list(range(50))
        encoder, said = OpusEncoder(48_000), speech_like(0.5, 48_000)
        frames = [encoder.encode(said[start : start + 960].tobytes()) for start in range(0, len(said), 960)]
        await agent.send(type="tag", tag="answer")
        for frame in frames:
            await agent.socket.send_bytes(frame)
        await agent.send(type="mark", name="said")
        await agent.until(lambda: agent.of("mark"))
        assert [payload for *_, payload in call.sent] == frames
        assert agent.of("playing") == [{"type": "playing", "tag": "answer"}]
        assert call.codec.jobs == 0


async def test_opus_stream_events_keys_clear_and_hang_up():
    async with OpusAgent() as agent, FakeCall(backend="OpusStream", backend_url=agent.url) as call:
        await agent.until(lambda: agent.of("start"))
        call.backend.on_digit(Digit("1", 80))
        call.say_event(type="from the client")
        await agent.until(lambda: agent.of("event"))
        assert agent.of("digit") == [{"type": "digit", "digit": "1", "duration_ms": 80}]
        assert agent.of("event")[0]["event"] == {"type": "from the client"}
        await agent.send(type="event", event={"type": "from the agent"})
        await call.until(lambda: call.told("from the agent"))
        frame = OpusEncoder(48_000).encode(bytes(1_920))
        for _ in range(500):
            await agent.socket.send_bytes(frame)
        await agent.send(type="mark", name="never")
        await call.until(lambda: len(call.sent) >= 3)
        await agent.send(type="clear")
        await agent.until(lambda: agent.of("cleared"))
        (cleared,) = agent.of("cleared")
        assert cleared["marks"] == ["never"]
        assert cleared["played_ms"] == len(call.sent) * 20
        await agent.send(type="hang_up", detail="done")
        await call.until(lambda: call.ended)
        assert call.ended == (Ending.HANG_UP, "done")


# ---- any agent


async def test_what_the_client_says_before_the_line_stands_is_heard():
    async with MediaStreamAgent() as agent, FakeCall(backend="MediaStream", backend_url=agent.url) as call:
        agent.gate = asyncio.Event()
        said = speech_like(1.0, 48_000)
        await call.speak(said)
        while call.voice._decoding:
            await asyncio.sleep(0.001)
        agent.gate.set()
        await agent.until(lambda: len(agent.pcm) >= 8_000 * 2)
        assert similarity(at(said, 8_000), samples_of(agent.pcm)[:8_000]) > 0.85
        assert [event["event"] for event in agent.received[:3]] == ["connected", "start", "media"]


async def test_what_the_client_writes_or_presses_before_the_line_stands_comes_after_the_protocols_first_words():
    async with (
        RealtimeAgent() as agent,
        FakeCall(backend="OpenAIRealtime", backend_url=agent.url) as call,
        MediaStreamAgent() as phone,
        FakeCall(backend="MediaStream", backend_url=phone.url) as other,
    ):
        call.say_event(type="session.update", session={"type": "realtime", "instructions": "the client's"})
        other.backend.on_digit(Digit("5", 60))
        await call.until(lambda: call.told("session.updated"))
        assert [event["session"]["instructions"] for event in agent.of("session.update")] == [
            "be brief",
            "the client's",
        ]
        await phone.until(lambda: phone.of("dtmf"))
        assert [event["event"] for event in phone.received] == ["connected", "start", "dtmf"]


async def test_who_writes_too_much_before_the_line_stands_is_told_so():
    async with RealtimeAgent() as agent, FakeCall(backend="OpenAIRealtime", backend_url=agent.url) as call:
        for _ in range(MAX_HELD + 1):
            call.say_event(type="response.create")
        assert call.errors() == ["agent_not_ready"]
        await agent.until(lambda: len(agent.of("response.create")) == MAX_HELD)


async def test_an_agent_that_says_good_bye_is_heard_to_the_end():
    async with MediaStreamAgent() as agent, FakeCall(backend="MediaStream", backend_url=agent.url) as call:
        await agent.until(lambda: agent.stream)
        await agent.say(speech_like(0.5, 8_000).tobytes())
        await agent.socket.close()
        await call.until(lambda: call.ended)
        assert call.ended[0] is Ending.HANG_UP
        assert len(call.sent) == 25


@pytest.mark.parametrize("backend", ["OpenAIRealtime", "MediaStream", "OpusStream"])
async def test_a_call_that_ends_closes_its_line_and_leaves_no_task(backend):
    doubles = {"OpenAIRealtime": RealtimeAgent, "MediaStream": MediaStreamAgent, "OpusStream": OpusAgent}
    before = asyncio.all_tasks()
    async with doubles[backend]() as agent:
        async with FakeCall(backend=backend, backend_url=agent.url) as call:
            await agent.until(lambda: agent.received)
            call.hang_up()
            await agent.until(lambda: agent.close_codes)
            assert agent.close_codes == [1000]
        assert not call.backends._links
    assert asyncio.all_tasks() <= before

"""What an agent says amiss, or does not do: its own call ends with a reason that names it, and nothing else."""

import asyncio
import base64
import contextlib
import json
import socket as sockets

import pytest

from tests.support.agent_doubles import HOST, MediaStreamAgent, OpusAgent, RealtimeAgent
from tests.support.fake_call import FakeCall
from tests.support.voice_world import speech_like
from voicefleet_dataplane.media.backend import Ending
from voicefleet_dataplane.media.opus import OpusEncoder
from voicefleet_dataplane.shell.agents import connection as agent_link
from voicefleet_dataplane.shell.agents.backend import MAX_STRIKES
from voicefleet_dataplane.shell.agents.connection import MAX_WAITING_EVENTS, MAX_WAITING_SPEECH
from voicefleet_dataplane.shell.agents.dialer import MAX_MESSAGE_BYTES


def free_port() -> int:
    with sockets.socket() as one:
        one.bind((HOST, 0))
        return one.getsockname()[1]


async def ended(call: FakeCall) -> tuple[Ending, str]:
    await call.until(lambda: call.ended)
    return call.ended


async def test_an_agent_that_breaks_off_in_mid_word_ends_the_call_at_once():
    async def behave(socket, agent):
        await socket.receive()
        await socket.receive()
        payload = base64.b64encode(bytes(80_000)).decode()
        await socket.send_str(json.dumps({"event": "media", "media": {"payload": payload}}))
        agent.requests[-1].transport.abort()

    async with MediaStreamAgent(behave) as agent, FakeCall(backend="MediaStream", backend_url=agent.url) as call:
        ending, detail = await ended(call)
        assert ending is Ending.BACKEND_CLOSED
        assert "went away" in detail
        assert call.errors() == ["backend_closed"]


async def test_a_lost_agent_is_reached_again_where_the_resource_says_so():
    async with (
        OpusAgent() as agent,
        FakeCall(backend="OpusStream", backend_url=agent.url, backend_reconnect_s=10.0) as call,
    ):
        await agent.until(lambda: agent.of("start"))
        agent.requests[0].transport.abort()
        await agent.until(lambda: len(agent.of("start")) == 2)
        assert call.errors() == ["agent_lost"]
        payloads = await call.speak(speech_like(0.5, 48_000))
        await agent.until(lambda: len(agent.packets) >= len(payloads))
        assert call.ended is None


async def test_a_lost_agent_that_stays_away_ends_the_call_when_the_time_is_up():
    async with OpusAgent() as agent:
        call = FakeCall(backend="OpusStream", backend_url=agent.url, backend_reconnect_s=0.6)
        async with call:
            await agent.until(lambda: agent.of("start"))
            await agent.vanish()
            assert (await ended(call))[0] is Ending.BACKEND_FAILED
            assert call.errors() == ["agent_lost", "backend_failed"]


@pytest.mark.parametrize("code", [1008, 1011, 4000])
async def test_an_agent_that_closes_with_an_error_is_quoted(code):
    async def behave(socket, agent):
        await socket.close(code=code, message=b"quota exceeded")

    async with OpusAgent(behave) as agent, FakeCall(backend="OpusStream", backend_url=agent.url) as call:
        assert await ended(call) == (Ending.BACKEND_FAILED, f"the agent closed with {code}: quota exceeded")


MALFORMED = {
    "not JSON": "{",
    "no object": "[]",
    "no name": "{}",
    "deep": "[" * 100_000,
    "media without payload": '{"event":"media"}',
    "payload no text": '{"event":"media","media":{"payload":5}}',
    "payload no base64": '{"event":"media","media":{"payload":"!!"}}',
    "mark without name": '{"event":"mark","mark":{}}',
    "mark with a long name": json.dumps({"event": "mark", "mark": {"name": "x" * 300}}),
    "binary": b"\x00\x01",
}


@pytest.mark.parametrize("message", MALFORMED.values(), ids=MALFORMED)
async def test_a_malformed_message_is_told_and_the_call_goes_on(message):
    async with MediaStreamAgent() as agent, FakeCall(backend="MediaStream", backend_url=agent.url) as call:
        await agent.until(lambda: agent.stream)
        await (agent.socket.send_str(message) if isinstance(message, str) else agent.socket.send_bytes(message))
        await agent.mark("still here")
        await agent.until(lambda: agent.of("mark"))
        assert call.errors() == ["agent_malformed_message"]
        assert call.ended is None


async def test_an_agent_that_sends_only_rubbish_is_given_up():
    async with MediaStreamAgent() as agent, FakeCall(backend="MediaStream", backend_url=agent.url) as call:
        await agent.until(lambda: agent.stream)
        for _ in range(MAX_STRIKES + 1):
            await agent.socket.send_str("rubbish")
        ending, detail = await ended(call)
        assert ending is Ending.BACKEND_FAILED
        assert "does not keep to its protocol" in detail
        assert call.errors() == ["agent_malformed_message"] * MAX_STRIKES + ["backend_failed"]


@pytest.mark.parametrize(
    "event",
    [
        {"type": 5},
        {"type": "response.output_audio.delta"},
        {"type": "response.output_audio.delta", "item_id": "i", "response_id": "r", "delta": "!"},
        {"type": "response.output_audio.delta", "item_id": "i", "response_id": "r", "delta": "AAAAA"},
        {"type": "response.output_audio.delta", "item_id": ["i"], "response_id": "r", "delta": ""},
        {"type": "response.output_audio.delta", "item_id": "i" * 300, "response_id": "r", "delta": ""},
        {"type": "response.output_audio.done"},
    ],
)
async def test_malformed_realtime_events_are_told_and_the_call_goes_on(event):
    async with RealtimeAgent() as agent, FakeCall(backend="OpenAIRealtime", backend_url=agent.url) as call:
        await call.until(lambda: call.told("session.created"))
        await agent.send(**event)
        await agent.emit("rate_limits.updated", rate_limits=[])
        await call.until(lambda: call.told("rate_limits.updated"))
        assert call.errors() == ["agent_malformed_message"]


@pytest.mark.parametrize(
    "taken", [{"type": "audio/pcmu"}, {"type": "audio/pcm", "rate": 16_000}, {"type": "audio/pcm", "rate": "24000"}]
)
@pytest.mark.parametrize("way", ["input", "output"])
async def test_an_agent_of_another_sample_rate_is_named_and_never_heard(way, taken):
    async with RealtimeAgent() as agent, FakeCall(backend="OpenAIRealtime", backend_url=agent.url) as call:
        await call.until(lambda: call.told("session.created"))
        await agent.emit("session.updated", session={"audio": {way: {"format": taken}}})
        ending, detail = await ended(call)
        assert ending is Ending.BACKEND_FAILED
        assert f"the agent's {way} audio is" in detail
        assert "24000 Hz" in detail


async def test_realtime_events_with_odd_shapes_harm_nothing():
    odd = [
        {"type": "session.created", "session": 5},
        {"type": "session.updated", "session": {"audio": {"input": {"turn_detection": {"interrupt_response": 3}}}}},
        {"type": "session.updated", "session": {"audio": []}},
        {"type": "error", "error": "text"},
        {"type": "input_audio_buffer.speech_started"},
    ]
    async with RealtimeAgent() as agent, FakeCall(backend="OpenAIRealtime", backend_url=agent.url) as call:
        await call.until(lambda: call.told("session.created"))
        for event in odd:
            await agent.send(**event)
        await agent.emit("rate_limits.updated", rate_limits=[])
        await call.until(lambda: call.told("rate_limits.updated"))
        assert call.ended is None


@pytest.mark.parametrize("frame_ms", [10, 40, 60])
async def test_opus_of_another_length_is_named_and_not_played(frame_ms):
    toc = {10: 0x40, 40: 0x50, 60: 0x58}[frame_ms]
    async with OpusAgent() as agent, FakeCall(backend="OpusStream", backend_url=agent.url) as call:
        await agent.until(lambda: agent.of("start"))
        await agent.socket.send_bytes(bytes((toc,)) + bytes(20))
        await call.until(call.errors)
        assert f"{frame_ms} ms" in call.told("error")[0]["error"]["message"]
        assert call.sent == []


async def test_a_message_of_15_mb_ends_its_call_and_is_never_held():
    async with MediaStreamAgent() as agent, FakeCall(backend="MediaStream", backend_url=agent.url) as call:
        await agent.until(lambda: agent.stream)
        with contextlib.suppress(ConnectionError):  # we hang up while it still sends
            await agent.socket.send_str(json.dumps({"event": "media", "media": {"payload": "A" * 15_000_000}}))
        ending, detail = await ended(call)
        assert ending is Ending.BACKEND_FAILED
        assert "too long" in detail
        assert MAX_MESSAGE_BYTES < 15_000_000


async def test_an_agent_that_floods_is_made_to_wait_and_loses_nothing(monkeypatch):
    """Ten minutes of speech at once: what is taken is bounded, and TCP holds the rest."""
    monkeypatch.setattr(agent_link, "BYTES_PER_S", 1 << 40)
    monkeypatch.setattr(agent_link, "MESSAGES_PER_S", 1 << 40)
    second = speech_like(1.0, 24_000).tobytes()
    sent = 0

    async def flood(agent):
        nonlocal sent
        for number in range(600):
            await agent.respond(second, response=f"r{number}", item=f"i{number}", done=False)
            sent += 1

    async with RealtimeAgent() as agent, FakeCall(backend="OpenAIRealtime", backend_url=agent.url) as call:
        await call.until(lambda: call.told("session.created"))
        flooding = asyncio.create_task(flood(agent))
        await call.until(lambda: call.voice.is_full, 60)
        before, still = sent, 0
        while still < 30 and call.ended is None and not flooding.done():  # until nothing more is taken
            await asyncio.sleep(0.01)
            before, still = sent, still + 1 if sent == before else 0
        assert call.ended is None
        assert call.voice.queued_ms < 175_000
        assert not flooding.done()
        assert sent < 600
        # Whoever interrupts still can, and reading goes on.
        call.say_event(type="output_audio_buffer.clear")
        assert call.voice.queued_ms == 0
        await call.until(lambda: call.voice.is_full, 60)
        flooding.cancel()


async def test_a_flood_of_small_events_leaves_the_loop_to_others(monkeypatch):
    monkeypatch.setattr(agent_link, "MESSAGES_PER_S", 100)
    async with (
        OpusAgent() as noisy,
        OpusAgent() as quiet,
        FakeCall(backend="OpusStream", backend_url=noisy.url) as one,
        FakeCall(backend="OpusStream", backend_url=quiet.url) as other,
    ):
        await noisy.until(lambda: noisy.of("start"))
        await quiet.until(lambda: quiet.of("start"))

        async def flood():
            while True:
                await noisy.send(type="event", event={"type": "noise"})

        flooding = asyncio.create_task(flood())
        await one.until(lambda: len(one.told("noise")) >= 100)
        payloads = await other.speak(speech_like(1.0, 48_000))
        await quiet.until(lambda: len(quiet.packets) == len(payloads))
        # A second's allowance is read, and not more, however fast it comes.
        assert len(one.told("noise")) <= 3 * agent_link.MESSAGES_PER_S
        flooding.cancel()


# ---- what it does not do


async def test_an_agent_that_hangs_is_found_out(monkeypatch):
    monkeypatch.setattr(agent_link, "PING_AFTER_S", 0.05)
    monkeypatch.setattr(agent_link, "_LOOK_S", 0.02)

    async def behave(socket, agent):
        await asyncio.Event().wait()  # reads nothing, so answers no ping

    async with OpusAgent(behave) as agent, FakeCall(backend="OpusStream", backend_url=agent.url) as call:
        ending, detail = await ended(call)
        assert ending is Ending.BACKEND_FAILED
        assert "ping" in detail


async def test_an_agent_that_has_nothing_to_say_is_not_taken_for_one_that_hangs(monkeypatch):
    monkeypatch.setattr(agent_link, "PING_AFTER_S", 0.05)
    monkeypatch.setattr(agent_link, "_LOOK_S", 0.01)
    pings = 0

    async def behave(socket, agent):
        nonlocal pings
        socket._autoping = False
        while True:
            message = await socket.receive()
            if message.type.name == "PING":
                pings += 1
                await socket.pong(message.data)
                agent.changed()
            elif message.type.name in ("CLOSE", "CLOSED", "CLOSING"):
                return

    async with OpusAgent(behave) as agent, FakeCall(backend="OpusStream", backend_url=agent.url) as call:
        await agent.until(lambda: pings >= 4)
        assert call.ended is None


async def test_an_agent_that_reads_nothing_gets_the_newest_speech_and_costs_no_memory():
    async def behave(socket, agent):
        await asyncio.Event().wait()

    async with OpusAgent(behave) as agent, FakeCall(backend="OpusStream", backend_url=agent.url) as call:
        await agent.until(lambda: agent.sockets)
        link = call.backend._link
        while not call.backend._is_open:
            await asyncio.sleep(0.001)
        big = bytes(200_000)
        for number in range(500):
            link.send_speech(number.to_bytes(4) + big)
        assert len(link._speech) == MAX_WAITING_SPEECH
        waiting = [one.message for one in link._queue if one.message is not None]
        assert len(waiting) <= MAX_WAITING_SPEECH + 1
        assert int.from_bytes(waiting[-1][:4]) == 499
        assert link.dropped_speech == 400


async def test_an_agent_that_reads_no_events_is_given_up():
    async def behave(socket, agent):
        await asyncio.Event().wait()

    async with OpusAgent(behave) as agent, FakeCall(backend="OpusStream", backend_url=agent.url) as call:
        while not call.backend._is_open:
            await asyncio.sleep(0.001)
        for number in range(MAX_WAITING_EVENTS + 1):
            call.say_event(type="x", number=number)
        assert (await ended(call))[0] is Ending.BACKEND_FAILED
        assert "does not read" in call.ended[1]


async def test_a_failure_of_one_agent_is_no_other_calls_business():
    async with (
        OpusAgent() as agent,
        FakeCall(backend="OpusStream", backend_url=agent.url) as good,
        FakeCall(backend="OpusStream", backend_url=f"ws://{HOST}:{free_port()}/", backend_connect_timeout_s=0.3) as bad,
    ):
        await agent.until(lambda: agent.of("start"))
        assert (await ended(bad))[0] is Ending.BACKEND_FAILED
        frame = OpusEncoder(48_000).encode(bytes(1_920))
        for _ in range(10):
            await agent.socket.send_bytes(frame)
        await good.until(lambda: len(good.sent) == 10)
        assert good.ended is None
        assert good.errors() == []


async def test_a_changed_key_is_used_for_the_next_call(tmp_path):
    key = tmp_path / "key"
    key.write_text("first")
    async with OpusAgent() as agent:
        call = FakeCall(backend="OpusStream", backend_url=agent.url, backend_key_file=str(key))
        async with call:
            await agent.until(lambda: len(agent.requests) == 1)
            key.write_text("the second")
            call.backends.check_key()
            second = call.backends.make(call)
            await agent.until(lambda: len(agent.requests) == 2)
            second.on_ended()
        assert [one.headers["Authorization"] for one in agent.requests] == ["Bearer first", "Bearer the second"]

"""What counts as heard when somebody interrupts a Realtime agent, and what agents are forgiven."""

import base64
import json

import numpy as np
import pytest

from tests.support.agent_doubles import RealtimeAgent
from tests.support.fake_call import FakeCall
from tests.support.realtime_world import RealtimeWorld
from tests.support.voice_world import similarity, speech_like
from voicefleet_dataplane.media.backend import Ending
from voicefleet_dataplane.shell.agents import backend

INTERRUPT = {"type": "input_audio_buffer.speech_started"}
CLEAR = {"type": "output_audio_buffer.clear"}


def interrupt(world: RealtimeWorld, how: str) -> None:
    if how == "speech":
        world.says(**INTERRUPT)
    else:
        world.wants(**CLEAR)


BOTH = pytest.mark.parametrize("how", ["speech", "client"])


@BOTH
def test_every_queued_answer_is_truncated_not_only_the_first(how):
    world = RealtimeWorld()
    for number in (1, 2, 3):
        world.delta(f"item_{number}", 1.0, f"resp_{number}")
        world.done(f"item_{number}", f"resp_{number}")
    world.run(1.5)
    interrupt(world, how)
    played = len(world.sent) * 20 - 1_000
    assert world.truncations() == [("item_2", played), ("item_3", 0)]
    assert world.told_of("output_audio_buffer.cleared") == ["resp_2"]
    world.run(1.0)
    assert len(world.sent) * 20 == 1_000 + played


@BOTH
@pytest.mark.parametrize("seconds", [0.0, 1 / 24_000, 0.005, 0.02, 1.0])
def test_between_the_first_delta_and_the_first_tick_nothing_was_heard(how, seconds):
    world = RealtimeWorld()
    world.codec.held = True
    world.delta("item_1", seconds)
    interrupt(world, how)
    assert world.truncations() == [("item_1", 0)]
    world.codec.run()
    world.run(1.0)
    assert world.sent == []
    world.delta("item_2", 0.1, "resp_2")
    world.codec.held = False
    world.run(1.0)
    assert len(world.sent) == 5, "the next answer is heard"


@BOTH
def test_an_agent_that_speaks_at_the_pace_of_speech_is_told_too(how):
    """Its queue is empty between two deltas, and its item is not at its end."""
    world = RealtimeWorld()
    for _ in range(10):
        world.delta("item_1", 0.02)
        world.run(0.02)
    interrupt(world, how)
    assert world.truncations() == [("item_1", 200)]


@BOTH
def test_what_was_heard_to_its_end_is_left_alone(how):
    world = RealtimeWorld()
    world.delta("item_1", 0.5)
    world.done("item_1")
    world.says(type="response.done", response={"id": "resp_1"})
    world.run(2.0)
    interrupt(world, how)
    assert world.truncations() == []
    assert world.told_of("output_audio_buffer.cleared") == []


def test_a_clear_without_a_cancel_drops_the_rest_of_the_response():
    world = RealtimeWorld()
    world.says(type="response.created", response={"id": "resp_1"})
    world.delta("item_1", 1.0)
    world.run(0.5)
    world.wants(**CLEAR)
    heard = len(world.sent) * 20
    world.delta("item_1", 1.0)
    world.delta("item_2", 1.0)  # of the same response
    world.run(3.0)
    assert len(world.sent) * 20 == heard
    world.done("item_1")
    world.done("item_2")
    assert world.truncations() == [("item_1", heard), ("item_1", heard), ("item_2", 0)]
    assert world.told_of("output_audio_buffer.stopped") == []
    world.says(type="response.done", response={"id": "resp_1"})
    assert len(world.truncations()) == 3
    world.delta("item_3", 0.1, "resp_2")
    world.run(1.0)
    assert len(world.sent) * 20 == heard + 100


def test_a_response_that_ends_without_a_word_about_its_audio_is_truncated_at_its_end():
    """A cancelled response may have no `output_audio.done`."""
    world = RealtimeWorld()
    world.delta("item_1", 1.0)
    world.run(0.5)
    world.says(**INTERRUPT)
    world.delta("item_1", 1.0)
    world.says(type="response.done", response={"id": "resp_1", "status": "cancelled"})
    first, second = world.truncations()
    assert first == second


def test_an_agent_that_numbers_its_responses_anew_is_heard_again():
    world = RealtimeWorld()
    world.delta("item_1", 1.0, "r")
    world.says(**INTERRUPT)
    world.says(type="response.created", response={"id": "r"})
    sent = len(world.sent)
    world.delta("item_2", 0.1, "r")
    world.run(1.0)
    assert len(world.sent) == sent + 5


def test_what_is_remembered_of_items_is_bounded():
    world = RealtimeWorld()
    for number in range(10_000):
        world.delta(f"item_{number}", 0.0, f"resp_{number}")
        if number % 10 == 0:
            world.says(**INTERRUPT)
    assert len(world.core._speech._items) <= 64
    assert len(world.core._speech._cut) <= 64


# ---- what is forgiven


def test_samples_may_be_cut_in_half_between_deltas():
    said = speech_like(1.0, 24_000)
    world, pcm = RealtimeWorld(), said.tobytes()
    for start in range(0, len(pcm), 961):
        world.delta("item_1", pcm[start : start + 961])
    world.done("item_1")
    world.run(2.0)
    assert world.voice.played_ms("item_1") == 1_000
    assert similarity(said, world.sent_samples()) > 0.93
    assert len(world.forgiven) == 50
    assert "half of a sample" in world.forgiven[0]


def test_half_a_sample_of_one_item_is_not_put_before_another():
    world = RealtimeWorld()
    world.delta("item_1", b"\x01\x02\x03")
    world.delta("item_2", speech_like(0.5, 24_000).tobytes(), "resp_2")
    world.run(1.0)
    assert similarity(speech_like(0.5, 24_000), world.sent_samples()) > 0.9


@pytest.mark.parametrize(
    "bend",
    [
        lambda text: text.rstrip("="),
        lambda text: "\n".join(text[at : at + 76] for at in range(0, len(text), 76)) + "\r\n",
        lambda text: text.replace("+", "-").replace("/", "_"),
        lambda text: text.replace("+", "-").replace("/", "_").rstrip("="),
        lambda text: " " + text + " ",
    ],
)
def test_base64_may_be_written_in_other_ways(bend):
    said = speech_like(0.5, 24_000)
    world = RealtimeWorld()
    world.delta("item_1", b"", encoded=bend(base64.b64encode(said.tobytes() + b"\x05").decode()))
    world.run(1.0)
    assert similarity(said, world.sent_samples()) > 0.9
    assert "base64" in world.forgiven[0]


@pytest.mark.parametrize("text", ["!", "AAAAA", "A", "AAAA====", "AA=AA", "\u0430AAA", "AAAA" * 1_400_000])
def test_what_means_no_bytes_is_a_strike_still(text):
    world = RealtimeWorld()
    event = {"type": "response.output_audio.delta", "item_id": "i", "response_id": "r", "delta": text}
    assert world.strikes(json.dumps(event))


def test_json_in_a_binary_message_is_read():
    world = RealtimeWorld()
    assert not world.strikes(b'{"type":"rate_limits.updated"}')
    assert world.told_of("rate_limits.updated") == [""]
    assert len(world.forgiven) == 1
    assert world.strikes(b"\xff\xfe")
    assert world.strikes(b"[]")


def test_refusals_of_our_events_are_not_shown_as_the_clients():
    world = RealtimeWorld()
    world.delta("item_1", 1.0)
    world.says(**INTERRUPT)
    (truncate,) = (one for one in world.to_agent if one["type"] == "conversation.item.truncate")
    (append,) = world.core.speech(bytes(960))
    for event_id in (truncate["event_id"], json.loads(append)["event_id"]):
        world.says(type="error", event_id="e", error={"code": "invalid_value", "event_id": event_id})
    assert world.told_of("error") == []
    assert len(world.forgiven) == 2
    world.says(type="error", event_id="e", error={"code": "theirs", "event_id": "event_of_the_client"})
    world.says(type="error", event_id="e", error={"code": "nobody's", "event_id": None})
    assert [one["error"]["code"] for one in world.to_client if one["type"] == "error"] == ["theirs", "nobody's"]


def test_a_session_that_the_agent_refuses_is_told_without_an_event_that_the_client_never_sent():
    world = RealtimeWorld()
    world.to_agent.clear()
    world.do(world.core.open())
    (update,) = world.to_agent
    world.says(type="error", error={"code": "invalid_value", "message": "no", "event_id": update["event_id"]})
    (error,) = (one for one in world.to_client if one["type"] == "error")
    assert error["error"] == {"code": "invalid_value", "message": "no", "event_id": None}


async def test_so_many_a_minute_are_forgiven_and_then_the_call_ends(monkeypatch):
    monkeypatch.setattr(backend, "MAX_FORGIVEN", 20)
    time_s = [0.0]
    async with RealtimeAgent() as agent, FakeCall(backend="OpenAIRealtime", backend_url=agent.url) as call:
        call.backend._clock = lambda: time_s[0]
        call.backend._window_at = 0.0
        await call.until(lambda: call.told("session.created"))
        for minute in (1, 2):
            for _ in range(20):
                await agent.socket.send_bytes(b'{"type":"x"}')
            await call.until(lambda minute=minute: len(call.told("x")) == 20 * minute)
            time_s[0] += 60
        assert call.ended is None
        for _ in range(21):
            await agent.socket.send_bytes(b'{"type":"x"}')
        await call.until(lambda: call.ended is not None)
        assert call.ended[0] is Ending.BACKEND_FAILED
        assert "forgiven 20 times in a minute" in call.ended[1]
        assert call.errors() == ["backend_failed"]


def test_what_a_voice_cut_off_is_named_in_order():
    world = RealtimeWorld()
    world.codec.held = True
    for name in ("a", "b", "a", "c"):
        world.voice.say(np.zeros(480 * 3, np.int16).tobytes(), name)
    cleared = world.voice.clear()
    assert (cleared.tag, cleared.played_ms) == ("a", 0)
    assert cleared.cut == (("a", 0), ("b", 0), ("c", 0))

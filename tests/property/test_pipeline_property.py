"""Whatever happens in whatever order, a pipeline's client sees a well-formed conversation."""

import json

from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import examples
from tests.support.pipeline_world import PipelineWorld
from voicefleet_dataplane.media.pipeline.chat import CallDelta, Finished, TextDelta

TEXTS = st.sampled_from(["Yes.", "One two. Three ", "four, five", " six! ", "…", "*", ""])
STEPS = st.one_of(
    st.tuples(st.just("speech"), st.sampled_from([20, 100, 400, 1_200])),
    st.tuples(st.just("silence"), st.sampled_from([20, 300, 700])),
    st.tuples(st.just("words"), st.sampled_from(["", "hello", "and then"])),
    st.tuples(st.just("words failed"), st.none()),
    st.tuples(st.just("text"), TEXTS),
    st.tuples(st.just("call"), st.sampled_from(["look_up", ""])),
    st.tuples(st.just("finished"), st.booleans()),
    st.tuples(st.just("text failed"), st.none()),
    st.tuples(st.just("sound"), st.sampled_from([0, 20, 500, 3_000])),
    st.tuples(st.just("spoken"), st.none()),
    st.tuples(st.just("speech failed"), st.none()),
    st.tuples(st.just("play"), st.sampled_from([20, 200, 2_000])),
    st.tuples(st.just("wait"), st.sampled_from([0.1, 3.0, 12.0])),
    st.tuples(st.just("client"), st.sampled_from(
        [
            {"type": "response.create"},
            {"type": "response.cancel"},
            {"type": "output_audio_buffer.clear"},
            {"type": "input_audio_buffer.clear"},
            {"type": "input_audio_buffer.commit"},
            {"type": "session.update", "session": {"output_modalities": ["text"]}},
            {"type": "session.update", "session": {"output_modalities": ["audio"]}},
            {"type": "session.update", "session": {"audio": {"input": {"turn_detection": None}}}},
            {"type": "session.update", "session": {"audio": {"input": {"turn_detection": {"type": "server_vad"}}}}},
            {"type": "conversation.item.create", "item": {"type": "function_call_output", "call_id": "c", "output": "42"}},
        ]
    )),
    st.tuples(st.just("delete last"), st.none()),
    st.tuples(st.just("truncate last"), st.sampled_from([0, 100, 100_000])),
)  # fmt: skip


def step(world: PipelineWorld, what: str, value) -> None:
    core, now = world.core, world.now
    turn = world.asked[-1].turn if world.asked else "none"
    job = world.sentences[-1].job if world.sentences else "none"
    utterance = world.concluded[-1] if world.concluded else "none"
    match what:
        case "speech":
            world.speech(value)
        case "silence":
            world.silence(value)
        case "words":
            world.do(core.words(utterance, value, now))
        case "words failed":
            world.do(core.words_failed(utterance, "failed", "failed"))
        case "text":
            world.do(core.answered(turn, [TextDelta(value)], now))
        case "call":
            world.do(core.answered(turn, [CallDelta(0, "c", value, "{}")], now))
        case "finished":
            world.do(core.answered(turn, [Finished()], now))
        case "text failed":
            world.do(core.text_failed(turn, "failed", "failed", now))
        case "sound":
            world.do(core.sound(job, bytes(value * 48), now))
        case "spoken":
            world.do(core.spoken(job, now))
        case "speech failed":
            world.do(core.speech_failed(job, "failed", "failed", now))
        case "play":
            world.play(value)
        case "wait":
            world.wait(value)
        case "client":
            world.do(world.client_events.take(json.dumps(value), now))
        case "delete last" if core._items.last_id:
            world.client("conversation.item.delete", item_id=core._items.last_id)
        case "truncate last" if core._items.last_id:
            world.client("conversation.item.truncate", item_id=core._items.last_id, content_index=0, audio_end_ms=value)


def ids(world: PipelineWorld, kind: str, *path: str) -> list[str]:
    found = []
    for event in world.told(kind):
        value = event
        for name in path:
            value = value[name]
        found.append(value)
    return found


@examples(150)
@given(st.lists(STEPS, max_size=40))
def test_a_conversation_is_well_formed_whatever_happens(steps):
    world = PipelineWorld()
    world.utter("hello")  # chance alone seldom comes so far
    for what, value in steps:
        step(world, what, value)
    world.wait(60)  # every stage that is waited for has had its time
    world.play(60_000)
    world.wait(60)
    world.play(60_000)
    assert world.core.deadline() is None

    created, done = ids(world, "response.created", "response", "id"), ids(world, "response.done", "response", "id")
    assert created == done  # one at a time, each to its end
    assert ids(world, "response.output_item.added", "item", "id") == sorted(
        ids(world, "response.output_item.done", "item", "id"),
        key=ids(world, "response.output_item.added", "item", "id").index,
    )
    for kind in ("output_audio_buffer.started",):
        ended = ids(world, "output_audio_buffer.stopped", "response_id") + ids(
            world, "output_audio_buffer.cleared", "response_id"
        )
        assert set(ids(world, kind, "response_id")) <= set(ended)
    started = ids(world, "input_audio_buffer.speech_started", "item_id")
    stopped = ids(world, "input_audio_buffer.speech_stopped", "item_id")
    assert len(started) == len(set(started))
    assert set(stopped) <= set(started) | set(world.concluded)
    assert len({event["event_id"] for event in world.events}) == len(world.events)
    for message in (message for ask in world.asked for message in ask.request["messages"]):
        assert message["role"] in ("user", "assistant", "tool", "system")
    open_item = None
    for event in world.events:  # nothing of a response comes after its end
        response = event.get("response_id") or event.get("response", {}).get("id")
        if event["type"] == "response.created":
            open_item = response
        elif event["type"] == "response.done":
            open_item = None
        elif event["type"].startswith("response."):
            assert response == open_item, event

"""What clients ask of a pipeline's conversation, in simulated time: sessions, items, responses, buffers, and what cannot be understood."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.pipeline_world import PipelineWorld, answering
from voicefleet_dataplane.media.backend import Digit
from voicefleet_dataplane.media.pipeline.hearing import MAX_UTTERANCE_MS
from voicefleet_dataplane.media.pipeline.items import MAX_ITEMS


def test_two_updates_at_once_are_both_answered_in_their_order():
    world = PipelineWorld()
    world.client("session.update", session={"type": "realtime", "instructions": "one"})
    world.client("session.update", session={"type": "realtime", "instructions": "two", "output_modalities": ["text"]})
    assert [event["session"]["instructions"] for event in world.told("session.updated")] == ["one", "two"]
    world.utter("hello")
    world.answer("Hi.")
    assert "response.output_text.done" in world.kinds()
    assert world.sentences == []


def test_an_update_that_cannot_be_changes_nothing_and_names_the_field():
    world = PipelineWorld()
    bad = {"instructions": "x", "audio": {"input": {"turn_detection": {"type": "server_vad", "threshold": 7}}}}
    world.client("session.update", session=bad, event_id="mine")
    error = world.last("error")["error"]
    assert error["param"] == "session.audio.input.turn_detection.threshold"
    assert error["event_id"] == "mine"
    assert world.core._session.instructions == ""


def test_semantic_vad_is_shown_as_what_it_is_here():
    world = PipelineWorld({"audio": {"input": {"turn_detection": {"type": "semantic_vad", "eagerness": "low"}}}})
    detection = world.last("session.created")["session"]["audio"]["input"]["turn_detection"]
    assert (detection["type"], detection["silence_duration_ms"]) == ("server_vad", 1_000)


def test_a_session_object_that_came_with_the_call_and_cannot_be_is_told():
    world = PipelineWorld({"output_modalities": ["smell"], "model": "gpt-realtime"})
    assert world.errors() == ["invalid_value"]
    assert world.kinds()[0] == "session.created"


def test_without_turn_detection_the_client_commits_and_asks():
    world = PipelineWorld({"audio": {"input": {"turn_detection": None}}})
    world.client("input_audio_buffer.commit")
    assert world.errors() == ["input_audio_buffer_commit_empty"]
    world.speech(2_000)
    assert world.heard == {}
    world.client("input_audio_buffer.commit")
    world.do(world.core.words(world.concluded[0], "push to talk", world.now))
    assert len(world.heard[world.concluded[0]]) == 2_000 * 32
    assert world.asked == []
    world.client("response.create", response={"instructions": "sing", "metadata": {"a": "b"}})
    assert world.messages()[0] == {"role": "system", "content": "sing"}
    assert world.last("response.created")["response"]["metadata"] == {"a": "b"}


def test_a_buffer_that_nobody_commits_keeps_the_last_minute():
    world = PipelineWorld({"audio": {"input": {"turn_detection": None}}})
    world.speech(200_000)
    world.client("input_audio_buffer.commit")
    assert len(world.heard[world.concluded[0]]) <= MAX_UTTERANCE_MS * 32


def test_a_cleared_buffer_forgets_the_utterance():
    world = PipelineWorld()
    world.speech(500)
    world.client("input_audio_buffer.clear")
    assert world.kinds()[-1] == "input_audio_buffer.cleared"
    assert world.forgotten == list(world.heard)
    world.silence(1_000)
    assert world.concluded == []


def test_a_typed_question_is_answered():
    world = PipelineWorld()
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}
    world.client("conversation.item.create", item=item)
    assert world.kinds()[-2:] == ["conversation.item.added", "conversation.item.done"]
    world.client("response.create")
    assert world.messages() == [{"role": "user", "content": "hi"}]
    world.client("response.create")
    assert world.errors() == ["conversation_already_has_active_response"]


def test_items_are_put_where_the_client_says_retrieved_and_deleted():
    world = PipelineWorld()
    for item_id, after in (("a", None), ("c", None), ("b", "a"), ("z", "root")):
        content = [{"type": "input_text", "text": item_id}]
        item = {"type": "message", "role": "user", "id": item_id, "content": content}
        world.client("conversation.item.create", item=item, previous_item_id=after)
    assert [event["previous_item_id"] for event in world.told("conversation.item.added")] == [None, "a", "a", None]
    world.client("conversation.item.delete", item_id="c")
    world.client("response.create")
    assert [message["content"] for message in world.messages()] == ["z", "a", "b"]
    world.client("conversation.item.retrieve", item_id="c")
    assert world.last("error")["error"]["param"] == "item_id"


def test_a_client_truncates_what_was_spoken():
    world = answering("One two three four.")
    world.play(2_000)
    item = world.last("conversation.item.done")["item"]["id"]
    world.client("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=1_000)
    assert world.last("conversation.item.truncated")["audio_end_ms"] == 1_000
    world.client("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=99_000)
    assert world.errors() == ["invalid_value"]


@pytest.mark.parametrize(
    ("event", "code"),
    [
        ({"type": "session.explode"}, "unknown_event"),
        ({"no": "type"}, "missing_type"),
        ({"type": 7}, "missing_type"),
        ({"type": "session.update"}, "invalid_value"),
        ({"type": "session.update", "session": {"colour": "red"}}, "invalid_value"),
        ({"type": "session.update", "session": {"prompt": {"id": "p"}}}, "invalid_value"),
        ({"type": "session.update", "session": {"tools": [{"type": "mcp"}]}}, "invalid_value"),
        ({"type": "session.update", "session": {"audio": []}}, "invalid_value"),
        ({"type": "session.update", "session": {"instructions": "x" * 100_000}}, "invalid_value"),
        ({"type": "input_audio_buffer.append", "audio": "AAAA"}, "unsupported_event"),
        ({"type": "conversation.item.create"}, "invalid_value"),
        ({"type": "conversation.item.create", "item": {"type": "message", "role": "user"}}, "invalid_value"),
        ({"type": "conversation.item.create", "item": {"type": "function_call_output"}}, "invalid_value"),
        ({"type": "conversation.item.retrieve", "item_id": {"a": 1}}, "invalid_value"),
        ({"type": "conversation.item.delete"}, "invalid_value"),
        ({"type": "conversation.item.truncate", "item_id": "none"}, "invalid_value"),
        ({"type": "response.create", "response": {"conversation": "none"}}, "invalid_value"),
        ({"type": "response.create", "response": {"metadata": [1]}}, "invalid_value"),
    ],
)
def test_what_cannot_be_understood_is_answered_with_an_error(event, code):
    world = PipelineWorld()
    fields = dict(event)
    world.client(fields.pop("type", None), **fields) if "type" in event else world.do(
        world.client_events.take('{"no":1}', 0)
    )
    assert world.errors() == [code]
    assert len(world.events) == 2


@pytest.mark.parametrize("text", ["", "[]", "nonsense", "\u0000", "[" * 5_000, '{"type":"session.update"'])
def test_garbage_is_answered_with_an_error(text):
    world = PipelineWorld()
    world.do(world.client_events.take(text, world.now))
    assert world.errors() == ["invalid_json"]


def test_two_thousand_items_are_bounded():
    world = PipelineWorld()
    for number in range(2_000):
        content = [{"type": "input_text", "text": str(number) * 100}]
        world.client("conversation.item.create", item={"type": "message", "role": "user", "content": content})
    assert len(world.core._items) == MAX_ITEMS
    assert world.errors() == []


def test_a_key_is_told():
    world = PipelineWorld()
    world.do(world.core.digit(Digit("5", 100), 1_700_000_000))
    assert world.last("input_audio_buffer.dtmf_event_received")["event"] == "5"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_FIELDS = ("session", "response", "item", "item_id", "previous_item_id", "audio_end_ms", "response_id", "event_id")
_KINDS = (
    "session.update",
    "response.create",
    "response.cancel",
    "conversation.item.create",
    "conversation.item.retrieve",
    "conversation.item.delete",
    "conversation.item.truncate",
    "input_audio_buffer.commit",
)


@pytest.mark.parametrize("eagerness", [[1], {"a": 1}, 7, True])
def test_an_eagerness_that_is_no_word_is_told(eagerness):
    world = PipelineWorld()
    detection = {"type": "semantic_vad", "eagerness": eagerness}
    world.client("session.update", session={"audio": {"input": {"turn_detection": detection}}})
    assert world.last("error")["error"]["param"] == "session.audio.input.turn_detection.eagerness"


@given(st.sampled_from(_KINDS), st.dictionaries(st.sampled_from(_FIELDS), _JSON, max_size=4))
def test_an_event_with_any_fields_is_answered(kind, fields):
    world = PipelineWorld()
    world.client(kind, **fields)
    json.dumps(world.events, allow_nan=False)

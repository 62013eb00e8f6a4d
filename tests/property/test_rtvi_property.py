"""Whatever a client says in its chat, and whatever an agent's events look like: no exception, and only whole messages go out."""

import json

from hypothesis import given
from hypothesis import strategies as st

from tests.support.rtvi import Chat
from voicefleet_dataplane.media.rtvi import LABEL

KINDS = [
    "client-ready",
    "disconnect-bot",
    "send-text",
    "dtmf",
    "llm-function-call-result",
    "client-message",
    "nonsense",
]
EVENTS = [
    "input_audio_buffer.speech_started",
    "conversation.item.input_audio_transcription.completed",
    "response.output_audio_transcript.delta",
    "response.output_audio_transcript.done",
    "response.output_item.done",
    "error",
]
NAMES = [
    "content",
    "options",
    "run_immediately",
    "tool_call_id",
    "result",
    "buttons",
    "button",
    "transcript",
    "delta",
    "item",
]
leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=8,
)


def whole(chat: Chat) -> None:
    for message in chat.told:
        assert message["label"] == LABEL
        assert message["id"] and message["type"]
    for event in chat.heard:
        assert event["type"] in ("conversation.item.create", "response.create")


@given(st.text(max_size=200) | st.binary(max_size=200))
def test_any_message(message):
    chat = Chat()
    chat.rtvi.on_message(message)
    whole(chat)


@given(st.sampled_from(KINDS) | leaves, values, values)
def test_any_fields(kind, data, number):
    chat = Chat()
    chat.rtvi.on_message(json.dumps({"label": LABEL, "type": kind, "data": data, "id": number}))
    whole(chat)
    assert chat.left == (kind == "disconnect-bot")


@given(st.sampled_from(EVENTS) | leaves, st.dictionaries(st.sampled_from([*NAMES, "error"]), values, max_size=4))
def test_any_event(kind, fields):
    chat = Chat()
    assert chat.rtvi.on_event(json.dumps(fields | {"type": kind}))
    whole(chat)

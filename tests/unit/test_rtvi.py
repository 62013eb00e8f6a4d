"""RTVI: what Pipecat's client says in its chat, and what it is told."""

import json

import pytest

from tests.support.rtvi import Chat


@pytest.fixture
def chat() -> Chat:
    return Chat()


def test_a_client_that_is_ready_is_told_that_the_bot_is(chat: Chat):
    chat.say("client-ready", {"version": "2.1.0", "about": {"library": "@pipecat-ai/client-js"}})
    (ready,) = chat.told
    assert (ready["type"], ready["id"], ready["label"]) == ("bot-ready", "n1", "rtvi-ai")
    assert ready["data"]["version"].split(".")[0] == "2"  # an older one makes the client warn


@pytest.mark.parametrize(
    "message",
    [
        "ping: 1764133200000",
        b"\x00",
        json.dumps({"type": "signalling", "message": {"type": "trackStatus", "receiver_index": 0, "enabled": True}}),
    ],
)
def test_what_needs_no_answer_gets_none(chat: Chat, message):
    chat.rtvi.on_message(message)
    assert (chat.told, chat.heard, chat.left) == ([], [], 0)


def test_text_is_an_item_and_asks_for_a_response(chat: Chat):
    chat.say("send-text", {"content": "hello"})
    chat.say("send-text", {"content": "later", "options": {"run_immediately": False}})
    item, response, later = chat.heard
    assert item["item"]["content"] == [{"type": "input_text", "text": "hello"}]
    assert response == {"type": "response.create"}
    assert later["item"]["content"][0]["text"] == "later"


def test_a_functions_result_goes_to_the_agent(chat: Chat):
    chat.say("llm-function-call-result", {"function_name": "f", "tool_call_id": "call_1", "result": {"ok": True}})
    item, response = chat.heard
    assert item["item"] == {"type": "function_call_output", "call_id": "call_1", "output": '{"ok": true}'}
    assert response["type"] == "response.create"


def test_keys_and_the_wish_to_end(chat: Chat):
    chat.say("dtmf", {"buttons": ["1", "#", "x", 7, None, "12"]})
    chat.say("dtmf", {"button": "5"})  # clients of before
    chat.say("dtmf", {"buttons": "123"})
    chat.say("disconnect-bot", {})
    assert chat.pressed == ["1", "#", "5"]
    assert chat.left == 1


@pytest.mark.parametrize("kind", ["client-message", "append-to-context", "ui-event", "send-text", "", "x" * 10_000])
def test_what_is_not_taken_is_said_under_its_number(chat: Chat, kind: str):
    chat.say(kind, {"t": "anything"})
    (refused,) = chat.told
    assert (refused["type"], refused["id"]) == ("error-response", "n1")
    assert len(json.dumps(refused)) < 1_000
    assert chat.heard == []


@pytest.mark.parametrize("message", ["{", "[]", "7", "null", '"ping"', "[" * 100_000, "x" * 300_000])
def test_garbage_is_told_and_ends_nothing(chat: Chat, message: str):
    chat.rtvi.on_message(message)
    (told,) = chat.told
    assert (told["type"], told["data"]["fatal"]) == ("error", False)
    assert chat.left == 0


@pytest.mark.parametrize("data", [None, 7, [], "text", {"content": 7}, {"tool_call_id": None}, {"buttons": {}}])
@pytest.mark.parametrize("kind", ["client-ready", "send-text", "dtmf", "llm-function-call-result"])
def test_fields_of_the_wrong_kind_end_nothing(chat: Chat, kind: str, data):
    chat.say(kind, data, number=7)
    assert chat.heard == []
    assert chat.pressed == []


def test_who_speaks_is_told(chat: Chat):
    assert chat.event("input_audio_buffer.speech_started") == [("user-started-speaking", {})]
    assert chat.event("input_audio_buffer.speech_stopped") == [("user-stopped-speaking", {})]
    assert chat.event("output_audio_buffer.started") == [("bot-tts-started", {}), ("bot-started-speaking", {})]
    for ended in ("output_audio_buffer.stopped", "output_audio_buffer.cleared"):
        assert chat.event(ended) == [("bot-tts-stopped", {}), ("bot-stopped-speaking", {})]
    assert chat.event("response.created") == [("bot-llm-started", {})]
    assert chat.event("response.done") == [("bot-llm-stopped", {})]


def test_transcripts_are_told(chat: Chat):
    (heard,) = chat.event("conversation.item.input_audio_transcription.completed", transcript="what time is it")
    assert heard[0] == "user-transcription"
    assert (heard[1]["text"], heard[1]["final"], heard[1]["timestamp"][:4]) == ("what time is it", True, "2026")
    assert chat.event("response.output_audio_transcript.delta", delta="five") == [("bot-llm-text", {"text": "five"})]
    said = dict(chat.event("response.output_audio_transcript.done", transcript="five o'clock"))
    assert said["bot-output"]["text"] == said["bot-transcription"]["text"] == "five o'clock"


def test_function_calls_and_errors_are_told(chat: Chat):
    item = {"type": "function_call", "name": "get_time", "call_id": "call_1", "arguments": '{"zone": "UTC"}'}
    ((kind, data),) = chat.event("response.output_item.done", item=item)
    assert kind == "llm-function-call-in-progress"
    assert data == {"function_name": "get_time", "tool_call_id": "call_1", "arguments": {"zone": "UTC"}}
    ((kind, data),) = chat.event("error", error={"message": "the agent is lost"})
    assert (kind, data["error"], data["fatal"]) == ("error", "the agent is lost", False)


@pytest.mark.parametrize("event", ["", "{", "[]", "null", '{"type": 7}', '{"type": "session.created"}', "[" * 100_000])
def test_other_events_are_not_its_business(chat: Chat, event: str):
    assert chat.rtvi.on_event(event)
    assert chat.told == []


@pytest.mark.parametrize("item", [None, [], {"type": "message"}, {"type": "function_call", "arguments": "{"}])
def test_odd_items_are_no_trouble(chat: Chat, item):
    chat.event("response.output_item.done", item=item)
    chat.event("error", error=item)


def test_a_call_that_ends_by_our_will_says_so(chat: Chat):
    chat.rtvi.say_goodbye()
    assert chat.told == [{"type": "signalling", "message": {"type": "peerLeft"}}]

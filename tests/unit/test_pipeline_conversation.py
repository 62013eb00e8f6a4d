"""A pipeline's conversation in simulated time: turns, answers, interruptions, functions, and each stage that fails."""

import pytest

from tests.support.pipeline_world import PipelineWorld, answering, asking
from voicefleet_dataplane.media.backend import Ending
from voicefleet_dataplane.media.pipeline.chat import CallDelta, Finished, TextDelta
from voicefleet_dataplane.media.pipeline.hearing import MAX_UTTERANCE_MS
from voicefleet_dataplane.media.pipeline.items import MAX_TEXT
from voicefleet_dataplane.media.pipeline.response import LOOKAHEAD_MS

TURN = [
    "input_audio_buffer.speech_started",
    "input_audio_buffer.speech_stopped",
    "input_audio_buffer.committed",
    "conversation.item.added",
    "conversation.item.done",
    "conversation.item.input_audio_transcription.delta",
    "conversation.item.input_audio_transcription.completed",
    "response.created",
]
ANSWER = [
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
    "response.output_audio_transcript.delta",
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "response.output_item.done",
    "conversation.item.done",
    "response.done",
]


# ---- a turn


def test_a_turn_tells_the_whole_list_of_events_in_their_order():
    world = asking()
    assert world.kinds() == ["session.created", *TURN]
    world.answer("It is noon.")
    world.speak()
    assert world.kinds()[len(TURN) + 1 :] == ANSWER
    world.play(1_100)
    assert world.kinds()[-2:] == ["output_audio_buffer.started", "output_audio_buffer.stopped"]
    response = world.last("response.done")["response"]
    assert response["status"] == "completed"
    assert response["output"][0]["content"] == [{"type": "output_audio", "transcript": "It is noon."}]


def test_every_event_has_an_id_of_its_own():
    world = answering("It is noon. Good bye.")
    ids = [event["event_id"] for event in world.events]
    assert len(set(ids)) == len(ids)


def test_places_in_the_audio_are_told_to_the_window():
    world = asking()
    started, stopped = world.told(TURN[0])[0], world.told(TURN[1])[0]
    assert started["audio_start_ms"] == 500 - 300  # speech begins after half a second of silence; less the padding
    assert stopped["audio_end_ms"] == 500 + 1_000 + 500
    assert len(world.heard[started["item_id"]]) == (stopped["audio_end_ms"] - started["audio_start_ms"]) * 32


def test_the_text_handler_is_asked_with_the_history_and_the_instructions():
    world = asking({"instructions": "be brief"})
    world.answer("It is noon.")
    world.speak()
    world.play(1_200)
    world.utter("and now")
    assert world.messages() == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "what time is it"},
        {"role": "assistant", "content": "It is noon."},
        {"role": "user", "content": "and now"},
    ]
    assert world.asked[-1].request["user"] == "call_1"


def test_a_sentence_is_spoken_while_the_next_is_thought_of_and_never_two_at_once():
    world = asking()
    world.answer("It is ", "noon. And ", done=False)
    assert [one.text for one in world.sentences] == ["It is noon."]
    world.answer("the sun shines. Good day.")
    assert len(world.sentences) == 1
    world.speak_all()
    assert [one.text for one in world.sentences] == ["It is noon.", "And the sun shines.", "Good day."]
    assert world.playout.queued_ms == 3_000


def test_no_more_is_spoken_than_somebody_may_want_to_hear():
    world = asking()
    world.answer("Word word word. " * 200)
    world.speak_all(5_000)
    assert LOOKAHEAD_MS <= world.playout.queued_ms < LOOKAHEAD_MS + 5_000
    spoken = len(world.sentences)
    world.play(6_000)
    world.wait(1)
    assert len(world.sentences) == spoken + 1


def test_no_words_are_no_question():
    world = PipelineWorld()
    world.utter("")
    assert "response.created" not in world.kinds()
    assert world.last("conversation.item.input_audio_transcription.completed")["transcript"] == ""
    assert world.core.deadline() is None


def test_a_click_is_no_speech():
    world = PipelineWorld()
    world.speech(60)
    world.silence(2_000)
    assert world.kinds() == ["session.created"]


def test_noise_and_an_hour_of_silence_keep_nothing():
    world = PipelineWorld()
    for _ in range(3_600):
        world.do(world.core.speech(bytes(32_000), [0.01] * 50, 20, world.now))
    assert world.core._hearing._recent_bytes < 2_000 * 32
    assert world.kinds() == ["session.created"]
    for probability in (0.2, 0.45) * 100:  # never believed
        world.speech(100, probability)
    assert world.kinds() == ["session.created"]


def test_whoever_speaks_without_end_is_taken_at_their_word_each_minute():
    world = PipelineWorld()
    world.speech(150_000)
    assert len(world.concluded) == 2
    assert all(len(world.heard[one]) <= (MAX_UTTERANCE_MS + 1_000) * 32 for one in world.concluded)


# ---- interruption


def test_an_interruption_stops_the_voice_and_keeps_only_what_was_heard():
    world = answering("One two three four. Five six seven eight.")
    assert world.playout.queued_ms == 4_000 - 400
    world.speech(100)
    assert world.playout.queued_ms == 0
    kinds = world.kinds()
    place = kinds.index("output_audio_buffer.cleared")
    assert kinds[place - 1 : place + 2] == [
        "input_audio_buffer.speech_started",
        "output_audio_buffer.cleared",
        "conversation.item.truncated",
    ]
    truncated = world.last("conversation.item.truncated")
    assert truncated["audio_end_ms"] == 400
    world.client("conversation.item.retrieve", item_id=truncated["item_id"])
    item = world.last("conversation.item.retrieved")["item"]
    assert item["status"] == "incomplete"
    assert item["content"][0]["transcript"] == ""  # a fifth of the first sentence is no word
    assert "output_audio_buffer.stopped" not in kinds


@pytest.mark.parametrize(
    ("heard_ms", "text"), [(1_000, "One two"), (2_000, "One two three four."), (3_000, "One two three four. Five six")]
)
def test_the_words_that_were_heard_stay(heard_ms, text):
    world = answering("One two three four. Five six seven eight.")
    world.play(heard_ms - 400)
    world.utter("stop")
    assert world.messages()[-2] == {"role": "assistant", "content": text}


def test_an_interruption_ends_the_response_that_is_being_made():
    world = asking()
    world.answer("It is noon. And then", done=False)
    world.speak()
    world.play(400)
    world.speech(200)
    assert world.withdrawn == [world.asked[0].turn]
    response = world.last("response.done")["response"]
    assert (response["status"], response["status_details"]["reason"]) == ("cancelled", "turn_detected")
    world.answer(" too late.")
    assert world.kinds()[-1] == "response.done"


def test_an_interruption_hushes_the_sentence_in_the_making():
    world = asking()
    world.answer("It is noon. And then some more.")
    world.speech(200)
    assert world.hushed == [world.sentences[0].job]
    events = len(world.events)
    world.speak()
    assert len(world.events) == events
    assert world.playout.queued_ms == 0
    assert world.last("conversation.item.truncated")["audio_end_ms"] == 0


def test_a_session_that_cannot_be_interrupted_answers_afterwards():
    world = asking({"audio": {"input": {"turn_detection": {"type": "server_vad", "interrupt_response": False}}}})
    world.answer("It is noon.", done=False)
    world.utter("and tomorrow")
    assert len(world.asked) == 1
    world.answer(" Yes.")
    world.speak_all()
    assert len(world.asked) == 2
    assert world.messages()[-1]["content"] == "and tomorrow"


def test_a_client_that_cancels_and_clears_hears_nothing_more():
    world = answering("One two three four. Five six seven eight.")
    world.client("output_audio_buffer.clear")
    assert world.playout.queued_ms == 0
    assert world.last("conversation.item.truncated")["audio_end_ms"] == 400
    world.client("response.cancel")
    assert world.errors() == ["response_cancel_not_active"]


def test_a_cancelled_response_is_heard_as_far_as_it_was_made():
    world = asking()
    world.answer("It is noon. And then", done=False)
    world.speak()
    world.client("response.cancel")
    done = world.last("response.done")["response"]
    assert done["status_details"]["reason"] == "client_cancelled"
    assert done["output"][0]["content"][0]["transcript"] == "It is noon."
    world.play(1_100)
    assert world.kinds()[-1] == "output_audio_buffer.stopped"


# ---- functions

WEATHER = {"type": "function", "name": "weather", "description": "of a place", "parameters": {"type": "object"}}


def test_a_function_call_goes_to_the_client_and_its_output_to_the_text_handler():
    world = asking({"tools": [WEATHER]})
    assert world.asked[0].request["tools"][0]["function"]["name"] == "weather"
    turn = world.asked[0].turn
    pieces = [CallDelta(0, "call_7", "weather", ""), CallDelta(0, "", "", '{"place":'), CallDelta(0, "", "", '"Rome"}')]
    world.do(world.core.answered(turn, [*pieces, Finished()], world.now))
    assert [event["delta"] for event in world.told("response.function_call_arguments.delta")] == [
        '{"place":',
        '"Rome"}',
    ]
    done = world.last("response.function_call_arguments.done")
    assert (done["call_id"], done["arguments"]) == ("call_7", '{"place":"Rome"}')
    assert world.last("response.output_item.done")["item"]["status"] == "completed"
    world.client(
        "conversation.item.create", item={"type": "function_call_output", "call_id": "call_7", "output": "rain"}
    )
    world.client("response.create")
    call = {"id": "call_7", "type": "function", "function": {"name": "weather", "arguments": '{"place":"Rome"}'}}
    assert world.messages()[-2:] == [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_7", "content": "rain"},
    ]
    world.answer("It rains.")
    world.speak()
    assert world.last("response.done")["response"]["status"] == "completed"


def test_text_and_functions_in_one_answer_have_places_of_their_own():
    world = asking()
    turn = world.asked[0].turn
    calls = [CallDelta(0, "a", "one", "{}"), CallDelta(1, "b", "two", "{}")]
    world.do(world.core.answered(turn, [TextDelta("Let me see."), *calls, Finished()], world.now))
    world.speak()
    assert [event["output_index"] for event in world.told("response.output_item.done")] == [0, 1, 2]


def test_a_function_whose_output_never_came_is_not_told_to_the_text_handler():
    world = asking()
    world.do(world.core.answered(world.asked[0].turn, [CallDelta(0, "a", "one", "{}"), Finished()], world.now))
    world.utter("never mind")
    assert all("tool_calls" not in message for message in world.messages())


def test_a_function_without_a_name_fails_the_response():
    world = asking()
    world.do(world.core.answered(world.asked[0].turn, [CallDelta(0, "a", "", "{}"), Finished()], world.now))
    assert world.errors() == ["text_handler_malformed"]


# ---- stages that fail


def test_a_text_handler_that_hangs_fails_its_turn_and_the_call_goes_on():
    world = asking()
    world.wait(14.9)
    assert world.errors() == []
    world.wait(0.2)
    assert world.errors() == ["text_handler_timeout"]
    assert world.withdrawn == [world.asked[0].turn]
    response = world.last("response.done")["response"]
    assert response["status"] == "failed"
    assert response["status_details"]["error"]["code"] == "text_handler_timeout"
    world.utter("hello")
    world.answer("Hello.")
    world.speak()
    assert world.last("response.done")["response"]["status"] == "completed"
    assert world.ended is None


def test_an_answer_that_stops_in_the_middle_fails_and_its_words_stay():
    world = asking()
    world.answer("It is noon. And", done=False)
    world.speak()
    world.wait(16)
    assert world.errors() == ["text_handler_timeout"]
    assert world.last("response.done")["response"]["output"][0]["content"][0]["transcript"] == "It is noon."
    world.play(1_100)
    assert world.kinds()[-1] == "output_audio_buffer.stopped"


def test_speech_to_text_that_hangs_is_told_and_the_call_goes_on():
    world = PipelineWorld()
    world.speech(1_000)
    world.silence(600)
    world.wait(11)
    assert world.errors() == ["speech_to_text_timeout"]
    failed = world.last("conversation.item.input_audio_transcription.failed")
    assert failed["item_id"] == world.concluded[0]
    events = len(world.events)
    world.do(world.core.words(world.concluded[0], "too late", world.now))
    assert len(world.events) == events


def test_text_to_speech_that_hangs_fails_the_response():
    world = asking()
    world.answer("It is noon.")
    world.wait(11)
    assert world.errors() == ["text_to_speech_timeout"]
    assert world.last("response.done")["response"]["status"] == "failed"
    assert world.hushed == [] or world.hushed == [world.sentences[0].job]


def test_text_to_speech_that_fails_is_told():
    world = asking()
    world.answer("It is noon. Good bye.")
    world.do(world.core.speech_failed(world.sentences[0].job, "text_to_speech_engine_failed", "no voice", world.now))
    assert world.errors() == ["text_to_speech_engine_failed"]
    assert len(world.sentences) == 1


@pytest.mark.parametrize("stage", ["words", "text", "speech"])
def test_a_resource_that_says_so_ends_the_call_when_a_stage_fails(stage):
    world = PipelineWorld(hangs_up_on_failure=True)
    if stage == "words":
        world.speech(1_000)
        world.silence(600)
    else:
        world.utter("what time is it")
        if stage == "speech":
            world.answer("It is noon.")
    world.wait(20)
    assert world.ended is not None
    assert world.ended.ending is Ending.BACKEND_FAILED
    assert world.errors()[0].endswith("_timeout")
    assert world.errors()[0] in world.ended.detail


def test_a_text_handler_that_floods_is_cut_off():
    world = asking()
    world.do(world.core.answered(world.asked[0].turn, [TextDelta("word " * 8_000)] * 4, world.now))
    assert world.errors() == ["text_handler_malformed"]
    assert all(len(one.text) <= MAX_TEXT for one in world.core._items._items.values())


def test_a_text_handler_can_hang_up_when_it_has_spoken():
    world = asking()
    world.do(world.core.answered(world.asked[0].turn, [TextDelta("Good bye."), Finished(hang_up=True)], world.now))
    assert world.ended is None
    world.speak()
    assert world.ended is not None
    assert world.ended.ending is Ending.HANG_UP


def test_many_utterances_without_words_are_given_up_oldest_first():
    world = PipelineWorld()
    for _ in range(12):
        world.speech(200)
        world.silence(600)
    assert world.errors() == ["speech_to_text_behind"] * 4

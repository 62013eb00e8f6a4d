"""Any message of an agent, and any event of a client, gives actions or one AgentError: no other exception, whatever the order."""

import contextlib
import json

from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import examples
from voicefleet_dataplane.media.agent import AgentError, Clear, End, Forgive, Mark, Say, Send, Tell
from voicefleet_dataplane.media.backend import CallConfig, Cleared, Digit
from voicefleet_dataplane.media.media_stream import MediaStream
from voicefleet_dataplane.media.openai_realtime import OpenAIRealtime
from voicefleet_dataplane.media.opus_stream import OpusStream
from voicefleet_dataplane.media.realtime_profiles import Profile

NAMES = st.sampled_from(
    [
        *("type", "event", "media", "mark", "clear", "tag", "hang_up", "session", "session.created", "session.updated"),
        *("error", "event_id", "item_id", "response_id", "delta", "content_index", "payload", "name", "audio", "input"),
        *("output", "format", "turn_detection", "interrupt_response", "input_audio_buffer.speech_started"),
        *(
            "response.output_audio.delta",
            "response.audio.delta",
            "response.output_audio.done",
            "response.done",
            "response.created",
            "response",
        ),
        *(
            "transcription.delta",
            "transcription.done",
            "session.update",
            "output_audio_buffer.clear",
            "input_audio_buffer.append",
            "AAAA",
        ),
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=5) | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=12,
)
EVENTS = st.builds(
    lambda kind, fields: json.dumps({**fields, **kind}),
    st.dictionaries(st.sampled_from(["type", "event"]), NAMES, max_size=2),
    st.dictionaries(NAMES, VALUES, max_size=6),
)
MESSAGES = EVENTS | st.text(max_size=20) | st.binary(max_size=20) | VALUES.map(json.dumps)
MAKERS = st.sampled_from(
    [
        MediaStream,
        OpusStream,
        *(lambda config, profile=profile: OpenAIRealtime(config, profile, "m") for profile in Profile),
    ]
)
ACTIONS = (Send, Say, Mark, Clear, Tell, End, Forgive)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("receive"), MESSAGES),
        st.tuples(st.just("event"), EVENTS | st.text(max_size=20)),
        st.tuples(st.just("digit"), st.just(Digit("1", 20))),
        st.tuples(st.just("playing"), NAMES),
        st.tuples(st.just("marked"), NAMES),
        st.tuples(
            st.just("cleared"),
            st.builds(
                Cleared, NAMES, st.integers(0, 99), st.tuples(NAMES), st.tuples(st.tuples(NAMES, st.integers(0, 99)))
            ),
        ),
    ),
    max_size=12,
)


@given(MAKERS, st.dictionaries(NAMES, VALUES, max_size=4), STEPS)
@examples(300)
def test_no_message_breaks_a_protocol(make, session, steps):
    protocol = make(CallConfig("call_1", "acme", session))
    actions = protocol.open()
    for what, argument in steps:
        options = {"was_speaking": True} if what == "cleared" else {}
        with contextlib.suppress(AgentError):
            actions += getattr(protocol, what)(argument, **options)
    actions += protocol.close("over")
    for action in actions:
        assert isinstance(action, ACTIONS)
        if isinstance(action, Tell):
            assert isinstance(json.loads(action.event), dict)
        if isinstance(action, Send):
            json.loads(action.message)

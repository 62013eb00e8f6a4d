"""Readers of what comes from outside work in proportion to its length, whatever is in it.

Each budget is ten times and more what the code takes, and each input took the code before it many times the budget.
"""

import pytest

from tests.support.cpu import cpu_budget
from tests.support.offers import CHROMIUM
from tests.support.session_records import make_record
from voicefleet_dataplane.media.pipeline.chat import MAX_ANSWER_BYTES, EventStream, HookError, parse_chunk
from voicefleet_dataplane.media.pipeline.sentences import LONGEST, SentenceSplitter
from voicefleet_dataplane.wire.sdp.offer import parse_offer_untrusted
from voicefleet_operator.sessions_api.selectors import MAX_REQUIREMENTS, MAX_SELECTOR_CHARS, parse_query
from voicefleet_operator.sessions_api.status import StatusError


@pytest.mark.parametrize("stream", [b"data: " + b"x" * (MAX_ANSWER_BYTES - 8) + b"\n\n", b"data:\n" * 170_000 + b"\n"])
def test_an_event_stream_that_comes_byte_by_byte(stream):
    events, found = EventStream(), []
    with cpu_budget(20):
        for at in range(len(stream)):
            found += events.push(stream[at : at + 1])
    assert len(found) == 1


def test_lines_of_an_event_stream_may_end_between_chunks():
    events = EventStream()
    got = [event for part in (b"da", b"ta: a\r", b"\ndata:b\n", b"\r\n", b"data: c\n\n") for event in events.push(part)]
    assert got == ["a\nb", "c"]


def test_an_answer_has_at_most_its_bytes_and_its_calls():
    with pytest.raises(HookError, match="more than"):
        EventStream().push(b"x" * (MAX_ANSWER_BYTES + 1))
    calls = ",".join(['{"function":{}}'] * 40)
    with pytest.raises(HookError, match="at most 32"):
        parse_chunk('{"choices":[{"delta":{"tool_calls":[' + calls + "]}}]}")


@pytest.mark.parametrize(
    "text", ["A. " * 21_000, "a. " * 21_000, "." * 64_000, "x" * 64_000, ". \n" * 21_000, " " * 64_000]
)
def test_sentences_of_a_long_text(text):
    splitter = SentenceSplitter()
    with cpu_budget(10):
        sentences = [*splitter.push(text), *splitter.flush()]
    assert "".join(sentences) == text or not text.strip()
    assert max(map(len, sentences), default=0) <= LONGEST + 1


@pytest.mark.parametrize(
    "labels",
    [
        "," * 100_000,
        "a" * 100_000,
        "a in (" + "," * 100_000,
        "a in (b)," * 20_000,
        "(" * 100_000,
        " " * 100_000,
        "a" + " " * 100_000 + "b",
    ],
)
def test_a_label_selector_of_any_length_is_answered_at_once(labels):
    with cpu_budget(5):
        for text in (labels, labels[: MAX_SELECTOR_CHARS - 1]):
            try:
                parse_query(text, "", "voice")
            except StatusError:
                continue
            assert len(text) < MAX_SELECTOR_CHARS


def test_a_selector_has_at_most_its_requirements():
    pair = "voicefleet.dev/pool=agents"
    assert parse_query(",".join([pair] * MAX_REQUIREMENTS), "", "voice").matches(make_record(1, 1, pool="agents"))
    for labels, fields in (
        (",".join([pair] * (MAX_REQUIREMENTS + 1)), ""),
        ("", ",".join(["pool=a"] * (MAX_REQUIREMENTS + 1))),
    ):
        with pytest.raises(StatusError, match=f"at most {MAX_REQUIREMENTS}"):
            parse_query(labels, fields, "voice")


def test_an_offer_of_telephone_events_and_formats():
    lines = "a=rtpmap:1 telephone-event/48000\r\n" * 900
    formats = " ".join(["111", *["2"] * 15_000])
    offer = (
        "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF "
        + formats
        + "\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\n"
        + lines
        + "a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuv\r\na=fingerprint:sha-256 "
        + ":".join(["00"] * 32)
    )
    with cpu_budget(10):
        for _ in range(100):
            assert parse_offer_untrusted(offer).audio.telephone_event_type is None


@pytest.mark.parametrize("group", ["a=group:", "a=group", "a=group: "])
def test_an_empty_group_is_none(group):
    offer = CHROMIUM.replace("a=group:BUNDLE 0 1", group)
    assert group in offer
    assert parse_offer_untrusted(offer).group == ()

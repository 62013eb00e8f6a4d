"""What comes from outside: every reader gives a value or its one error, and works in proportion to what it reads."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cpu import cpu_budget
from voicefleet_contract.http_api import CreateSession
from voicefleet_contract.outside import (
    MAX_DEPTH,
    JsonError,
    OutsideError,
    decode_base64,
    decode_base64_url,
    decode_hex,
    is_digits,
    parse_integer,
    parse_json,
    parse_model,
    parse_number,
)
from voicefleet_contract.registry import Heartbeat
from voicefleet_dataplane.media.agent import AgentError
from voicefleet_dataplane.media.backend import CallConfig
from voicefleet_dataplane.media.media_stream import MediaStream
from voicefleet_dataplane.media.openai_realtime import OpenAIRealtime
from voicefleet_dataplane.media.realtime_profiles import Profile

ANY_TEXT = st.text(max_size=60) | st.text(st.sampled_from("0123456789²١eE+-._ \n="), max_size=60)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1e999", "more than a double holds"),
        ("[-1e999]", "more than a double holds"),
        ("NaN", "no number in JSON"),
        ('{"a": Infinity}', "no number in JSON"),
        ("9" * 41, "more than 40 digits"),
        ("9" * 5_000, "more than 40 digits"),
        ("0." + "0" * 1_000, "more than a double holds"),
        ("[" * 100_000, f"more than {MAX_DEPTH}"),
        ('{"a":' * (MAX_DEPTH + 1) + "1" + "}" * (MAX_DEPTH + 1), f"more than {MAX_DEPTH}"),
        (r'"\ud800"', "surrogate"),
        ('"\ud800"', "surrogate"),
        (b'"\xff"', "not UTF-8"),
        ('"a"'.encode("utf-16"), "not UTF-8"),
        ("[1, 2" + " " * 1_000_000, "more than 1000000 bytes"),
    ],
)
def test_json_that_others_could_not_read_is_refused(text, says):
    with pytest.raises(JsonError, match=says):
        parse_json(text, 1_000_000)


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_any_text_gives_json_or_its_error(text):
    try:
        value = parse_json(text, 1_000)
    except JsonError:
        return
    json.dumps(value, allow_nan=False, ensure_ascii=False).encode()


@given(ANY_TEXT)
def test_any_text_gives_a_number_or_its_error(text):
    for parse in (lambda: parse_integer(text, 1_000), lambda: parse_number(text)):
        try:
            value = parse()
        except OutsideError:
            continue
        assert text.isascii() and "_" not in text
        assert math.isfinite(value)


@pytest.mark.parametrize("text", ["", "²", "١", "1_0", " 1", "1\n", "-1", "+1", "1" * 20, "1001", "0x1"])
def test_what_is_no_whole_number_is_refused(text):
    with pytest.raises(OutsideError):
        parse_integer(text, 1_000)
    assert parse_integer("1000", 1_000) == 1_000


def test_digits_are_those_of_ascii():
    assert is_digits("0123456789")
    assert not any(map(is_digits, ("", "²", "١", "1a", " 1")))


@given(st.binary(max_size=100) | st.text(max_size=100))
def test_any_text_gives_bytes_or_its_error(text):
    for decode in (decode_base64, decode_base64_url):
        try:
            assert len(decode(text, 60)) <= 60
        except OutsideError:
            continue


@given(st.binary(max_size=100))
def test_what_was_encoded_is_decoded(raw):
    import base64

    assert decode_base64(base64.b64encode(raw).decode(), len(raw)) == raw
    assert decode_base64_url(base64.urlsafe_b64encode(raw), len(raw)) == raw
    assert decode_base64_url(base64.urlsafe_b64encode(raw).rstrip(b"=").decode(), len(raw)) == raw
    assert decode_hex(raw.hex(), len(raw)) == raw


@pytest.mark.parametrize("text", ["é", "a", "ab=c", "ab c", "ab==\n", "====", b"\xff\xff\xff\xff", "A" * 1_000])
def test_what_is_no_base64_is_refused(text):
    for decode in (decode_base64, decode_base64_url):
        with pytest.raises(OutsideError):
            decode(text, 100)


@pytest.mark.parametrize("text", ["é", "0", "0g", "0 0", "00" * 33])
def test_what_is_no_hexadecimal_is_refused(text):
    with pytest.raises(OutsideError):
        decode_hex(text, 32)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_no_model_takes_infinity(number):
    beat = '{"slot":1,"generation":1,"pool":"p","state":"active","sessions":1,"capacity":1,"at":%s}'
    assert parse_model(Heartbeat, beat % "1", 1_000).at == 1
    with pytest.raises(OutsideError) as caught:
        parse_model(Heartbeat, beat % number, 1_000)
    assert caught.value.param == "at"
    body = '{"request_id":"12345678","offer":"","candidates":[{"address":"127.0.0.1","port":1}],"session":{"a":[%s]}}'
    with pytest.raises(OutsideError) as caught:
        parse_model(CreateSession, body % number, 1_000)
    assert caught.value.param == "session"


def test_models_are_bounded_in_bytes():
    with pytest.raises(OutsideError, match="more than 10 bytes"):
        parse_model(Heartbeat, "{" + " " * 10, 10)


def test_json_costs_in_proportion_to_its_length():
    with cpu_budget(20):  # linear: under a second
        parse_json('{"a":"' + "\\u0041" * 600_000 + '"}', 4 << 20)
        parse_json("[" + "1e3," * 400_000 + "1]", 4 << 20)
        with pytest.raises(JsonError):
            parse_json("9" * (4 << 20), 4 << 20)


@pytest.mark.parametrize("audio", ["é", "AAAAA", "A*A=", "=" * 8])
def test_audio_of_an_agent_that_is_no_base64_is_its_one_error(audio):
    config = CallConfig("call_1", "acme", {})
    realtime = OpenAIRealtime(config, Profile.OPENAI, "m")
    delta = {"type": "response.output_audio.delta", "item_id": "i", "response_id": "r", "delta": audio}
    with pytest.raises(AgentError, match="is not base64"):
        realtime.receive(json.dumps(delta))
    with pytest.raises(AgentError, match="is not base64"):
        MediaStream(config).receive(json.dumps({"event": "media", "media": {"payload": audio}}))

"""Session objects as callers bring them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicefleet_contract.http_api import MAX_SESSION_BYTES, CreateSession
from voicefleet_contract.session_object import MAX_SESSION_DEPTH, SessionObjectError, parse_session_untrusted

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b'{"a": NaN}', "NaN is no number"),
        (b'{"a": -Infinity}', "Infinity is no number"),
        (b'{"a": 1e999}', "more than a double holds"),
        (rb'{"a": "\ud800"}', "surrogate"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, f"more than {MAX_SESSION_DEPTH}"),
        (b"[" * 50_000, f"more than {MAX_SESSION_DEPTH}"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "not JSON"),
        (b"[]", "a JSON object"),
        (b'"x"', "a JSON object"),
        (b'{"a": "' + b"x" * MAX_SESSION_BYTES + b'"}', f"at most {MAX_SESSION_BYTES} bytes"),
    ],
)
def test_what_is_wrong_is_said(text, says):
    with pytest.raises(SessionObjectError, match=says) as caught:
        parse_session_untrusted(text)
    assert caught.value.param == "session"


def test_only_realtime_sessions_are_taken():
    with pytest.raises(SessionObjectError, match="not 'transcription'") as caught:
        parse_session_untrusted(b'{"type": "transcription"}')
    assert caught.value.param == "session.type"


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_what_is_taken_reaches_the_owner_as_it_is(value):
    value.pop("type", None)
    session = parse_session_untrusted(json.dumps(value).encode())
    body = CreateSession(
        request_id="r" * 8, offer="v=0", candidates=[{"address": "127.0.0.1", "port": 1}], session=session
    )
    assert CreateSession.model_validate_json(body.model_dump_json()).session == value

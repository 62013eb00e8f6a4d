"""Parameters of the sessions API that are no numbers, tokens or names: 400 with the parameter's name, never a 500."""

import base64

import pytest

from voicefleet_operator.sessions_api.lists import _limit
from voicefleet_operator.sessions_api.pages import Place, decode_continue, encode_continue
from voicefleet_operator.sessions_api.registry import _place, _view
from voicefleet_operator.sessions_api.server import _WATCH_S, _seconds
from voicefleet_operator.sessions_api.status import StatusError
from voicefleet_operator.sessions_api.watch import parse_version

NO_NUMBERS = ["²", "١", "1.5", "-1", "1e3", " 1", "x", "9" * 5_000]


@pytest.mark.parametrize("text", NO_NUMBERS)
@pytest.mark.parametrize("parse", [_seconds, _limit, parse_version], ids=["timeoutSeconds", "limit", "resourceVersion"])
def test_what_is_no_number_is_a_400(parse, text):
    with pytest.raises(StatusError) as caught:
        parse(text)
    assert caught.value.code == 400
    assert len(str(caught.value)) < 200


def test_a_watch_lasts_as_asked_and_never_longer_than_ours():
    assert _seconds("5") == 5
    assert all(_WATCH_S <= _seconds(text) <= 2 * _WATCH_S for text in ("", "0", "9" * 18))


def _token(said: str) -> str:
    return base64.urlsafe_b64encode(said.encode()).decode()


@pytest.mark.parametrize(
    "token",
    [
        "é",
        "a",
        "====",
        "A" * 4_000,
        _token("[1,1,1,1,NaN]"),
        _token("[1,1e999,1,1,1]"),
        _token("[1,true,1,1,1]"),
        _token("[1,1,1,1,{}]"),
        _token("[1," + "9" * 30 + ',1,1,"x"]'),
        _token("[" * 200),
    ],
)
def test_a_token_that_is_not_ours_is_a_400(token):
    with pytest.raises(StatusError) as caught:
        decode_continue(token)
    assert caught.value.code == 400
    place = Place(3, 4, "call_x")
    assert decode_continue(encode_continue(7, place)) == (7, place)


def test_records_of_the_registry_that_are_none_are_passed_over():
    assert _place(b"1:2") == (1, 2)
    assert [_place(name) for name in ("²:1".encode(), b"1", b"1:-1", b"1:99999", b"\xff:1")] == [None] * 5
    beat = b'{"pool":"p","node":"n","sessions":%s,"counts":{},"state":"active","capacity":2}'
    assert _view(1, 2, beat % b"1").known
    for number in (b"1e999", b"NaN", b'"1"', b"true", b"[]", b"9" * 5_000):
        assert not _view(1, 2, beat % number).known
    for counts in (b"[]", b'{"a":1}', b'{"a":{"b":"c"}}'):
        assert not _view(1, 2, (beat % b"1").replace(b'"counts":{}', b'"counts":' + counts)).known

"""multipart/form-data: exactly the parts that were asked for, or a sentence that says what is wrong."""

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicefleet_dataplane.wire.form import FormError, parse_form_untrusted

FIELDS = frozenset(("sdp", "session"))
TYPE = "multipart/form-data; boundary=x"


def part(name: str, content: bytes = b"1", *headers: str) -> bytes:
    lines = [f'Content-Disposition: form-data; name="{name}"', *headers]
    return b"--x\r\n" + "\r\n".join(lines).encode() + b"\r\n\r\n" + content + b"\r\n"


END = b"--x--\r\n"
GOOD = part("sdp") + part("session")


def refused(body: bytes, content_type: str = TYPE) -> FormError:
    with pytest.raises(FormError) as caught:
        parse_form_untrusted(content_type, body, FIELDS)
    return caught.value


@pytest.mark.parametrize("sdp", [b"v=0\r\no=- 1\r\n", b"", b"\r\n", b"--", b"\xff\x00", b"a\r\n--y\r\nb"])
def test_parts_come_as_they_were_sent(sdp):
    body = part("sdp", sdp, "Content-Type: application/sdp") + part("session", b"{}") + END
    assert parse_form_untrusted(TYPE, body, FIELDS) == {"sdp": sdp, "session": b"{}"}


def test_what_an_http_client_sends_is_understood():
    files = {"sdp": (None, b"v=0\r\n", "application/sdp"), "session": (None, b"{}", "application/json")}
    request = httpx.Request("POST", "http://x", files=files)
    parts = parse_form_untrusted(request.headers["Content-Type"], request.read(), FIELDS)
    assert parts == {"sdp": b"v=0\r\n", "session": b"{}"}


def test_preamble_and_epilogue_mean_nothing():
    assert parse_form_untrusted(TYPE, b"hello\r\n" + GOOD + END + b"bye", FIELDS).keys() == FIELDS


@pytest.mark.parametrize(
    ("body", "says", "param"),
    [
        (b"", "does not end", None),
        (GOOD, "does not end", None),
        (END, "has no part 'sdp'", "sdp"),
        (part("sdp") + END, "has no part 'session'", "session"),
        (GOOD + part("sdp") + END, "two parts 'sdp'", "sdp"),
        (GOOD + part("model") + END, "has a part 'model'; it has exactly 'sdp' and 'session'", "model"),
        (GOOD + b"".join(part(f"n{i}") for i in range(2000)) + END, "has a part 'n0'", "n0"),
        (b"--x\r\nContent-Type: text/plain\r\n\r\n1\r\n" + END, "name=", None),
        (b'--x\r\nContent-Disposition: attachment; name="sdp"\r\n\r\n1\r\n' + END, "name=", None),
        (part("sdp", b"1", "Content-Transfer-Encoding: base64") + END, "send it as it is", None),
        (part("sdp", b"1", "X: " + "y" * 3_000) + END, "too many of them", None),
        (b"--xyz\r\n\r\n" + END, "does not end its line", None),
        (b"--x", "does not end", None),
    ],
)
def test_what_is_wrong_is_said(body, says, param):
    error = refused(body)
    assert says in str(error)
    assert error.param == param


@pytest.mark.parametrize(
    "content_type",
    ["multipart/form-data", "multipart/form-data; boundary=", "x; boundary=é", "x; boundary=" + "y" * 71],
)
def test_a_form_without_its_boundary_is_refused(content_type):
    assert "boundary" in str(refused(GOOD + END, content_type))


@given(st.binary(max_size=400), st.text(max_size=60))
def test_any_bytes_give_parts_or_an_error(noise, boundary):
    for body in (noise, GOOD[:20] + noise + END, part("sdp", noise) + part("session", noise) + END):
        for content_type in (TYPE, f"multipart/form-data; boundary={boundary}"):
            try:
                assert parse_form_untrusted(content_type, body, FIELDS).keys() == FIELDS
            except FormError:
                pass

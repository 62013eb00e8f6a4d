"""ICE fragments: what clients write, and what is no fragment."""

import pytest

from voicefleet_contract.addresses import Address
from voicefleet_dataplane.wire.sdp.fragment import (
    MAX_CANDIDATES,
    MAX_FRAGMENT_BYTES,
    Fragment,
    FragmentError,
    build_fragment,
    is_candidate,
    parse_fragment_untrusted,
)

UFRAG, PWD = "EsAw", "P2uYro0UCOQ4zxjKXaWCBui1"
HOST = "candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0 ufrag EsAw network-id 1"
# The example of RFC 9725, figure 3.
TRICKLE = "\r\n".join(
    [
        "a=group:BUNDLE 0 1",
        "m=audio 9 UDP/TLS/RTP/SAVPF 111",
        "a=mid:0",
        f"a=ice-ufrag:{UFRAG}",
        f"a=ice-pwd:{PWD}",
        f"a={HOST}",
        "a=candidate:473322822 1 tcp 1518280447 192.0.2.1 9 typ host tcptype active generation 0 ufrag EsAw network-id 1",
        "a=end-of-candidates",
        "",
    ]
)


def problem_of(text: str | bytes) -> str:
    with pytest.raises(FragmentError) as caught:
        parse_fragment_untrusted(text if isinstance(text, bytes) else text.encode())
    return str(caught.value)


def test_the_rfcs_example_is_understood():
    assert parse_fragment_untrusted(TRICKLE.encode()) == Fragment(UFRAG, PWD, candidates=2, is_last=True)


def test_credentials_may_stand_at_session_level_or_in_every_section_alike():
    lines = [f"a=ice-ufrag:{UFRAG}", f"a=ice-pwd:{PWD}", "m=audio 9 RTP/AVP 0", "a=mid:0", f"a={HOST}"]
    assert parse_fragment_untrusted("\r\n".join(lines).encode()).candidates == 1
    assert parse_fragment_untrusted("\n".join([*lines, *lines]).encode()).candidates == 2


def test_a_candidate_of_a_kind_that_we_do_not_know_is_no_error():
    odd = TRICKLE.replace("192.0.2.1 61764 typ host", "2b6e.local 61764 typ quic raddr :: rport 0")
    assert parse_fragment_untrusted(odd.encode()).candidates == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1"),
        ("v=0\r\n" + TRICKLE, "line 1"),
        ("<html>", "line 1"),
        (b"a=\xff", "ASCII"),
        (TRICKLE.replace(f"a=ice-ufrag:{UFRAG}\r\n", ""), "a=ice-ufrag"),
        (TRICKLE.replace(f"a=ice-pwd:{PWD}\r\n", ""), "a=ice-pwd"),
        (TRICKLE.replace(UFRAG, "Es"), "a=ice-ufrag"),
        (TRICKLE.replace(f"ufrag:{UFRAG}", "ufrag:E sAw"), "a=ice-ufrag"),
        (TRICKLE.replace(PWD, "short"), "a=ice-pwd"),
        (TRICKLE.replace(PWD, PWD + "\x00"), "line 5"),
        (TRICKLE + "a=ice-ufrag:another\r\n", "two values"),
        (TRICKLE.replace(" typ host generation 0 ufrag EsAw", ""), "line 6"),
        (TRICKLE.replace("candidate:1387637174", "candidate:" + "1" * 33), "line 6"),
        (TRICKLE + f"a={HOST}\r\n" * MAX_CANDIDATES, "at most"),
        (TRICKLE + "a=x\r\n" * MAX_FRAGMENT_BYTES, "at most"),
    ],
)
def test_what_is_no_fragment_is_said(text, said):
    assert said in problem_of(text)


def test_the_answer_to_a_restart_is_a_fragment_that_anybody_can_read():
    text = build_fragment("U" * 24, "P" * 32, ["0", "1"], [Address("192.0.2.7", 3478), Address("2001:db8::1", 3478)])
    assert parse_fragment_untrusted(text.encode()) == Fragment("U" * 24, "P" * 32, candidates=2, is_last=True)
    assert text.startswith("a=ice-lite\r\na=group:BUNDLE 0 1\r\nm=audio ")
    assert "a=candidate:1 1 udp 2130706431 192.0.2.7 3478 typ host\r\n" in text
    assert parse_fragment_untrusted(build_fragment("U" * 24, "P" * 32, [], []).encode()).candidates == 0


def test_candidates_outside_a_fragment_have_the_same_form():
    assert is_candidate(HOST)
    assert is_candidate(HOST.removeprefix("candidate:"))
    assert is_candidate("")  # RFC 8840: there are no more
    assert not is_candidate("candidate:1 1 udp")
    assert not is_candidate(HOST + "\n")

"""Any text is an offer that is answered by the rules, or is refused with the one error that says what to send instead."""

import re

from hypothesis import given
from hypothesis import strategies as st

from tests.support.offers import CHROMIUM, with_video_first
from tests.support.sdp_story import Part, answered, audio, data, offer, transport, video
from voicefleet_dataplane.wire.sdp.model import SdpError

_LINES = {name: text.split("\r\n") for name, text in (("chromium", CHROMIUM), ("video first", with_video_first()))}
_REFUSED = re.compile(r".{10,} \((RFC \d{4} section \d[\d.]*|a limit of this server)\): .{10,}", re.DOTALL)
_HOW = st.sampled_from(["replace", "append", "prepend", "drop", "repeat", "cut", "swap"])


def judge(text: str | bytes, *, keeps: bool = False) -> None:
    refused: SdpError | None = None
    try:
        answered(text if isinstance(text, str) else text.decode("latin-1"), keeps=keeps)
    except SdpError as error:
        refused = error
    assert refused is None or (refused.field and _REFUSED.fullmatch(str(refused))), refused


@given(st.one_of(st.text(), st.binary(), st.text(max_size=50).map(lambda text: "v=0\r\n" + text)))
def test_random_text_is_refused_with_the_one_error(text):
    judge(text)


@given(st.sampled_from(sorted(_LINES)), st.integers(0, 60), st.text(max_size=40), _HOW, st.booleans())
def test_a_bent_offer_is_answered_by_the_rules_or_refused_with_the_one_error(name, index, text, how, keeps):
    lines = list(_LINES[name])
    index %= len(lines)
    line = lines[index]
    bent = {
        "replace": [line[:2] + text],
        "append": [line + text],
        "prepend": [text + line],
        "drop": [],
        "repeat": [line, line],
        "cut": [line[: len(text)]],
        "swap": [lines[index - 1], line],
    }[how]
    lines[index : index + 1] = bent
    judge("\r\n".join(lines), keeps=keeps)


_MIDS = ("0", "1", "2", "3")
_PROFILES = st.sampled_from(["UDP/TLS/RTP/SAVPF", "RTP/SAVPF", "TCP/DTLS/RTP/SAVP", "RTP/AVP", "UDP/TLS/UDPTL"])
_LINE = st.sampled_from(
    [
        "a=sendrecv",
        "a=sendonly",
        "a=recvonly",
        "a=inactive",
        "a=bundle-only",
        "a=rtcp-rsize",
        "a=ptime:40",
        "a=sctp-port:0",
    ]
)


@st.composite
def _parts(draw: st.DrawFn, mid: str) -> Part:
    port, profile, lines = draw(st.sampled_from([9, 9, 9, 0])), draw(_PROFILES), draw(st.lists(_LINE, max_size=3))
    own = draw(st.sampled_from([transport(), transport("tRy2", setup="active"), ()]))
    form = draw(st.sampled_from(["webrtc-datachannel", "5000", "*"]))
    part = draw(
        st.sampled_from(
            [
                audio(mid, *lines, m=f"audio {port} {profile} 0 111", transport=own),
                audio(mid, *lines, m=f"audio {port} {profile} 111", transport=own),
                video(mid, *lines, m=f"video {port} {profile} 96", transport=own),
                data(mid, *lines, m=f"application {port} UDP/DTLS/SCTP {form}", transport=own),
            ]
        )
    )
    return part.without("a=rtpmap") if draw(st.integers(0, 9)) == 0 else part


@given(
    st.integers(1, 4).flatmap(lambda count: st.tuples(*(_parts(mid) for mid in _MIDS[:count]))),
    st.permutations(_MIDS),
    st.integers(0, 4),
    st.booleans(),
)
def test_any_sections_in_any_bundle_are_answered_by_the_rules(parts, mids, grouped, keeps):
    judge(offer(*parts, bundle=" ".join(mids[:grouped])), keeps=keeps)

"""Offers: what is taken from a good one, and what a caller is told about a bad one."""

import re

import pytest

from tests.support.offers import CHROMIUM, DIGEST, VIDEO_SECTION, with_video_first, without
from voicefleet_dataplane.wire.sdp.lines import MAX_OFFER_BYTES
from voicefleet_dataplane.wire.sdp.model import Direction, Fingerprint, SdpError, SdpProblem, SetupRole
from voicefleet_dataplane.wire.sdp.offer import parse_offer_untrusted

# What is wrong, by which rule, and what to send instead.
RULE = re.compile(r".{10,} \((RFC \d{4} section \d[\d.]*|a limit of this server)\): .{10,}")


def problem_of(offer) -> SdpError:
    with pytest.raises(SdpError) as caught:
        parse_offer_untrusted(offer)
    return caught.value


def test_a_browsers_offer_is_understood():
    offer = parse_offer_untrusted(CHROMIUM)
    assert (offer.ice_ufrag, offer.ice_pwd) == ("aB3+", "0123456789abcdefghijkl+/")
    assert offer.fingerprints == (Fingerprint("sha-256", b"\xab" * 32),)
    assert offer.setup is SetupRole.ACTPASS
    assert offer.audio.payload_type == 111
    assert offer.audio.wishes.inband_fec
    assert offer.audio.mid_extension_id == 4
    assert offer.audio.direction is Direction.SENDRECV
    assert offer.data is not None
    assert offer.data.sctp_port == 5_000
    assert offer.data.max_message_bytes == 262_144


def test_transport_attributes_may_stand_at_session_level():
    lines = [
        f"a=fingerprint:sha-256 {DIGEST}",
        "a=ice-ufrag:aB3+",
        "a=ice-pwd:0123456789abcdefghijkl+/",
        "a=setup:active",
    ]
    stripped = CHROMIUM
    for name in ("a=fingerprint", "a=ice-ufrag", "a=ice-pwd", "a=setup"):
        stripped = without(name, stripped)
    offer = parse_offer_untrusted(stripped.replace("t=0 0\r\n", "t=0 0\r\n" + "\r\n".join(lines) + "\r\n"))
    assert offer.ice_ufrag == "aB3+"
    assert offer.setup is SetupRole.ACTIVE


def test_bare_newlines_and_bytes_are_taken_too():
    assert parse_offer_untrusted(CHROMIUM.replace("\r\n", "\n").encode()) == parse_offer_untrusted(CHROMIUM)


def test_video_is_kept_as_a_section_to_reject():
    offer = parse_offer_untrusted(with_video_first())
    assert [section.kind for section in offer.sections] == ["video", "audio", "application"]
    assert offer.audio.index == 1


def test_an_offer_of_audio_alone_needs_no_bundle():
    alone = without("a=group", CHROMIUM.split("m=application")[0])
    offer = parse_offer_untrusted(alone)
    assert offer.group == ()
    assert offer.data is None


def test_a_stronger_fingerprint_beside_sha_1_is_enough():
    offer = parse_offer_untrusted(
        CHROMIUM.replace("a=setup", "a=fingerprint:sha-1 " + ":".join(["00"] * 20) + "\r\na=setup")
    )
    assert [fingerprint.algorithm for fingerprint in offer.fingerprints] == ["sha-256"]


def test_several_fingerprints_are_all_kept():
    sha_384 = "a=fingerprint:SHA-384 " + ":".join(["0c"] * 48)
    offer = parse_offer_untrusted(CHROMIUM.replace("a=setup", sha_384 + "\r\na=setup"))
    assert offer.fingerprints[1] == Fingerprint("sha-384", b"\x0c" * 48)


@pytest.mark.parametrize("name", ["a=fingerprint", "a=ice-ufrag", "a=ice-pwd", "a=rtcp-mux"])
def test_a_missing_line_is_named(name):
    error = problem_of(without(name))
    assert error.problem is SdpProblem.UNSUPPORTED
    assert error.field == name
    assert name in str(error)


@pytest.mark.parametrize(
    ("offer", "problem", "field"),
    [
        (CHROMIUM.replace("m=audio", "m=video"), SdpProblem.UNSUPPORTED, "m=audio"),
        (CHROMIUM.replace("m=audio 9", "m=audio 0"), SdpProblem.UNSUPPORTED, "m=audio"),
        (CHROMIUM.replace("m=audio 9 UDP/TLS/RTP/SAVPF", "m=audio 9 RTP/XYZ"), SdpProblem.UNSUPPORTED, "m=audio"),
        (without("a=rtpmap:111"), SdpProblem.UNSUPPORTED, "a=rtpmap"),
        (
            CHROMIUM.replace(f"sha-256 {DIGEST}", "sha-1 " + ":".join(["00"] * 20)),
            SdpProblem.UNSUPPORTED,
            "a=fingerprint",
        ),
        (CHROMIUM.replace(DIGEST, "AB:CD"), SdpProblem.MALFORMED, "a=fingerprint"),
        (CHROMIUM.replace(DIGEST, "not hex"), SdpProblem.MALFORMED, "a=fingerprint"),
        (CHROMIUM.replace("a=ice-ufrag:aB3+", "a=ice-ufrag:a"), SdpProblem.MALFORMED, "a=ice-ufrag"),
        (CHROMIUM.replace("a=ice-pwd:0123456789abcdefghijkl+/", "a=ice-pwd:short"), SdpProblem.MALFORMED, "a=ice-pwd"),
        (CHROMIUM.replace("a=setup:actpass", "a=setup:holdconn"), SdpProblem.UNSUPPORTED, "a=setup"),
        (CHROMIUM.replace("t=0 0", "t=0 0\r\na=ice-lite"), SdpProblem.UNSUPPORTED, "a=ice-lite"),
        (CHROMIUM.replace("a=mid:1", "a=mid:0"), SdpProblem.MALFORMED, "a=mid"),
        (CHROMIUM.replace("a=sctp-port:5000", "a=sctp-port:99999"), SdpProblem.MALFORMED, "a=sctp-port"),
        (CHROMIUM.replace("m=audio 9", "m=audio " + "9" * 5_000), SdpProblem.MALFORMED, "m="),
        (CHROMIUM.replace("m=audio 9", "m=audio ٣"), SdpProblem.MALFORMED, "m="),
        (CHROMIUM + VIDEO_SECTION.replace("a=mid:v\r\n", "") * 40, SdpProblem.TOO_LARGE, "m="),
        ("", SdpProblem.MALFORMED, "v="),
        ("hello", SdpProblem.MALFORMED, "v="),
        ('{"sdp":"v=0"}', SdpProblem.MALFORMED, "v="),
        ("v=0\r\nnonsense\r\n", SdpProblem.MALFORMED, "sdp"),
        (b"v=0\r\n\xff\xfe", SdpProblem.MALFORMED, "sdp"),
        ("v=0\r\n" + "a=x\r\n" * 5_000, SdpProblem.TOO_LARGE, "sdp"),
        ("v=0\r\n" + "a" * MAX_OFFER_BYTES, SdpProblem.TOO_LARGE, "sdp"),
    ],
)
def test_a_bad_offer_names_its_field(offer, problem, field):
    error = problem_of(offer)
    assert (error.problem, error.field) == (problem, field)
    assert RULE.search(str(error)), error

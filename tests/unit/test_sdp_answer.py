"""Answers: every m-line answered, one transport, nothing that a browser would need and not find."""

from tests.support.offers import CHROMIUM, with_video_first, without
from voicefleet_contract.addresses import Address
from voicefleet_dataplane.wire.sdp.answer import Answer, build_answer, choose_setup
from voicefleet_dataplane.wire.sdp.model import Fingerprint, SetupRole
from voicefleet_dataplane.wire.sdp.offer import parse_offer_untrusted

ANSWER = Answer(
    session_id=7,
    ice_ufrag="U" * 24,
    ice_pwd="P" * 32,
    fingerprint=Fingerprint("sha-256", b"\x01" * 32),
    setup=SetupRole.ACTIVE,
    candidates=[Address("192.0.2.1", 3478), Address("2001:db8::1", 3478)],
    ssrc=4711,
    cname="vf",
    stream_id="agent",
    track_id="voice",
)


def sections_of(answer: str) -> list[list[str]]:
    session, *media = answer.split("\r\nm=")
    return [session.split("\r\n"), *(("m=" + section).split("\r\n") for section in media)]


def test_an_answer_to_a_browser_carries_what_it_needs():
    session, audio, data = sections_of(build_answer(parse_offer_untrusted(CHROMIUM), ANSWER))
    assert {"a=ice-lite", "a=group:BUNDLE 0 1"} <= set(session)
    assert audio[0] == "m=audio 3478 UDP/TLS/RTP/SAVPF 111 110"
    assert {
        "a=ice-ufrag:" + "U" * 24,
        "a=ice-pwd:" + "P" * 32,
        "a=setup:active",
        "a=mid:0",
        "a=rtcp-mux",
        "a=sendrecv",
        "a=rtpmap:111 opus/48000/2",
        "a=fmtp:111 minptime=10;useinbandfec=1",
        "a=rtpmap:110 telephone-event/48000",
        "a=fmtp:110 0-15",
        "a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid",
        "a=msid:agent voice",
        "a=ssrc:4711 cname:vf",
        "a=candidate:1 1 udp 2130706431 192.0.2.1 3478 typ host",
        "a=candidate:2 1 udp 2130706175 2001:db8::1 3478 typ host",
        "a=end-of-candidates",
    } <= set(audio)
    assert data[0] == "m=application 3478 UDP/DTLS/SCTP webrtc-datachannel"
    assert {"a=mid:1", "a=sctp-port:5000", "a=max-message-size:262144"} <= set(data)


def test_every_accepted_section_carries_the_candidates():
    _, *accepted = sections_of(build_answer(parse_offer_untrusted(CHROMIUM), ANSWER))
    for section in accepted:
        assert sum(line.startswith("a=candidate") for line in section) == 2
        assert "a=end-of-candidates" in section


def test_feedback_that_we_cannot_honour_is_not_promised():
    assert "rtcp-fb" not in build_answer(parse_offer_untrusted(CHROMIUM), ANSWER)


def test_a_keypad_on_a_clock_that_we_do_not_count_is_not_taken():
    slow = CHROMIUM.replace("telephone-event/48000", "telephone-event/16000").replace("event/8000", "event/32000")
    _, audio, _ = sections_of(build_answer(parse_offer_untrusted(slow), ANSWER))
    assert audio[0] == "m=audio 3478 UDP/TLS/RTP/SAVPF 111"
    assert not any("telephone-event" in line for line in audio)


def test_video_is_rejected_in_its_place_and_leaves_the_bundle():
    offered = with_video_first().replace("BUNDLE v 0 1", "BUNDLE 0 1 v")
    session, video, audio, _ = sections_of(build_answer(parse_offer_untrusted(offered), ANSWER))
    assert "a=group:BUNDLE 0 1" in session
    assert video == [
        "m=video 0 UDP/TLS/RTP/SAVPF 96",
        "c=IN IP4 0.0.0.0",
        "a=mid:v",
        "a=inactive",
        "a=rtpmap:96 VP8/90000",
    ]
    assert any(line.startswith("a=candidate") for line in audio)


def test_video_that_the_offerer_has_tagged_stays_inactive():
    session, video, *_ = sections_of(build_answer(parse_offer_untrusted(with_video_first()), ANSWER))
    assert "a=group:BUNDLE v 0 1" in session
    assert video[0] == "m=video 3478 UDP/TLS/RTP/SAVPF 96"
    assert {"a=mid:v", "a=inactive", "a=rtcp-mux", "a=rtpmap:96 VP8/90000", "a=setup:active"} <= set(video)


def test_directions_are_answered_from_our_side():
    for offered, answered in (("sendonly", "recvonly"), ("recvonly", "sendonly"), ("inactive", "inactive")):
        offer = parse_offer_untrusted(CHROMIUM.replace("a=sendrecv", f"a={offered}"))
        assert f"a={answered}" in sections_of(build_answer(offer, ANSWER))[1]


def test_an_offer_without_mid_extension_gets_none():
    offer = parse_offer_untrusted(without("a=extmap:4"))
    assert "extmap" not in build_answer(offer, ANSWER)


def test_our_role_follows_the_offer_and_our_preference():
    assert choose_setup(SetupRole.ACTPASS, prefer_active=True) is SetupRole.ACTIVE
    assert choose_setup(SetupRole.ACTPASS, prefer_active=False) is SetupRole.PASSIVE
    assert choose_setup(SetupRole.ACTIVE, prefer_active=True) is SetupRole.PASSIVE
    assert choose_setup(SetupRole.PASSIVE, prefer_active=False) is SetupRole.ACTIVE

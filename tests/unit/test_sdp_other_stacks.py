"""Offers as other stacks write them: sections judged together, one transport, answers that every stack reads.

Each kind was refused, or answered wrongly, before wire/sdp read sections together.
"""

import itertools

import pytest

from tests.support.offers import CHROMIUM, DIGEST
from tests.support.sdp_story import answered, audio, data, offer, transport, video
from voicefleet_dataplane.core.call.negotiation import Terms, agree
from voicefleet_dataplane.wire.sdp.lines import Attributes
from voicefleet_dataplane.wire.sdp.model import Direction, SdpError, SetupRole
from voicefleet_dataplane.wire.sdp.offer import DATA_PROFILES, RTP_PROFILES, parse_offer_untrusted

OTHER_DIGEST = ":".join(["CD"] * 32)


def shapes(sections: list[Attributes]) -> list[str]:
    """Kind, whether it has a port, direction, of each section."""
    return [
        f"{one.kind}{'' if one.port else ' rejected'}"
        f"{''.join(f' {way}' for way in Direction if one.port and one.has(way))}"
        for one in sections
    ]


# ---- the transport: tagged section, group, mux


def test_transport_attributes_come_from_the_tagged_section():
    """A bundle-only section has none (RFC 9143 section 7.2.1)."""
    text = offer(
        video("0", "a=recvonly"),
        audio("1", "a=bundle-only", m="audio 0 UDP/TLS/RTP/SAVPF 111", transport=()).without("a=rtcp-mux"),
        bundle="0 1",
    )
    understood, sections, group = answered(text)
    assert (understood.audio.index, understood.ice_ufrag) == (1, "tRy1")
    assert shapes(sections) == ["video inactive", "audio sendrecv"]
    assert group == "0 1"


def test_where_sections_differ_the_tagged_one_counts():
    text = offer(
        audio("0", transport=transport("Aud1", digest=OTHER_DIGEST, setup="active")),
        data("1", transport=transport("Tag1", setup="passive")),
        bundle="1 0",
    )
    understood, _, group = answered(text)
    assert (understood.ice_ufrag, understood.setup) == ("Tag1", SetupRole.PASSIVE)
    assert understood.fingerprints[0].digest.hex(":").upper() == DIGEST
    assert group == "1 0"


def test_a_tag_that_the_client_has_rejected_is_none():
    text = offer(video("0", m="video 0 UDP/TLS/RTP/SAVPF 96", transport=transport("Gone")), audio("1"), bundle="0 1")
    understood, sections, group = answered(text)
    assert understood.ice_ufrag == "tRy1"
    assert (shapes(sections), group) == (["video rejected", "audio sendrecv"], "1")


def test_the_group_that_the_audio_is_in_is_the_one():
    text = offer(video("0"), audio("1"), data("2"), bundle="0", session=["a=group:BUNDLE 2 1 nobody"])
    understood, sections, group = answered(text)
    assert understood.data is not None
    assert shapes(sections) == ["video rejected", "audio sendrecv", "application"]
    assert group == "2 1"


def test_a_tagged_section_that_is_no_rtp_keeps_its_port_too():
    text = offer(data("0", m="application 9 UDP/BFCP *"), audio("1"), bundle="0 1")
    _, sections, group = answered(text)
    assert (sections[0].formats, sections[0].has("inactive"), group) == ("*", True, "0 1")


@pytest.mark.parametrize("bundle", ["", "1", "1 nobody"])
def test_without_a_bundle_audio_is_taken_and_the_rest_rejected(bundle):
    others = (video("1", transport=transport("tRy2")), data("2", transport=transport("tRy3")))
    understood, sections, group = answered(offer(audio("0"), *others, bundle=bundle))
    assert shapes(sections) == ["audio sendrecv", "video rejected", "application rejected"]
    assert (understood.ice_ufrag, group) == ("tRy1", "")
    assert understood.lost_data == 2
    assert "RFC 9143" in (sections[2].first("voicefleet-rejected") or "")
    assert agree(understood, Terms(), call_id="", request_id="", cname="").lost_data


def test_data_channels_that_are_taken_or_not_offered_are_not_lost():
    for text in (
        CHROMIUM,
        offer(audio("0")),
        offer(audio("0"), data("1", m="application 0 UDP/DTLS/SCTP webrtc-datachannel")),
    ):
        assert parse_offer_untrusted(text).lost_data is None


def test_one_section_of_a_bundle_speaks_of_mux_for_all():
    text = offer(video("0"), audio("1").without("a=rtcp-mux"), bundle="0 1")
    assert answered(text)[0].audio.index == 1
    with pytest.raises(SdpError, match="rtcpMuxPolicy"):
        parse_offer_untrusted(offer(video("0"), audio("1").without("a=rtcp-mux"), bundle="1"))


# ---- which audio section


@pytest.mark.parametrize(("first", "second"), list(itertools.product(Direction, Direction)))
@pytest.mark.parametrize("bundle", ["", "0 1", "1 0"])
def test_of_two_audio_sections_the_one_with_more_to_say_is_taken(first, second, bundle):
    order = [Direction.SENDRECV, Direction.SENDONLY, Direction.RECVONLY, Direction.INACTIVE]
    text = offer(audio("0", f"a={first}"), audio("1", f"a={second}", transport=transport("tRy2")), bundle=bundle)
    understood, _, _ = answered(text)
    best = min(order.index(first), order.index(second))
    assert understood.audio.direction is order[best]
    assert understood.audio.mid == ("0" if order.index(first) == best else "1")


def test_a_player_takes_the_section_that_it_can_hear():
    text = offer(audio("0", "a=sendonly"), audio("1", "a=recvonly"), bundle="0 1")
    assert parse_offer_untrusted(text, hears=True).audio.mid == "1"
    assert parse_offer_untrusted(text).audio.mid == "0"


def test_a_running_call_keeps_its_section():
    text = offer(audio("0", "a=inactive"), audio("1"), bundle="0 1")
    assert parse_offer_untrusted(text, audio_mid="0").audio.mid == "0"
    assert parse_offer_untrusted(text, audio_mid="gone").audio.mid == "1"


def test_one_without_opus_is_never_taken():
    g711 = audio("0", m="audio 9 UDP/TLS/RTP/SAVPF 0").without("a=rtpmap")
    understood, sections, _ = answered(offer(g711, audio("1", "a=inactive"), bundle="1 0"))
    assert (understood.audio.mid, sections[0].formats) == ("1", "0")


@pytest.mark.parametrize("direction", list(Direction))
def test_the_sessions_direction_is_every_sections_own(direction):
    understood, sections, _ = answered(offer(audio("0"), session=[f"a={direction}"]))
    assert understood.audio.direction is direction
    assert sections[0].has(direction.reversed)
    assert (
        answered(offer(audio("0", "a=sendonly"), session=[f"a={direction}"]))[0].audio.direction is Direction.SENDONLY
    )


# ---- profiles


@pytest.mark.parametrize("profile", sorted(RTP_PROFILES))
@pytest.mark.parametrize("keeps", [False, True])
def test_every_profile_direction_and_bundle(profile, keeps):
    """The table: what is answered is readable, has the offerer's tag, and takes audio wherever that can be."""
    bundles = ("", "0 1 2", "1 0 2", "2 1", "0", "1 2", "2")
    for data_profile, direction, bundle in itertools.product(sorted(DATA_PROFILES), Direction, bundles):
        form = "5000" if data_profile == "DTLS/SCTP" else "webrtc-datachannel"
        text = offer(
            audio("0", f"a={direction}", m=f"audio 9 {profile} 111"),
            video("1", m=f"video 9 {profile} 96 97"),
            data("2", m=f"application 9 {data_profile} {form}"),
            bundle=bundle,
        )
        understood, sections, group = answered(text, keeps=keeps)
        with_audio = bundle.split() if "0" in bundle.split() else []
        assert understood.audio.index == 0
        assert sections[0].has(direction.reversed)
        assert (understood.data is not None) == ("2" in with_audio)
        kept = "1" in with_audio and (keeps or bundle.startswith("1"))
        assert bool(sections[1].port) == kept
        assert group == " ".join(mid for mid in with_audio if mid != "1" or kept)
        if understood.data is not None:
            assert sections[2].formats == form
            assert sections[2].has("sctpmap") == understood.data.with_sctpmap == (form == "5000")


@pytest.mark.parametrize("profile", ["RTP/SAVPFF", "UDP/TLS/UDPTL", "TCP/RTP/AVP", "UDP/DTLS/SCTP"])
def test_other_profiles_are_named(profile):
    with pytest.raises(SdpError, match="RFC 9429 section 5.1.2"):
        parse_offer_untrusted(offer(audio("0", m=f"audio 9 {profile} 111")))


def test_unencrypted_rtp_is_said_of_what_is():
    plain = offer(audio("0", m="audio 9 RTP/AVP 111", transport=transport()[:2]))
    with pytest.raises(SdpError, match="unencrypted RTP"):
        parse_offer_untrusted(plain)
    sdes = offer(
        audio("0", "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x", m="audio 9 RTP/SAVP 111", transport=transport()[:2])
    )
    with pytest.raises(SdpError, match="a=crypto") as caught:
        parse_offer_untrusted(sdes)
    assert "unencrypted" not in str(caught.value)


def test_g_711_alone_is_refused_in_words():
    text = offer(audio("0", "a=rtpmap:0 PCMU/8000", m="audio 9 UDP/TLS/RTP/SAVPF 0 8").without("a=rtpmap:111"))
    with pytest.raises(SdpError, match=r"G\.711 and no opus.*RFC 7874 section 3.*a=rtpmap:111 opus/48000/2") as caught:
        parse_offer_untrusted(text)
    assert caught.value.field == "a=rtpmap"


# ---- data channels before RFC 8841


@pytest.mark.parametrize("profile", sorted(DATA_PROFILES))
@pytest.mark.parametrize("lines", [(), ("a=sctpmap:5001 webrtc-datachannel 1024",)])
def test_the_old_form_of_data_channels_is_taken_and_answered_in_it(profile, lines):
    understood, sections, _ = answered(
        offer(audio("0"), data("1", *lines, m=f"application 9 {profile} 5001"), bundle="0 1")
    )
    assert understood.data is not None
    assert understood.data.sctp_port == 5_001
    assert (sections[1].formats, sections[1].first("sctpmap")) == ("5000", "5000 webrtc-datachannel 1024")
    assert not sections[1].has("sctp-port")


@pytest.mark.parametrize("form", ["0", "70000", "webrtc-audio"])
@pytest.mark.parametrize("lines", [(), ("a=sctpmap:5000 bfcp 2",), ("a=sctp-port:0",)])
def test_what_is_no_data_channel_is_rejected(form, lines):
    text = offer(audio("0"), data("1", *lines, m=f"application 9 DTLS/SCTP {form}"), bundle="0 1")
    understood, sections, _ = answered(text)
    assert (understood.data, sections[1].port) == (None, 0)


def test_any_size_of_message_is_as_good_as_a_large_one():
    understood, _, _ = answered(offer(audio("0"), data("1", "a=max-message-size:0"), bundle="0 1"))
    assert understood.data is not None
    assert understood.data.max_message_bytes > 1 << 32


# ---- lines


@pytest.mark.parametrize(
    "bend",
    [
        lambda text: text.replace("\r\n", " \r\n"),
        lambda text: text.replace("\r\n", "\t\r\n"),
        lambda text: text.replace("\r\n", "\r"),
        lambda text: text.replace("\r\n", "\n\n"),
        lambda text: text.replace("\r\n", "\x00\r\n"),
        lambda text: text.replace("\r\n", "\r\n    "),
        lambda text: "\ufeff" + text,
        lambda text: "\r\n" + text,
        lambda text: text.rstrip(),
        lambda text: text.replace(" ", "\t"),
        lambda text: text.replace(" ", "  "),
        lambda text: text.replace("s=-", "s=caf\xe9 \x07\u2028"),
        lambda text: text.replace("a=fingerprint:sha-256 ", "a=fingerprint: SHA-256   "),
        lambda text: text.replace("a=setup:actpass", "a=setup: ActPass "),
        lambda text: text.replace("m=audio 9 ", "m=audio 9/1 "),
    ],
)
def test_harmless_bytes_change_nothing(bend):
    bent = bend(CHROMIUM)
    assert parse_offer_untrusted(bent) == parse_offer_untrusted(CHROMIUM)
    assert answered(bent)[0].audio.payload_type == 111


def test_an_encoding_has_its_name_in_any_case():
    assert answered(CHROMIUM.replace("opus/48000/2", "OPUS/48000/2"))[0].audio.payload_type == 111


def test_text_that_is_not_utf_8_is_harmless_where_nobody_reads_it():
    latin = CHROMIUM.replace("s=-", "s=caf\xe9").encode("latin-1")
    assert parse_offer_untrusted(latin) == parse_offer_untrusted(CHROMIUM)


@pytest.mark.parametrize(
    ("setup", "role"),
    [("actpass", "actpass"), ("active", "active"), ("PASSIVE", "passive"), (None, "active")],
)
@pytest.mark.parametrize("level", ["session", "section"])
def test_setup_variants(setup, role, level):
    line = [] if setup is None else [f"a=setup:{setup}"]
    at_session = level == "session"
    part = audio("0", *([] if at_session else line), transport=transport()[:3])
    text = offer(part, session=line if at_session else [])
    assert parse_offer_untrusted(text).setup == role


@pytest.mark.parametrize(
    ("offered", "ours"),
    [("4", "4"), ("4/sendrecv", "4/sendrecv"), ("4/recvonly", "4/sendonly"), ("4/sendonly", None), ("15", None)],
)
def test_an_extension_goes_the_way_that_the_client_reads_it(offered, ours):
    uri = "urn:ietf:params:rtp-hdrext:sdes:mid"
    _, sections, _ = answered(offer(audio("0", f"a=extmap:{offered} {uri}")))
    assert sections[0].all("extmap") == ([f"{ours} {uri}"] if ours else [])


def test_reduced_size_reports_are_agreed_to_where_offered():
    assert answered(offer(audio("0", "a=rtcp-rsize")))[1][0].has("rtcp-rsize")
    assert not answered(offer(audio("0")))[1][0].has("rtcp-rsize")


# ---- codecs


@pytest.mark.parametrize("encoding", ["telephone-event/8000", "telephone-event/8000/1", "Telephone-Event/8000"])
def test_a_keypad_at_8_khz_is_answered_on_its_own_clock(encoding):
    understood, sections, _ = answered(
        offer(audio("0", f"a=rtpmap:101 {encoding}", "a=fmtp:101 0-15", m="audio 9 UDP/TLS/RTP/SAVPF 111 101"))
    )
    assert (understood.audio.telephone_event_type, understood.audio.telephone_event_hz) == (101, 8_000)
    assert "101 telephone-event/8000" in sections[0].all("rtpmap")
    both = answered(CHROMIUM)[0].audio
    assert (both.telephone_event_type, both.telephone_event_hz) == (110, 48_000)


WISHES = "stereo=1;sprop-stereo=1; maxaveragebitrate=510000 ;cbr=1;usedtx=1;useinbandfec=0;maxplaybackrate=8000"


def test_our_answer_says_what_we_want_and_is_no_echo():
    text = offer(audio("0", "a=ptime:60", "a=maxptime:10").without("a=fmtp")).replace(
        "a=rtcp-mux", f"a=rtcp-mux\r\na=fmtp:111 {WISHES}"
    )
    understood, sections, _ = answered(text)
    assert sections[0].all("fmtp") == ["111 minptime=10;useinbandfec=1"]
    assert (sections[0].first("ptime"), sections[0].first("maxptime")) == ("20", None)
    wishes = understood.audio.wishes
    assert (wishes.dtx, wishes.cbr, wishes.inband_fec) == (True, True, False)
    assert (wishes.max_bitrate, wishes.max_playback_hz, wishes.packet_ms) == (510_000, 8_000, 10)


@pytest.mark.parametrize(
    ("lines", "packet_ms"),
    [
        ((), 20),
        (("a=ptime:20",), 20),
        (("a=ptime:10",), 10),
        (("a=ptime:3",), 10),
        (("a=ptime:30",), 20),
        (("a=ptime:40",), 40),
        (("a=ptime:120",), 60),
        (("a=maxptime:60",), 20),
        (("a=ptime:60", "a=maxptime:40"), 40),
        (("a=ptime:0",), 20),
        (("a=ptime:long",), 20),
    ],
)
def test_how_long_a_packet_may_be(lines, packet_ms):
    assert answered(offer(audio("0", *lines)))[0].audio.wishes.packet_ms == packet_ms


@pytest.mark.parametrize("value", ["", "x", "-1", "99999999999999999999", "٣"])
def test_a_wish_that_makes_no_sense_was_not_said(value):
    text = offer(audio("0")).replace("minptime=10", f"maxaveragebitrate={value};usedtx={value};maxplaybackrate={value}")
    wishes = answered(text)[0].audio.wishes
    assert (wishes.max_bitrate, wishes.dtx, wishes.max_playback_hz) == (None, False, 48_000)


def test_a_rejected_section_without_a_map_has_a_format_that_everybody_knows():
    for formats in ("96 97", "34"):
        part = video("1", m=f"video 9 UDP/TLS/RTP/SAVPF {formats}").without("a=rtpmap")
        _, sections, _ = answered(offer(audio("0"), part, bundle="0 1"))
        assert (sections[1].port, sections[1].formats) == (0, "0")

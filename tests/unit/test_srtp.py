"""SRTP: every profile both ways; what does not open has a reason and no consequence."""

import os

import pytest

from voicefleet_dataplane.core.call.srtp import PROFILES, Srtp, SrtpFailure, split_keying_material
from voicefleet_dataplane.wire.rtcp import SenderInfo, build_report
from voicefleet_dataplane.wire.rtp import RtpPacket, build_rtp


def make_pair(profile=PROFILES[0]):
    material = os.urandom(profile.keying_material_bytes)
    return (
        Srtp(split_keying_material(profile, material, we_are_client=True)),
        Srtp(split_keying_material(profile, material, we_are_client=False)),
    )


def rtp(sequence, ssrc=77):
    return build_rtp(RtpPacket(False, 111, sequence, sequence * 960, ssrc, b"opus" * 20))


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_packets_pass_both_ways(profile):
    for sender, receiver in (make_pair(profile), make_pair(profile)[::-1]):
        protected = sender.protect(rtp(1))
        assert protected != rtp(1)
        assert receiver.unprotect_untrusted(protected) == rtp(1)


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_reports_pass_both_ways(profile):
    report = build_report(SenderInfo(77, 1 << 40, 960, 1, 80), (), "cname")
    for sender, receiver in (make_pair(profile), make_pair(profile)[::-1]):
        assert receiver.unprotect_rtcp_untrusted(sender.protect_rtcp(report)) == report


def test_a_changed_packet_fails_authentication_and_the_next_one_opens():
    sender, receiver = make_pair()
    protected = sender.protect(rtp(1))
    assert receiver.unprotect_untrusted(protected[:-1] + bytes((protected[-1] ^ 1,))) is None
    assert receiver.failure is SrtpFailure.AUTHENTICATION
    assert receiver.unprotect_untrusted(protected) == rtp(1)


def test_a_replayed_packet_is_named_a_replay_and_the_next_one_opens():
    sender, receiver = make_pair()
    protected = sender.protect(rtp(1))
    assert receiver.unprotect_untrusted(protected) is not None
    assert receiver.unprotect_untrusted(protected) is None
    assert receiver.failure is SrtpFailure.REPLAY
    assert receiver.unprotect_untrusted(sender.protect(rtp(2))) == rtp(2)


def test_a_packet_too_short_or_too_long_for_srtp_is_malformed():
    receiver = make_pair()[1]
    for garbage in (b"", b"\x80", bytes(11), b"\x80" * 3_000):
        assert receiver.unprotect_untrusted(garbage) is None
        assert receiver.unprotect_rtcp_untrusted(garbage) is None


def test_sequence_numbers_wrap():
    sender, receiver = make_pair()
    for sequence in (65_534, 65_535, 0, 1):
        assert receiver.unprotect_untrusted(sender.protect(rtp(sequence))) == rtp(sequence)


def test_keys_do_not_show_in_a_traceback():
    material = bytes(range(56))
    keys = split_keying_material(PROFILES[0], material, we_are_client=True)
    assert keys.send.hex() not in repr(keys)
    assert str(keys.send) not in repr(keys)

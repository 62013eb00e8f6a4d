"""RTP and RTCP bytes."""

import pytest

from voicefleet_dataplane.wire.rtcp import ReportBlock, SenderInfo, build_bye, build_report, parse_rtcp
from voicefleet_dataplane.wire.rtp import RtpPacket, build_mid_extension, build_rtp, parse_rtp

PACKET = RtpPacket(True, 111, 65_535, 0xFFFFFFFF, 0xDEADBEEF, b"payload")
BLOCK = ReportBlock(0x1234, 25, -3, 70_000, 480, 0xABCD1234, 65_536)
SENDER = SenderInfo(0x99, 0x0123456789ABCDEF, 960, 10, 1_000)


def test_a_packet_comes_back_as_it_was():
    assert parse_rtp(build_rtp(PACKET)) == PACKET


def test_an_extension_is_stepped_over():
    assert parse_rtp(build_rtp(PACKET, build_mid_extension(4, "audio-0"))) == PACKET


def test_csrcs_are_stepped_over():
    packet = build_rtp(PACKET)
    assert parse_rtp(b"\x82" + packet[1:12] + bytes(8) + packet[12:]) == PACKET


def test_padding_is_cut_off():
    assert parse_rtp(b"\xa0" + build_rtp(PACKET)[1:] + b"\0\0\3") == PACKET


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        bytes(11),
        b"\x40" + bytes(11),  # version 1
        b"\x8f" + bytes(11),  # CSRCs that are not there
        b"\x90" + bytes(11),  # no room for an extension header
        b"\x90" + bytes(11) + b"\xbe\xde\x00\x09",  # an extension longer than the packet
        b"\xa0" + bytes(12),  # padding of zero bytes
        b"\xa0" + bytes(11) + b"\xff",  # more padding than payload
    ],
)
def test_contradictory_lengths_are_no_packet(damaged):
    assert parse_rtp(damaged) is None


def test_a_mid_that_does_not_fit_the_one_byte_form_is_left_out():
    assert build_mid_extension(15, "0") == b""
    assert build_mid_extension(1, "x" * 17) == b""
    assert build_mid_extension(1, "") == b""


def test_a_sender_report_comes_back_as_it_was():
    reports = parse_rtcp(build_report(SENDER, (BLOCK,), "cname"))
    assert reports is not None
    assert reports.senders == (SENDER,)
    assert reports.blocks == (BLOCK,)


def test_whoever_has_sent_nothing_reports_as_receiver_only():
    reports = parse_rtcp(build_report(SenderInfo(0x99, 0, 0, 0, 0), (BLOCK,), "cname"))
    assert reports is not None
    assert reports.senders == ()
    assert reports.blocks == (BLOCK,)


def test_a_bye_names_its_source():
    reports = parse_rtcp(build_bye(0x99, "cname"))
    assert reports is not None
    assert reports.byes == (0x99,)


def test_feedback_that_we_do_not_read_is_stepped_over():
    feedback = b"\x81\xcd\x00\x02" + bytes(8)
    reports = parse_rtcp(feedback + build_report(SENDER, (), "c"))
    assert reports is not None
    assert reports.senders == (SENDER,)


@pytest.mark.parametrize(
    "damaged",
    [
        b"\x80\xc8",
        b"\x80\xc8\x00\x09" + bytes(8),
        b"\x81\xc9\x00\x01" + bytes(4),
        b"\x00\xc9\x00\x00",
        b"\x85\xcb\x00\x00",
    ],
)
def test_a_compound_whose_lengths_do_not_add_up_is_no_report(damaged):
    assert parse_rtcp(damaged) is None

"""Loss, jitter and round trip as RFC 3550 counts them."""

import pytest

from voicefleet_dataplane.core.call.streams import ReceiveStream, SendStream, ntp_from_unix, round_trip_s
from voicefleet_dataplane.wire.rtcp import ReportBlock, SenderInfo


def received(*sequences, start=0.0):
    stream = ReceiveStream(9, sequences[0], 0, start)
    for index, sequence in enumerate(sequences):
        stream.note(sequence, index * 960, start + index * 0.02)
    return stream


def test_missing_packets_are_lost_and_late_ones_found_again():
    stream = received(1, 2, 5)
    assert (stream.expected, stream.lost) == (5, 2)
    stream.note(3, 0, 0.1)
    assert stream.lost == 1


def test_sequence_numbers_wrap_without_loss():
    stream = received(65_534, 65_535, 0, 1)
    assert (stream.expected, stream.lost) == (4, 0)
    assert stream.build_block(1.0).highest_sequence == 65_537


def test_a_duplicate_makes_loss_negative_and_not_positive():
    stream = received(1, 2, 2, 3)
    assert stream.lost == -1
    assert stream.build_block(1.0).fraction_lost == 0


def test_the_fraction_covers_the_time_since_the_last_block():
    stream = received(1, 2, 3, 5)
    assert stream.build_block(1.0).fraction_lost == 256 // 5
    for sequence in range(6, 10):
        stream.note(sequence, 0, 1.0)
    block = stream.build_block(2.0)
    assert (block.fraction_lost, block.cumulative_lost) == (0, 1)


def test_steady_packets_have_no_jitter_and_uneven_ones_do():
    assert received(1, 2, 3, 4, 5).jitter == pytest.approx(0, abs=1)
    stream = ReceiveStream(9, 1, 0, 0.0)
    for index in range(200):
        stream.note(1 + index, index * 960, index * 0.02 + (0.010 if index % 2 else 0.0))
    assert stream.jitter / 48 == pytest.approx(10, rel=0.1)  # ms: RFC 3550's mean deviation between neighbours


def test_timestamps_that_wrap_make_no_jitter():
    stream = ReceiveStream(9, 1, 0xFFFFFFFF - 480, 0.0)
    stream.note(1, 0xFFFFFFFF - 480, 0.0)
    stream.note(2, 479, 0.02)
    assert stream.jitter == pytest.approx(0, abs=1)


def test_a_block_names_the_senders_report_and_how_long_it_lay_here():
    stream = received(1, 2)
    stream.note_sender_report(SenderInfo(9, 0x0011223344556677, 0, 0, 0), 10.0)
    block = stream.build_block(10.5)
    assert (block.last_report, block.delay_since) == (0x22334455, 32_768)


def test_a_sender_report_gives_the_rtp_time_of_its_moment():
    sending = SendStream(9, 0, 0)
    sending.note(4_800, 100, 20.0)
    assert sending.build_sender_info(1, 20.5).rtp_timestamp == 4_800 + 24_000


def test_the_round_trip_is_elapsed_time_less_the_delay():
    sent = ntp_from_unix(1_700_000_000.0)
    now = ntp_from_unix(1_700_000_000.3)
    block = ReportBlock(9, 0, 0, 0, 0, (sent >> 16) & 0xFFFFFFFF, int(0.1 * 65_536))
    assert round_trip_s(block, now) == pytest.approx(0.2, abs=0.001)


@pytest.mark.parametrize(
    ("last_report", "delay", "expected"),
    [(0, 0, None), (1, 0, None), ((1_700_000_000 + 2_208_988_800) << 16 & 0xFFFFFFFF, 10, 0.0)],
    ids=["no report yet", "a report of another age", "less than nothing"],
)
def test_reports_that_make_no_sense_give_no_round_trip(last_report, delay, expected):
    block = ReportBlock(9, 0, 0, 0, 0, last_report, delay)
    assert round_trip_s(block, ntp_from_unix(1_700_000_000.0)) == expected

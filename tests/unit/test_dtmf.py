"""Keys pressed, from RFC 4733 packets."""

import random

from voicefleet_dataplane.media.backend import Digit
from voicefleet_dataplane.media.dtmf import KEYS, DtmfReceiver
from voicefleet_dataplane.wire.rtp import RtpPacket


def press(key, timestamp, *, durations=(960, 1_920, 2_880), ends=3, ssrc=7):
    """The packets of one press, as a browser sends them."""
    event = KEYS.index(key)
    for duration in durations[:-1]:
        yield RtpPacket(False, 110, 0, timestamp, ssrc, bytes((event, 10)) + duration.to_bytes(2))
    for _ in range(ends):
        yield RtpPacket(False, 110, 0, timestamp, ssrc, bytes((event, 0x8A)) + durations[-1].to_bytes(2))


def told(*packets, receiver=None, hz=48_000):
    receiver = receiver or DtmfReceiver()
    return [digit for packet in packets if (digit := receiver.receive(packet, hz)) is not None]


def test_a_press_is_told_once_though_its_end_comes_three_times():
    assert told(*press("5", 1_000), *press("#", 20_000)) == [Digit("5", 60), Digit("#", 60)]


def test_a_press_with_one_end_left_of_three_is_told():
    assert told(*press("A", 1_000, ends=1)) == [Digit("A", 60)]


def test_a_press_whose_end_is_lost_is_told_when_the_next_one_begins():
    assert told(*press("1", 1_000, ends=0), *press("2", 20_000)) == [Digit("1", 40), Digit("2", 60)]


def test_two_presses_whose_ends_cross_are_both_told():
    first, second = list(press("1", 1_000, ends=0)), list(press("2", 20_000, durations=(960,), ends=2))
    assert told(*first, *second) == [Digit("1", 40), Digit("2", 20)]


def test_a_late_packet_of_an_earlier_press_is_no_press():
    receiver = DtmfReceiver()
    early = list(press("1", 1_000))
    assert told(*early, *press("2", 20_000), early[0], early[-1], receiver=receiver) == [Digit("1", 60), Digit("2", 60)]


def test_another_ssrc_has_another_clock():
    assert told(*press("1", 3_000_000_000), *press("2", 100, ssrc=8)) == [Digit("1", 60), Digit("2", 60)]


def test_a_press_goes_on_across_the_wrap_of_the_clock():
    assert told(*press("1", 0xFFFFFF00), *press("2", 20_000)) == [Digit("1", 60), Digit("2", 60)]


def test_durations_are_in_the_clock_that_was_agreed():
    packets = [*press("1", 1_000, durations=(160, 480)), *press("2", 9_000, durations=(160, 800))]
    assert told(*packets, hz=8_000) == [Digit("1", 60), Digit("2", 100)]
    assert told(*press("3", 0), *press("4", 200, durations=(160,)), hz=8_000)[1] == Digit(
        "4", 20
    )  # on the audio's clock


def test_an_end_without_a_start_is_a_press_once():
    ends = list(press("7", 5_000))[-3:]
    assert told(*ends) == [Digit("7", 60)]
    assert told(*press("1", 1_000, ends=0), *ends[:1], *press("2", 40_000))[:2] == [Digit("1", 40), Digit("7", 60)]


def test_a_key_that_is_held_long_is_one_press():
    first = [RtpPacket(at == 960, 110, 0, 1_000, 7, bytes((5, 10)) + at.to_bytes(2)) for at in (960, 0xFFFF)]
    then = press("5", 1_000 + 0xFFFF, durations=(960, 48_000))
    assert told(*first, *then) == [Digit("5", (0xFFFF + 48_000) // 48)]
    other_key = press("6", 1_000 + 0xFFFF, durations=(960,))
    assert told(*first, *other_key) == [Digit("5", 0xFFFF // 48), Digit("6", 20)]


def test_what_is_no_key_or_no_packet_is_nothing():
    assert (
        told(
            RtpPacket(False, 110, 0, 0, 7, b""),
            RtpPacket(False, 110, 0, 0, 7, b"\x01\x80\x00"),
            RtpPacket(False, 110, 0, 0, 7, b"\x10\x80\x00\x00"),
        )
        == []
    )


def test_a_storm_gives_at_most_fifty_presses_a_second():
    chance, receiver = random.Random(1), DtmfReceiver()
    stamps = sorted(chance.randrange(48_000) for _ in range(20_000))
    packets = [RtpPacket(False, 110, 0, at, 7, bytes((chance.randrange(16), 0x80, 3, 192))) for at in stamps]
    assert len(told(*packets, receiver=receiver)) <= 51

"""The jitter buffer: order, holes, silence, drift; in virtual time."""

import random

import pytest

from voicefleet_dataplane.media.jitter import (
    FILL_S,
    LONGEST_WAIT_S,
    MAX_FILL_TICKS,
    MAX_HELD,
    SHORTEST_WAIT_S,
    STARVED_AFTER_S,
    JitterBuffer,
    Kind,
)
from voicefleet_dataplane.wire.rtp import RtpPacket

WB_20_MS = b"\x48" + b"opus"  # SILK wide-band, one frame of 20 ms
FRAME_S = 0.02


def packet(number, *, payload=WB_20_MS, ssrc=1, leap=0, first=65_530, stamp=0xFFFFF000):
    return RtpPacket(False, 111, (first + number) & 0xFFFF, (stamp + number * 960 + leap) & 0xFFFFFFFF, ssrc, payload)


def kinds(pieces):
    return [(piece.kind, piece.ticks) for piece in pieces]


AUDIO = (Kind.AUDIO, 960)


class Buffer(JitterBuffer):
    """With a clock, and everything that came out."""

    def __init__(self):
        super().__init__()
        self.out = []

    def at(self, now, *packets, **options):
        for one in packets:
            self.push(one, now, **options)
        pieces = self.pop(now)
        self.out += pieces
        return kinds(pieces)

    def ticks(self):
        return sum(piece.ticks for piece in self.out)


def test_what_is_in_order_goes_on_at_once_whatever_the_jitter():
    buffer, chance, now = Buffer(), random.Random(1), 0.0
    for number in range(500):
        now = max(now, number * FRAME_S + chance.random() * 0.06)
        assert buffer.at(now, packet(number)) == [AUDIO]


def test_one_lost_packet_is_recovered_from_the_next_and_delays_once():
    buffer = Buffer()
    buffer.at(0.0, packet(0))
    assert buffer.at(0.04, packet(2)) == []
    assert buffer.at(0.0549) == []
    assert buffer.at(0.06, packet(3)) == [(Kind.RECOVER, 960), AUDIO, AUDIO]
    assert buffer.out[1].payload == WB_20_MS
    assert buffer.at(0.08, packet(4)) == [AUDIO]
    assert buffer.lost == 1


def test_the_deadline_says_when_a_hole_is_given_up():
    buffer = Buffer()
    buffer.at(1.0, packet(0))
    buffer.at(1.04, packet(2))
    assert buffer.deadline() == pytest.approx(1.04 + SHORTEST_WAIT_S)


def test_several_lost_packets_are_concealed_and_the_last_one_recovered():
    buffer = Buffer()
    buffer.at(0.0, packet(0))
    buffer.at(0.08, packet(4))
    assert buffer.at(0.11) == [(Kind.CONCEAL, 960), (Kind.CONCEAL, 960), (Kind.RECOVER, 960), AUDIO]


def test_a_long_hole_is_concealed_for_a_while_and_then_silent():
    buffer = Buffer()
    buffer.at(0.0, packet(0))
    buffer.push(packet(21), 0.42)
    pieces = kinds(buffer.pop(0.45))
    assert pieces == [*[(Kind.CONCEAL, 960)] * 5, (Kind.SILENCE, 14 * 960), (Kind.RECOVER, 960), AUDIO]


def test_a_packet_that_comes_back_in_time_conceals_nothing():
    buffer = Buffer()
    buffer.at(0.0, packet(0))
    buffer.at(0.02, packet(2))
    assert buffer.at(0.03, packet(1)) == [AUDIO, AUDIO]
    assert buffer.lost == buffer.late == 0


def test_duplicates_are_nothing():
    buffer = Buffer()
    buffer.at(0.0, packet(0))
    assert buffer.at(0.01, packet(0)) == []
    buffer.at(0.03, packet(2))
    assert buffer.at(0.031, packet(2)) == []
    assert buffer.at(0.032, packet(1)) == [AUDIO, AUDIO]


def test_the_wait_grows_with_what_comes_late_and_fades_again():
    buffer = Buffer()
    buffer.at(0.0, packet(0))
    buffer.at(0.02, packet(2))
    buffer.at(0.05)  # given up
    assert buffer.at(0.09, packet(1)) == []  # 70 ms after its hole was seen
    assert buffer.wait_s == pytest.approx(0.07 * 1.25 + 0.005)
    assert buffer.late == 1
    buffer.at(0.1, packet(4))
    assert buffer.at(0.17) == []  # patient now
    buffer.at(0.18, packet(3))
    now = 0.2
    for number in range(5, 5_000):
        now += FRAME_S
        buffer.at(now, packet(number))
    assert buffer.wait_s == SHORTEST_WAIT_S


def test_the_wait_never_grows_past_its_bound():
    buffer, now = Buffer(), 0.0
    for number in range(0, 200, 4):
        now += 1.0
        buffer.at(now, packet(number), packet(number + 2))
        buffer.at(now + 0.9, packet(number + 1), packet(number + 3))
    assert buffer.wait_s <= LONGEST_WAIT_S


def test_a_leap_of_time_without_a_hole_in_the_numbers_is_silence():
    buffer = Buffer()
    buffer.at(0.0, packet(0))
    assert buffer.at(0.06, packet(1, leap=2 * 960)) == [(Kind.SILENCE, 1_920), AUDIO]


def test_silence_is_filled_in_by_the_clock_once():
    buffer = Buffer()
    buffer.at(0.0, packet(0))
    now = 0.0
    while now < 0.4:
        now += FRAME_S
        buffer.at(now)
    filled = buffer.ticks() - 960
    assert filled == pytest.approx((0.4 - STARVED_AFTER_S) * 48_000, abs=960)
    buffer.at(0.42, packet(1, leap=20 * 960))
    assert buffer.ticks() == 960 + 20 * 960 + 960


def test_silence_that_the_client_announced_is_filled_in_without_delay():
    buffer = Buffer()
    buffer.at(0.0, packet(0), packet(1, payload=b"\x48\x00"))
    assert buffer.at(0.03) == []
    assert buffer.at(0.0401) == [(Kind.CONCEAL, 960)]
    assert buffer.at(0.0601) == [(Kind.CONCEAL, 960)]


def test_an_outage_keeps_every_word_that_comes_after_it():
    buffer = Buffer()
    buffer.at(0.0, packet(0))
    for step in range(1, 20):
        buffer.at(step * FRAME_S)
    late = [packet(number) for number in range(1, 20)]
    assert buffer.at(0.41, *late) == [AUDIO] * 19


def test_an_hour_of_silence_costs_a_few_seconds_of_fill_and_no_memory():
    buffer = Buffer()
    buffer.at(0.0, packet(0))
    now = 0.0
    while (due := buffer.deadline()) is not None:
        now = due
        buffer.at(now)
    assert buffer.ticks() == 960 + FILL_S * 48_000
    assert now < 6.5
    assert buffer.at(3_600.0) == []
    assert buffer.at(3_600.0, packet(1, leap=int(3_599.98 * 48_000))) == [AUDIO]
    assert not buffer._held


def test_comfort_noise_of_a_silent_client_is_taken_as_it_comes():
    """DTX sends one packet in 400 ms, with numbers that go on."""
    buffer, now, stamp = Buffer(), 0.0, 0
    for number in range(50):
        for _ in range(20):
            now += FRAME_S
            buffer.at(now)
        stamp += 19 * 960
        buffer.at(now, packet(number, leap=stamp))
    assert buffer.lost == 0
    assert buffer.ticks() == pytest.approx(50 * 20 * 960, abs=20 * 960)


@pytest.mark.parametrize("drift", [0.99, 1.01])
def test_a_clock_that_is_wrong_by_a_percent_neither_conceals_nor_delays(drift):
    buffer = Buffer()
    for number in range(30_000):  # ten minutes
        now = number * FRAME_S * drift
        assert buffer.at(now, packet(number)) == [AUDIO]
    assert buffer.ticks() == 30_000 * 960
    assert not buffer.lost


def test_keys_pressed_take_their_numbers_and_no_sound():
    buffer = Buffer()
    buffer.at(0.0, packet(0))
    for number in (1, 2, 3):
        assert buffer.at(number * FRAME_S, packet(number, payload=b"\x05\x0a\x00\xa0"), is_audio=False) == []
    assert buffer.at(0.08, packet(4)) == [(Kind.SILENCE, 3 * 960), AUDIO]
    assert buffer.lost == 0


def test_numbers_of_keys_that_were_dropped_before_are_no_hole():
    """A client may send more keys than are opened (core/call/budgets.py): speech between them stays whole."""
    buffer = Buffer()
    for number in range(50):
        sent = RtpPacket(False, 111, 20 * number, 960 * number, 1, WB_20_MS)
        assert buffer.at(number * FRAME_S, sent) == [AUDIO]
        key = RtpPacket(False, 126, 20 * number + 7, 960 * number + 300, 1, b"\x01\x0a\x00\x00")
        assert buffer.at(number * FRAME_S, key, is_audio=False) == []
    assert (buffer.lost, buffer.concealed, buffer.recovered) == (0, 0, 0)


def test_another_ssrc_begins_anew():
    buffer = Buffer()
    buffer.at(0.0, packet(0), packet(2))
    assert buffer.at(0.02, packet(9_000, ssrc=2)) == [AUDIO]


def test_numbers_that_leap_far_are_a_new_stream():
    buffer = Buffer()
    buffer.at(0.0, packet(0))
    assert buffer.at(0.02, packet(20_000)) == [AUDIO]
    assert buffer.at(0.04, packet(20_001)) == [AUDIO]


def test_numbers_that_begin_anew_a_little_lower_are_taken_after_some():
    buffer = Buffer()
    for number in range(100):
        buffer.at(number * FRAME_S, packet(number))
    took = [buffer.at(2 + number * FRAME_S, packet(number, first=65_500)) for number in range(40)]
    assert took[-1] == [AUDIO]


def test_what_is_no_opus_packet_is_a_hole():
    buffer = Buffer()
    buffer.at(0.0, packet(0), packet(1, payload=b""), packet(2))
    assert buffer.at(0.03) == [(Kind.RECOVER, 960), AUDIO]


def test_any_packets_in_any_order_keep_the_bounds():
    chance = random.Random(3)
    for _ in range(30):
        buffer, now = Buffer(), 0.0
        for _ in range(800):
            now += chance.choice((0, 0.001, 0.02, 0.02, 0.5))
            one = RtpPacket(
                False,
                111,
                chance.choice((chance.randrange(1 << 16), chance.randrange(300))),
                chance.choice((chance.randrange(1 << 32), chance.randrange(300) * 960)),
                chance.choice((1, 1, 1, 1, 2)),
                chance.choice((WB_20_MS, b"", b"\x03\x3f", b"\x03", b"\xff" * 9)),
            )
            gave = buffer.at(now, one, is_audio=chance.random() < 0.9)
            assert len(buffer._held) <= MAX_HELD + 1
            assert sum(ticks for _, ticks in gave) <= (MAX_HELD + 1) * (MAX_FILL_TICKS + 5_760)
            assert len(buffer._waited_for) <= 2 * MAX_HELD + 1

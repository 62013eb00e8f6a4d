"""How much a listener hears of what was not sent: no more than time has passed, whatever packets claim; in virtual time."""

import random

import pytest

from voicefleet_dataplane.media.jitter import DEPTH_S, MAX_FILL_TICKS, JitterBuffer, Kind
from voicefleet_dataplane.wire.rtp import RtpPacket

WB_20_MS = b"\x48" + b"opus"
WB_60_MS = b"\x58" + b"opus"
WB_120_MS = b"\x59" + b"opus"
DTX = b"\x48\x00"
FRAME_S, SECOND = 0.02, 48_000


class Client:
    """Sends packets into a buffer, which is asked every 10 ms, as by a clock."""

    def __init__(self):
        self.buffer, self.now, self.out = JitterBuffer(), 100.0, []
        self.sequence = self.timestamp = 0

    def send(self, *, payload=WB_20_MS, ticks=960, leap=0, skip=0, ssrc=1):
        self.sequence += 1 + skip
        self.timestamp += leap + skip * 960
        self.buffer.push(
            RtpPacket(False, 111, self.sequence & 0xFFFF, self.timestamp & 0xFFFFFFFF, ssrc, payload), self.now
        )
        self.timestamp += ticks
        self.listen()

    def listen(self):
        self.out += self.buffer.pop(self.now)

    def wait(self, seconds):
        until = self.now + seconds
        while self.now + 0.01 <= until:
            self.now += 0.01
            self.listen()
        self.now = until

    def heard_s(self):
        return sum(piece.ticks for piece in self.out) / SECOND

    def kinds(self):
        return {piece.kind for piece in self.out}


@pytest.mark.parametrize(
    "claims",
    [{"leap": SECOND}, {"leap": SECOND - 960}, {"skip": 49, "leap": 0}, {"skip": 999, "leap": -999 * 960 + SECOND}],
    ids=["a second of silence", "without a frame", "lost packets", "many lost packets"],
)
def test_packets_that_claim_a_second_each_give_no_more_than_time(claims):
    client = Client()
    for _ in range(1_000):  # twenty seconds
        client.send(**claims)
        client.wait(FRAME_S)
    assert client.heard_s() <= 20.0 * 1.05 + DEPTH_S + 0.5


def test_a_leap_is_no_more_silence_than_has_elapsed():
    client = Client()
    client.send()
    client.now += 0.06
    client.send(leap=SECOND)
    assert [piece.ticks for piece in client.out] == [960, 0.06 * SECOND, 960]


def test_stalls_that_never_were_give_no_more_than_time():
    """Silent until fill comes, then all that was not said at once, on and on."""
    client = Client()
    for _ in range(40):
        client.wait(4.0)
        for _ in range(200):
            client.send()
    assert client.heard_s() <= 160.0 * 1.05 + 2 * DEPTH_S


def test_any_claims_give_no_more_than_what_was_sent_and_time():
    for seed in range(20):
        chance, client = random.Random(seed), Client()
        sent, began = 0, client.now
        for _ in range(1_500):
            payload, ticks = chance.choice(((WB_20_MS, 960), (WB_60_MS, 2_880), (DTX, 960)))
            client.send(
                payload=payload,
                ticks=ticks,
                leap=chance.choice((0, 0, 960, SECOND, chance.randrange(1 << 31), -960)),
                skip=chance.choice((0, 0, 0, 1, 30, 999)),
                ssrc=chance.choice((1, 1, 1, 1, 2)),
            )
            sent += ticks
            client.wait(chance.choice((0, 0, 0.02, 0.02, 0.5)))
        passed = client.now - began
        assert client.heard_s() <= max(sent / SECOND, passed * 1.05) + DEPTH_S + 1.0


# ---- and what honest clients send is all there


def test_a_burst_after_three_seconds_without_a_packet_is_whole_with_the_pause_in_it():
    client = Client()
    for _ in range(500):
        client.send()
        client.wait(FRAME_S)
    before = client.heard_s()
    client.now += 3.0  # nobody asks the buffer either
    for _ in range(49):
        client.send()
    client.send(payload=DTX)
    client.send(leap=50 * 960)
    for _ in range(49):
        client.send()
    assert client.heard_s() - before == pytest.approx(3.0, abs=0.03)
    assert client.kinds() == {Kind.AUDIO, Kind.SILENCE}


@pytest.mark.parametrize("pace", [0.99, 1.0, 1.01])
def test_an_hour_of_a_clock_that_is_wrong_by_a_percent_is_untouched(pace):
    client = Client()
    for _ in range(30_000):
        client.send(payload=WB_120_MS, ticks=5_760)
        client.now += 0.12 * pace
    assert client.heard_s() == 3_600.0
    assert client.kinds() == {Kind.AUDIO}


@pytest.mark.parametrize("pace", [0.99, 1.0, 1.01])
def test_comfort_noise_every_400_ms_keeps_its_pauses(pace):
    """Some minutes of DTX, the client's clock a percent fast, right and a percent slow."""
    client = Client()
    for _ in range(1_000):
        client.send(payload=DTX)
        client.timestamp += 19 * 960
        client.wait(0.4 * pace)
    assert client.heard_s() == pytest.approx(1_000 * 0.4, rel=0.002)
    assert not client.buffer.lost


def test_a_lost_packet_is_concealed_as_ever_by_a_fast_client():
    client = Client()
    for number in range(3_000):
        client.send(skip=1 if number % 10 == 9 else 0)
        client.wait(FRAME_S * 0.99 * (2 if number % 10 == 8 else 1))
    assert client.heard_s() == pytest.approx((2_999 + 299) * FRAME_S)  # the last one waits for its hole
    assert client.buffer.recovered == 299


def test_one_leap_is_bounded_however_long_the_pause():
    client = Client()
    client.send()
    client.now += 4.0
    client.send(leap=4 * SECOND - 960)
    assert client.heard_s() * SECOND <= 2 * 960 + MAX_FILL_TICKS

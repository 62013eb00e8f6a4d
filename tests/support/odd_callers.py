"""Clients that send what no good client does, in whole calls: each a `Caller` whose packets and whose clock are its own.

A script gives, for each packet: when it is sent, in seconds from the first; its payload type, RTP time and number; its payload. Numbers
that are None count on.
"""

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import httpx

from voicefleet_dataplane.media.dtmf import KEYS
from voicefleet_dataplane.shell.client.packet_caller import Caller, make_identity
from voicefleet_dataplane.wire.rtp import RtpPacket, build_rtp

OPUS, COMFORT_NOISE, TELEPHONE_EVENT = 111, 13, 110
_TICKS_PER_S = 48_000
_FRAME_TICKS = 960
_OPUS_DTX = b"\xf8"  # a table of contents and nothing more (RFC 6716 section 3.2.1)


@dataclass(frozen=True, slots=True)
class Sent:
    """One packet."""

    at_s: float
    payload_type: int
    ticks: int
    payload: bytes
    sequence: int | None = None


Script = Callable[[Sequence[bytes], float], Iterator[Sent]]


def in_order(packets: Sequence[bytes], seconds: float, speed: float = 1.0) -> Iterator[Sent]:
    """Speech as it should be; with ``speed``: by a clock that is so much too fast."""
    for number in range(round(seconds * 50 * speed)):
        yield Sent(number / 50 / speed, OPUS, number * _FRAME_TICKS, packets[number % len(packets)])


def drifting(packets: Sequence[bytes], seconds: float) -> Iterator[Sent]:
    """A clock that is one per cent too fast."""
    return in_order(packets, seconds, 1.01)


def out_of_order(packets: Sequence[bytes], seconds: float) -> Iterator[Sent]:
    """Each packet after its successor, and every tenth twice."""
    for number in range(round(seconds * 50)):
        swapped = number ^ 1
        sent = Sent(number / 50, OPUS, swapped * _FRAME_TICKS, packets[swapped % len(packets)], swapped)
        yield sent
        if number % 10 == 0:
            yield sent


def keypad_storm(packets: Sequence[bytes], seconds: float) -> Iterator[Sent]:
    """A thousand presses a second that never end, or end at once, beside speech."""
    chance = random.Random(3)
    speech = list(in_order(packets, seconds))
    presses = [
        Sent(
            number / 1_000,
            TELEPHONE_EVENT,
            number * _TICKS_PER_S // 1_000,
            bytes((chance.randrange(len(KEYS)), chance.choice((0x0A, 0x8A)), 0, chance.randrange(256))),
        )
        for number in range(round(seconds * 1_000))
    ]
    yield from sorted(speech + presses, key=lambda sent: sent.at_s)


def comfort_noise(packets: Sequence[bytes], seconds: float) -> Iterator[Sent]:
    """One word, and then noise of both kinds: RFC 3389's, which nobody agreed to, and Opus's DTX."""
    yield from in_order(packets, 1.0)
    for number in range(50, round(seconds * 50)):
        yield Sent(number / 50, COMFORT_NOISE, number * _FRAME_TICKS, b"\x40")
        if number % 20 == 0:
            yield Sent(number / 50, OPUS, number * _FRAME_TICKS, _OPUS_DTX)


def garbage(packets: Sequence[bytes], seconds: float) -> Iterator[Sent]:
    """Authentic packets of which most are no Opus, of every length."""
    chance = random.Random(4)
    for sent in in_order(packets, seconds):
        yield (
            sent
            if chance.random() < 0.2
            else Sent(sent.at_s, OPUS, sent.ticks, chance.randbytes(chance.randrange(900)))
        )


def leaping(packets: Sequence[bytes], seconds: float) -> Iterator[Sent]:
    """Numbers and times that leap anywhere, every fifth packet."""
    chance = random.Random(5)
    for number, sent in enumerate(in_order(packets, seconds)):
        leap = number % 5 == 0
        ticks = chance.randrange(1 << 32) if leap else sent.ticks
        yield Sent(sent.at_s, OPUS, ticks, sent.payload, chance.randrange(1 << 16) if leap else number)


def silent(packets: Sequence[bytes], seconds: float) -> Iterator[Sent]:
    """One packet at the beginning, one at the end."""
    yield Sent(0.0, OPUS, 0, packets[0])
    yield Sent(seconds, OPUS, round(seconds * _TICKS_PER_S), packets[0])


ODD: dict[str, Script] = {
    one.__name__: one for one in (drifting, out_of_order, keypad_storm, comfort_noise, garbage, leaping, silent)
}


class OddCaller(Caller):
    """One call by a script."""

    def __init__(self, http: httpx.AsyncClient, script: Iterator[Sent]) -> None:
        super().__init__(http, make_identity(), [])
        self._script = script

    async def _speak(self) -> None:
        assert self._srtp is not None
        loop = asyncio.get_running_loop()
        start = loop.time()
        for count, sent in enumerate(self._script):
            late_s = loop.time() - start - sent.at_s
            if late_s < 0 or count % 64 == 0:
                await asyncio.sleep(max(0.0, -late_s))
            number = count if sent.sequence is None else sent.sequence
            packet = RtpPacket(False, sent.payload_type, number & 0xFFFF, sent.ticks, self._ssrc, sent.payload)
            protected = self._srtp.protect(build_rtp(packet))
            if protected is not None:  # libsrtp refuses numbers that go too far back: they are never sent
                self._send(protected)
                self.result.sent += 1


def with_everything(offer: str) -> str:
    """An offer of ours with the payload types that odd callers use."""
    more = ("telephone-event/48000", TELEPHONE_EVENT), ("CN/8000", COMFORT_NOISE)
    lines = "".join(f"a=rtpmap:{number} {name}\r\n" for name, number in more)
    return offer.replace(f"SAVPF {OPUS}", f"SAVPF {OPUS} {TELEPHONE_EVENT} {COMFORT_NOISE}") + lines

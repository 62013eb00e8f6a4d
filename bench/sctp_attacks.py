"""What packets cost that nobody sends who means well, for our SCTP end and for aiortc's; and what a counted step of ours costs."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from aiortc.rtcdatachannel import RTCDataChannel, RTCDataChannelParameters
from aiortc.rtcsctptransport import DataChunk, RTCSctpCapabilities, RTCSctpTransport

from bench.sctp_ends import MAX_MESSAGE_BYTES, PORT, Datagrams
from tests.support.sctp_attacks import Known, Victim, search
from voicefleet_dataplane.core.call.sctp import chunks as c

WAITING = 1_000  # chunks of ours that nobody has acknowledged, as many as a message of a megabyte has
_TAG, _OUR_TSN, _PEERS_TSN = 7, 1_000, 5_000
_FRAGMENT_PACKETS, _STREAM_PACKETS = 80, 200
ATTACKS = (
    "a SACK of 1,228 bytes with 300 wide gap blocks",
    "the 4,000th fragment of one byte, each with a hole before it (50 a packet)",
    "FORWARD-TSN, until 56,000 streams are named (280 a packet)",
)


@dataclass(frozen=True, slots=True)
class Target:
    """An end under attack: its tag, the next TSN of the peer, the last of its own that was acknowledged, and how it is fed."""

    tag: int
    tsn: int
    acknowledged: int
    feed: Callable[[bytes], Any]


def packets(attack: str, target: Target) -> Iterator[bytes]:
    """Return the packets of an attack, none longer than the inner path takes."""
    if attack == ATTACKS[0]:
        for _ in range(3):
            yield _packet(target, c.build_sack(target.acknowledged, 1 << 20, [(2, 65_535)] * 300, []))
    elif attack == ATTACKS[1]:
        for number in range(_FRAGMENT_PACKETS):
            first = target.tsn + 1 + 100 * number
            yield _packet(target, *(c.build_data(0, first + 2 * at, 1, 0, 53, b"x") for at in range(50)))
    else:
        for number in range(_STREAM_PACKETS):
            named = [(stream, 7) for stream in range(280 * number, 280 * (number + 1))]
            yield _packet(target, c.build_forward_tsn(target.tsn + number, named))


def _packet(target: Target, *chunks: bytes) -> bytes:
    return c.build_packet((5000, 5000), target.tag, list(chunks))


def _dearest_ms(attack: str, target: Target) -> float:
    dearest = 0.0
    for packet in packets(attack, target):
        began = time.thread_time()
        target.feed(packet)
        dearest = max(dearest, time.thread_time() - began)
    return dearest * 1e3


def our_cost_ms(attack: str) -> float:
    """Milliseconds of CPU that the dearest packet of an attack takes from our end."""
    victim = _waiting_victim()
    sent = victim.life.outbound.sent
    target = Target(victim.life.setup.our_tag, victim.tsn, sent.cumulative & 0xFFFFFFFF, victim.hit)
    return _dearest_ms(attack, target)


def _waiting_victim() -> Victim:
    victim = Victim()
    channel = victim.end.open(0, negotiated=True)
    victim.life.outbound.congestion.window = victim.life.outbound.peer_window = 1 << 30
    for _ in range(WAITING):
        victim.end.channels.send(channel, b"y", victim.now)
        victim.end.channels.poll(victim.now)
    return victim


def aiortc_cost_ms(attack: str) -> float:
    """Milliseconds of CPU that the dearest packet of an attack takes from aiortc's end."""
    return asyncio.run(_aiortc_cost_ms(attack))


async def _aiortc_cost_ms(attack: str) -> float:
    end = RTCSctpTransport(Datagrams(lambda _: None), PORT)  # type: ignore[arg-type]
    RTCDataChannel(end, RTCDataChannelParameters(label="", negotiated=True, id=1))
    await end.start(RTCSctpCapabilities(maxMessageSize=MAX_MESSAGE_BYTES), PORT)
    end._set_state(end.State.ESTABLISHED)
    end._local_verification_tag, end._last_received_tsn = _TAG, _PEERS_TSN
    end._last_sacked_tsn = _OUR_TSN
    for number in range(WAITING):
        chunk = DataChunk()
        chunk.flags, chunk.tsn, chunk.user_data = 3, _OUR_TSN + 2 + number, b"y"
        chunk._abandoned = chunk._acked = chunk._retransmit = chunk._in_flight = False
        chunk._book_size, chunk._expiry, chunk._max_retransmits, chunk._misses = 1, None, None, 0
        chunk._sent_count, chunk._sent_time = 1, time.time()
        end._sent_queue.append(chunk)

    def feed(packet: bytes) -> None:  # nothing of it waits for anything
        work = end._handle_data(packet)
        try:
            work.send(None)
        except StopIteration:
            return
        raise AssertionError("aiortc waits for something")

    found = _dearest_ms(attack, Target(_TAG, _PEERS_TSN + 1, _OUR_TSN, feed))
    end._t1_cancel()
    end._t3_cancel()
    await end.stop()
    return found


SEARCHED = (100, 200, 400)  # chunks of ours that wait, and fragments of the peer's, at N, 2N and 4N
_TRIES = 300
_KIND_NAMES = {
    c.DATA: "DATA",
    c.SACK: "SACK",
    c.FORWARD_TSN: "FORWARD-TSN",
    c.RE_CONFIG: "RE-CONFIG",
    c.HEARTBEAT: "HEARTBEAT",
}


def worst_found(size: int) -> tuple[int, float, str]:
    """Search for the packet that takes most steps from an end that keeps so much; gives its steps, CPU in ms, and its chunks."""
    steps, chunks = search(size, _TRIES, seed=size)
    victim = Victim().burden(size)
    began = time.thread_time()
    victim.hit(victim.packet(*chunks))
    spent_ms = (time.thread_time() - began) * 1e3
    kinds = Counter(_KIND_NAMES.get(chunk[0], "others") for chunk in chunks)
    return steps, spent_ms, ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())


def step_cost_ns(rounds: int) -> dict[str, list[float]]:
    """Nanoseconds of CPU for each step, by what the packets of a run do."""
    return {what: [run() for _ in range(rounds)] for what, run in _KINDS.items()}


def _per_step_ns(victim: Victim, made: Iterator[bytes] | list[bytes]) -> float:
    made = list(made)
    before, began = victim.life.meter.steps, time.thread_time()
    for packet in made:
        victim.receive(packet)
        victim.end.drain()
        victim.end.channels.poll(victim.now)
    return (time.thread_time() - began) / (victim.life.meter.steps - before) * 1e9


def _messages(size: int, count: int) -> float:
    victim = Victim()
    made, tsn = [], victim.tsn
    for number in range(count):
        for at in range(0, size, 1_000):
            flags = (c.BEGINS if at == 0 else 0) | (c.ENDS if at + 1_000 >= size else 0)
            made.append(victim.packet(victim.data(tsn, flags, 1, number, b"x" * min(1_000, size - at))))
            tsn += 1
    return _per_step_ns(victim, made)


def _wide_sacks() -> float:
    victim = _waiting_victim()
    return _per_step_ns(victim, [Known.wide_sack(victim)] * 200)


def _fragments() -> float:
    victim = Victim()
    return _per_step_ns(victim, [Known.one_byte_fragments(victim, 1 + 100 * number) for number in range(100)])


def _streams() -> float:
    victim = Victim()
    made = []
    for number in range(200):
        named = [(stream & 0xFFFF, 7) for stream in range(280 * number, 280 * (number + 1))]
        made.append(victim.packet(c.build_forward_tsn(victim.tsn + number, named)))
    return _per_step_ns(victim, made)


def _tiny_packets() -> float:
    victim = Victim()
    return _per_step_ns(victim, [victim.packet(c.build_chunk(c.HEARTBEAT, b""))] * 2_000)


def _worst_found() -> float:
    _, chunks = search(200, 200, random.Random(3).randrange(1 << 30))
    victim = Victim().burden(200)
    return _per_step_ns(victim, [victim.packet(*chunks)] * 200)


_KINDS: dict[str, Callable[[], float]] = {
    "messages of 200 bytes": lambda: _messages(200, 3_000),
    "messages of 60 KB": lambda: _messages(60_000, 40),
    "wide SACKs": _wide_sacks,
    "fragments of one byte": _fragments,
    "FORWARD-TSN": _streams,
    "packets of one empty chunk": _tiny_packets,
    "the dearest packet of the search": _worst_found,
}

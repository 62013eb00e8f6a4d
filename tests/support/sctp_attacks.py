"""Packets that nobody sends who means well, against one end of our SCTP, and a search for the worst of them by counted steps."""

import random
from dataclasses import dataclass
from struct import pack

from tests.support.sctp import End, World
from voicefleet_dataplane.core.call.sctp import chunks as c
from voicefleet_dataplane.core.call.sctp.events import Dropped
from voicefleet_dataplane.core.call.sctp.ranges import TSN_MASK

ROOM = 1_228 - c.HEADER_BYTES  # the inner path holds no more
_FLAGS = (0, c.BEGINS, c.ENDS, c.BEGINS | c.ENDS, c.UNORDERED, c.UNORDERED | c.BEGINS, c.UNORDERED | c.ENDS)


class Victim:
    """An end that is up, whose budget never runs out, and what it takes to speak to it."""

    def __init__(self) -> None:
        world = World().up()
        self.end: End = world.ours
        self.life = self.end.life
        self.now = world.now
        self.end.channels._hold_bytes = 1 << 40

    def packet(self, *chunks: bytes) -> bytes:
        return c.build_packet((5000, 5000), self.life.setup.our_tag, list(chunks))

    def kept(self) -> int:
        """What it keeps, as the steps that are paid for in advance: each thing is looked at so often until it is gone."""
        sent, messages = self.life.outbound.sent, self.life.inbound.messages
        unsettled = sum(one.state < 2 for one in sent._sent.values()) + sum(tsn > sent._struck_to for tsn in sent._sent)
        waiting = sum(len(stream.order) for stream in messages._streams.values())
        return unsettled + len(sent._sent) + len(sent._lost) + len(messages._firsts) + waiting + len(messages.ready)

    def hit(self, packet: bytes) -> int:
        """Give it a packet, and let it do all that follows; gives the steps, less those for what it need keep no more."""
        kept, before = self.kept(), self.life.meter.steps
        self.receive(packet)
        self.end.drain()
        self.end.channels.poll(self.now)
        return self.life.meter.steps - before - max(kept - self.kept(), 0)

    def receive(self, packet: bytes) -> Dropped | None:
        """Give it a packet, whatever it has cost before."""
        meter = self.life.meter
        meter._counted, meter._allowed = meter.steps, 1.0
        return self.end.channels.receive(packet, self.now)

    @property
    def tsn(self) -> int:
        """The next one in order."""
        return self.life.inbound.cumulative + 1

    def data(self, tsn: int, flags: int = 0, stream: int = 1, ssn: int = 0, payload: bytes = b"x") -> bytes:
        return c.build_data(flags, tsn & TSN_MASK, stream, ssn & 0xFFFF, 53, payload)

    def burden(self, size: int) -> "Victim":
        """Have it send chunks that stay unacknowledged, and keep fragments with holes between them and messages that wait."""
        channel = self.end.open(0, negotiated=True)
        outbound = self.life.outbound
        outbound.congestion.window = outbound.peer_window = 1 << 30
        for _ in range(size):
            self.end.channels.send(channel, b"y", self.now)
            self.end.channels.poll(self.now)
        first = self.tsn
        for number in range(size):
            flags = c.BEGINS | c.ENDS if number % 2 else c.BEGINS
            self.hit(self.packet(self.data(first + 1 + 2 * number, flags, 1 + number % 64, 1 + number // 64)))
        return self


@dataclass(frozen=True)
class Known:
    """Packets that cost a call dear before: what each is for a victim."""

    @staticmethod
    def wide_sack(victim: Victim, blocks: int = 300) -> bytes:
        """A SACK that acknowledges 65,535 TSNs three hundred times."""
        cumulative = victim.life.outbound.sent.cumulative & TSN_MASK
        return victim.packet(c.build_sack(cumulative, 1 << 20, [(2, 65_535)] * blocks, []))

    @staticmethod
    def one_byte_fragments(victim: Victim, at: int, count: int = 50) -> bytes:
        """Fragments of one byte, each second TSN, from ``at`` after what has come."""
        return victim.packet(*(victim.data(victim.tsn + at + 2 * number) for number in range(count)))

    @staticmethod
    def many_streams(victim: Victim, first: int, count: int = 280) -> bytes:
        """A FORWARD-TSN that names streams that were never used."""
        skipped = [(stream & 0xFFFF, 7) for stream in range(first, first + count)]
        return victim.packet(c.build_forward_tsn(victim.tsn & TSN_MASK, skipped))


def _chunk(victim: Victim, chance: random.Random) -> bytes:
    near = chance.choice((0, 1, 2, 3, 50, 500, 5_000, 16_000, 70_000, chance.randrange(1 << 16)))
    kind = chance.randrange(8)
    if kind == 0:
        return victim.data(
            victim.tsn + near - 2,
            chance.choice(_FLAGS),
            chance.choice((1, 2, chance.randrange(70), chance.randrange(1 << 16))),
            chance.choice((0, 1, chance.randrange(1 << 16))),
            b"x" * chance.choice((1, 1, 1, 2, 100)),
        )
    if kind in {1, 2}:
        sent = victim.life.outbound.sent
        gaps, at = [], 1
        width, stride = chance.choice((1, 2, 1 << 16)), chance.choice((0, 2, 3, 7))
        for _ in range(chance.choice((1, 8, 64, 290))):
            gaps.append((at & 0xFFFF, min(at + width - 1, 65_535)))
            at += stride
        cumulative = sent.cumulative + chance.choice((0, 0, 1, near))
        return c.build_sack(cumulative & TSN_MASK, chance.choice((0, 1, 1 << 20)), gaps, [])
    if kind == 3:
        streams = [
            (chance.choice((1, 2, chance.randrange(1 << 16))), chance.randrange(1 << 16))
            for _ in range(chance.choice((0, 1, 16, 290)))
        ]
        return c.build_forward_tsn((victim.tsn + near) & TSN_MASK, streams)
    if kind == 4:
        number = victim.life.reconfiguration._done_number + chance.choice((0, 1, 1, 2))
        streams = [chance.randrange(1 << 16) for _ in range(chance.choice((0, 1, 64, 590)))]
        body = pack(f"!LLL{len(streams)}H", number & TSN_MASK, 0, victim.tsn & TSN_MASK, *streams)
        return c.build_chunk(c.RE_CONFIG, c.build_parameters(((13, body),)))
    if kind == 5:
        return c.build_chunk(c.HEARTBEAT, bytes(chance.choice((0, 8, 1_000))))
    if kind == 6:
        return c.build_chunk(chance.choice((0xC1, 0xFF, 0x80)), bytes(chance.choice((0, 4))))
    return c.build_causes(c.ERROR, chance.randrange(20), bytes(chance.randrange(30)))


def _fitting(chunks: list[bytes]) -> list[bytes]:
    kept, size = [], 0
    for chunk in chunks:
        if size + len(chunk) <= ROOM:
            kept.append(chunk)
            size += len(chunk)
    return kept


def steps_of(state: dict, now: float, chunks: list[bytes], repeats: int = 3) -> int:
    """The most that one of several equal packets costs a victim in this state."""
    victim = Victim()
    victim.end.channels.restore(state, now)
    victim.now = now
    packet = victim.packet(*chunks)
    return max(victim.hit(packet) for _ in range(repeats))


def search(size: int, tries: int, seed: int) -> tuple[int, list[bytes]]:
    """Climb to the packet that costs a victim of this burden most; gives its steps and chunks."""
    chance = random.Random(seed)
    victim = Victim().burden(size)
    state = victim.end.channels.export(victim.now)
    best: tuple[int, list[bytes]] = (0, [])
    for attempt in range(tries):
        chunks = list(best[1]) if attempt % 4 else []
        for _ in range(chance.choice((1, 2, 60))):
            if chunks and chance.random() < 0.4:
                chunks[chance.randrange(len(chunks))] = _chunk(victim, chance)
            elif chunks and chance.random() < 0.3:
                chunks.insert(chance.randrange(len(chunks)), chance.choice(chunks))
            else:
                chunks.insert(chance.randrange(len(chunks) + 1), _chunk(victim, chance))
        chunks = _fitting(chunks)
        if chunks:
            best = max(best, (steps_of(state, victim.now, chunks), chunks), key=lambda found: found[0])
    return best

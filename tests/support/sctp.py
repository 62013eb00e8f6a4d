"""Two of our SCTP ends in virtual time, and a network between them that loses, doubles, overtakes and stands still."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from struct import pack

from voicefleet_dataplane.core.call.sctp.channels import Channels, ChannelState, Closed, DataChannel, Left, Opened, Said
from voicefleet_dataplane.core.call.sctp.dcep import DCEP, Terms
from voicefleet_dataplane.core.call.sctp.events import State
from voicefleet_dataplane.core.call.sctp.outbox import PACKET_BYTES
from voicefleet_dataplane.core.call.sctp.outstanding import Message

MAX_MESSAGE_BYTES = 262_144


def build_open(terms: Terms) -> bytes:
    """DATA_CHANNEL_OPEN (RFC 8832 section 5.1)."""
    kind, bound = (0 if terms.ordered else 0x80), 0
    if terms.max_resends is not None:
        kind, bound = kind | 1, terms.max_resends
    elif terms.lifetime_ms is not None:
        kind, bound = kind | 2, terms.lifetime_ms
    label, protocol = terms.label.encode(), terms.protocol.encode()
    return pack("!BBHLHH", 3, kind, 0, bound, len(label), len(protocol)) + label + protocol


@dataclass
class Network:
    """What may happen to a packet; probabilities, seconds, and when nothing gets through."""

    loss: float = 0.0
    twice: float = 0.0
    delay_s: float = 0.02
    jitter_s: float = 0.0
    stalls: list[tuple[float, float]] = field(default_factory=list)

    def deliveries(self, chance: random.Random, now: float) -> list[float]:
        """When copies of a packet that is sent now arrive."""
        if any(begin <= now < end for begin, end in self.stalls) or chance.random() < self.loss:
            return []
        copies = 2 if chance.random() < self.twice else 1
        return [now + self.delay_s + chance.random() * self.jitter_s for _ in range(copies)]


class End:
    """One end, and what its user has seen."""

    def __init__(self, seed: int, max_message_bytes: int = MAX_MESSAGE_BYTES, *, now: float = 0.0, made: bool = True):
        self.chance = random.Random(seed)
        self.limits = (MAX_MESSAGE_BYTES, max_message_bytes)
        self.opened: list[DataChannel] = []
        self.closed: list[int] = []
        self.left = 0  # how often we heard that the other side has left
        self.heard: dict[int, list[str | bytes]] = {}
        self.sent: list[bytes] = []
        self.drops: list[str] = []
        if made:
            self.channels = self.make(now)

    def make(self, now: float) -> Channels:
        return Channels((5000, 5000), self.limits, self.chance.randbytes, now)

    @property
    def association(self):
        return self.channels._association

    @property
    def life(self):
        return self.association._life

    @property
    def is_over(self) -> bool:
        return self.association.state is State.ENDED

    def open(self, stream: int, terms: Terms | None = None, *, negotiated: bool = False) -> DataChannel:
        """Open a channel, as a client does."""
        terms = terms or Terms(f"channel {stream}")
        channel = self.channels._channels[stream] = DataChannel(stream, terms)
        if not negotiated:
            assert self.association.send(Message(stream, DCEP, build_open(terms)))
        return channel

    @property
    def has_news(self) -> bool:
        """Whether `drain` finds anything: thousands of stories ask, and mostly it does not."""
        life = self.association._life
        return bool(life.events or life.inbound.messages.ready or self.channels._events)

    def drain(self) -> None:
        while (event := self.channels.next_event()) is not None:
            if isinstance(event, Opened):
                self.opened.append(event.channel)
            elif isinstance(event, Said):
                self.heard.setdefault(event.channel.stream, []).append(event.message)
                self.on_said(event.channel, event.message)
            elif isinstance(event, Closed):
                assert event.channel.state is ChannelState.CLOSED
                self.closed.append(event.channel.stream)
            elif isinstance(event, Left):
                self.left += 1

    def on_said(self, channel: DataChannel, message: str | bytes) -> None:
        """For tests that answer."""


class World:
    """Carries packets between two ends in virtual time."""

    def __init__(self, seed: int = 1, network: Network | None = None, back: Network | None = None, **options):
        self.chance = random.Random(seed)
        self.now = 0.0
        self.networks = [network or Network(), back or network or Network()]
        self.ends = [End(2 * seed + 1, **options), End(2 * seed + 2, **options)]
        self.client.channels._hold_bytes = (
            1 << 60
        )  # it takes what comes, as browsers do: if both ends waited, both would wait for ever
        self._on_way: list[tuple[float, int, int, bytes]] = []
        self._count = 0
        self.packets = 0
        self.between: Callable[[int], None] = lambda _: None  # called for a side between any two calls to its end

    @property
    def ours(self) -> End:
        return self.ends[0]

    @property
    def client(self) -> End:
        return self.ends[1]

    def settle(self) -> None:
        """Take what both ends have to say."""
        for side, end in enumerate(self.ends):
            if end.has_news:
                end.drain()
            self.between(side)
            for packet in end.channels.poll(self.now):
                assert len(packet) <= PACKET_BYTES
                end.sent.append(packet)
                self.packets += 1
                for at in self.networks[side].deliveries(self.chance, self.now):
                    self._count += 1
                    heappush(self._on_way, (at, self._count, 1 - side, packet))
            if end.has_news:
                end.drain()

    def next_at(self) -> float | None:
        """When something happens next."""
        times = [end.channels.deadline() for end in self.ends]
        if self._on_way:
            times.append(self._on_way[0][0])
        due = [at for at in times if at is not None]
        return min(due) if due else None

    def step(self) -> bool:
        """Let the next thing happen, of which `settle` sends what follows; False when nothing will."""
        self.settle()
        at = self.next_at()
        if at is None:
            return False
        self.now = max(self.now, at)
        while self._on_way and self._on_way[0][0] <= self.now:
            _, _, side, packet = heappop(self._on_way)
            dropped = self.ends[side].channels.receive(packet, self.now)
            if dropped:
                self.ends[side].drops.append(dropped)
            self.between(side)
            self.ends[side].drain()
        for end in self.ends:
            due = end.channels.deadline()
            if due is not None and due <= self.now:
                end.channels.advance(self.now)
        return True

    def run(self, until, limit_s: float = 600.0) -> None:
        """Let time pass until something is so."""
        end = self.now + limit_s
        self.settle()
        while not until():
            assert self.step(), "nothing happens any more"
            assert self.now < end, "it takes too long"
        self.settle()

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        self.settle()
        while (at := self.next_at()) is not None and at <= end:
            self.step()
        self.now = end
        self.settle()

    def up(self) -> "World":
        self.run(lambda: all(end.channels.is_up for end in self.ends))
        return self


class DataOf:
    """The data channels of a client in a world of transceivers (tests/support/transceiver.py)."""

    def __init__(self, world, client, seed: int = 7):
        self.world, self.client = world, client
        self.end = End(seed, now=world.now)

    def settle(self) -> None:
        """Carry packets until both have nothing more to say."""
        while True:
            received, self.client.data[:] = list(self.client.data), []
            for packet in received:
                self.end.channels.receive(packet, self.world.now)
            self.end.drain()
            packets = self.end.channels.poll(self.world.now)
            for packet in packets:
                self.client.send_data(packet)
            self.world.settle()
            if not packets and not self.client.data:
                return

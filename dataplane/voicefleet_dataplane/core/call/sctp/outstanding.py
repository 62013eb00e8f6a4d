"""Chunks that were sent and that the peer has not acknowledged up to: the sender's half of SACK and of partial reliability.

::

    sent ──▶ IN_FLIGHT ──SACK──▶ ACKNOWLEDGED ──timeout──▶ LOST        (what a SACK reported may be taken back: section 6.2.1)
                │  ▲                              (all)
       3 SACKs, │  │ sent again
       timeout  ▼  │
               LOST ──too often, too late──▶ ABANDONED                 (RFC 3758)

All leave when the cumulative TSN passes them.

A SACK costs its blocks, the chunks that it acknowledges for the first time, and those that it gives up for lost: blocks that
say again what was known cost a binary search each. A chunk counts as missing when three SACKs have acknowledged something
after it (section 7.2.4). As those are the same SACKs for all that is missing, three numbers say which chunks are lost, and
each chunk is looked at once.

Owns: TSNs, what is in flight, what is to be sent again or given up. Does not own: windows and timers (outbound.py).
"""

from enum import IntEnum
from heapq import heappop, heappush
from typing import Any

from voicefleet_dataplane.core.call.sctp.chunks import BEGINS, ENDS, UNORDERED, Sack, Violation
from voicefleet_dataplane.core.call.sctp.meter import Meter
from voicefleet_dataplane.core.call.sctp.ranges import Ranges, unwrap_tsn

MESSAGE_BYTES = (
    128  # what a message counts beside its own bytes: a million of one byte must not fit where a megabyte does
)
_STRIKES = 3


class State(IntEnum):
    """What became of a chunk."""

    IN_FLIGHT = 0
    LOST = 1
    ACKNOWLEDGED = 2
    ABANDONED = 3


class Message:
    """What the application sends. ``max_resends`` and ``expires_at`` bound what is done for it; None: whatever it takes."""

    __slots__ = (
        "chunks",
        "data",
        "expires_at",
        "first_tsn",
        "max_resends",
        "offset",
        "ordered",
        "protocol",
        "ssn",
        "stream",
    )

    def __init__(
        self,
        stream: int,
        protocol: int,
        data: bytes,
        *,
        ordered: bool = True,
        max_resends: int | None = None,
        expires_at: float | None = None,
    ) -> None:
        self.stream = stream
        self.protocol = protocol
        self.data = data
        self.ordered = ordered
        self.max_resends = max_resends
        self.expires_at = expires_at
        self.offset = 0  # what has been cut into chunks
        self.first_tsn = self.chunks = self.ssn = 0

    def is_given_up(self, resends: int, now: float) -> bool:
        """Say whether no more is to be done for a chunk of it that was sent again this often."""
        return self.is_late(now) or (self.max_resends is not None and resends >= self.max_resends)

    def is_late(self, now: float) -> bool:
        """Say whether its time is over."""
        return self.expires_at is not None and now >= self.expires_at


class Sent:
    """A chunk with its TSN."""

    __slots__ = ("flags", "message", "payload", "resends", "state", "tsn")

    def __init__(self, tsn: int, flags: int, payload: bytes, message: Message) -> None:
        self.tsn = tsn
        self.flags = flags
        self.payload = payload
        self.message = message
        self.resends = 0
        self.state = State.IN_FLIGHT


class Outstanding:
    """Chunks by TSN. ``partial`` says that the peer knows FORWARD-TSN: without it nothing is abandoned."""

    def __init__(self, meter: Meter, tsn: int) -> None:
        self._meter = meter
        self.next_tsn = tsn
        self.cumulative = tsn - 1  # acknowledged up to here
        self.given_up_to = tsn - 1  # the peer may be told to go on from here: the Advanced.Peer.Ack.Point
        self.flight_bytes = 0
        self.held_bytes = 0  # of all chunks here, with MESSAGE_BYTES for each message; whoever queues adds to it
        self.partial = False
        self._sent: dict[int, Sent] = {}  # ascending
        self._acknowledged = Ranges()
        self._lost: list[int] = []  # a heap of TSNs, some of them lost no more
        self._strikes: list[int] = []  # the largest TSNs that SACKs acknowledged, ascending
        self._struck_to = tsn - 1
        self._skipped: dict[int, tuple[int, int]] = {}  # stream → last SSN that is given up, and its TSN

    def __len__(self) -> int:
        return len(self._sent)

    @property
    def has_lost(self) -> bool:
        """Something may be to be sent again."""
        return bool(self._lost)

    def add(self, message: Message, payload: bytes) -> Sent:
        """Give the message's next chunk its TSN; it is in flight."""
        flags = 0 if message.ordered else UNORDERED
        if message.offset == 0:
            flags |= BEGINS
            message.first_tsn = self.next_tsn
        message.offset += len(payload)
        message.chunks += 1
        if message.offset == len(message.data):
            flags |= ENDS
            message.data = b""  # the chunks have it
        one = self._sent[self.next_tsn] = Sent(self.next_tsn, flags, payload, message)
        self.next_tsn += 1
        self.flight_bytes += len(payload)
        return one

    def acknowledge(self, sack: Sack) -> tuple[int, list[int]] | None:
        """Take a SACK that is not older than the last; gives the bytes that it acknowledges first, and the TSNs among those.

        None for an older one.
        """
        cumulative = unwrap_tsn(sack.cumulative, self.cumulative)
        if cumulative >= self.next_tsn:
            raise Violation("what was never sent is acknowledged")
        if cumulative < self.cumulative:
            return None
        count = 0
        new: list[int] = []
        for tsn in range(self.cumulative + 1, cumulative + 1):
            one = self._sent.pop(tsn)
            count += self._arrived(one, new)
            self.held_bytes -= len(one.payload) + (MESSAGE_BYTES if one.flags & ENDS else 0)
        self.cumulative = cumulative
        self._acknowledged.forget_to(cumulative)
        self._meter.steps += len(sack.gaps)
        for first, last in sack.gaps:
            for begin, end in self._new_in(cumulative + first, min(cumulative + last, self.next_tsn - 1)):
                for tsn in range(begin, end + 1):
                    count += self._arrived(self._sent[tsn], new)
        return count, new

    def _new_in(self, first: int, last: int) -> list[tuple[int, int]]:
        return self._acknowledged.add(first, last) if first <= last and first > self.cumulative else []

    def _arrived(self, one: Sent, new: list[int]) -> int:
        self._meter.steps += 1
        if one.state is State.ACKNOWLEDGED or one.state is State.ABANDONED:
            return 0
        if one.state is State.IN_FLIGHT:
            self.flight_bytes -= len(one.payload)
        one.state = State.ACKNOWLEDGED
        new.append(one.tsn)
        return len(one.payload)

    def strike(self, highest: int) -> bool:
        """Count one SACK against all that is missing before ``highest``; True when that makes chunks lost."""
        self._strikes = sorted([*self._strikes, highest])[-_STRIKES:]
        if len(self._strikes) < _STRIKES:
            return False
        below, lost = self._strikes[0], False
        for tsn in range(max(self._struck_to, self.cumulative) + 1, below):
            self._meter.steps += 1
            one = self._sent[tsn]
            if one.state is State.IN_FLIGHT:
                self.flight_bytes -= len(one.payload)
                one.state = State.LOST
                heappush(self._lost, tsn)
                lost = True
        self._struck_to = max(self._struck_to, below - 1)
        return lost

    def time_out(self) -> None:
        """Take everything for lost, also what was reported: the peer may have thrown it away since."""
        self._meter.steps += len(self._sent)
        self._acknowledged.clear()
        self._strikes.clear()
        self._lost = []
        for tsn, one in self._sent.items():
            if one.state is not State.ABANDONED:
                one.state = State.LOST
                self._lost.append(tsn)  # ascending: a heap
        self.flight_bytes = 0

    def next_lost(self, now: float) -> Sent | None:
        """Return what is to be sent again first. What is too late for that is abandoned on the way."""
        while self._lost:
            self._meter.steps += 1
            one = self._sent.get(self._lost[0])
            if one is None or one.state is not State.LOST:
                heappop(self._lost)
            elif self.partial and one.message.is_given_up(one.resends, now):
                self.abandon(one.message)
            else:
                return one
        return None

    def send_again(self, one: Sent) -> None:
        """The first lost one is in flight again."""
        heappop(self._lost)
        one.state = State.IN_FLIGHT
        one.resends += 1
        self.flight_bytes += len(one.payload)

    def abandon(self, message: Message) -> None:
        """Give up a message of which something was sent.

        What was not cut yet stays away: one empty chunk stands for it, which is never sent. Without it, a peer that has all that
        was sent would see another message begin in the middle of this one.
        """
        if message.data:
            self.held_bytes -= len(message.data) - message.offset
            message.data = b""
            message.chunks += 1
            self._sent[self.next_tsn] = Sent(self.next_tsn, ENDS, b"", message)
            self.next_tsn += 1
        for tsn in range(message.first_tsn, message.first_tsn + message.chunks):
            self._meter.steps += 1
            one = self._sent.get(tsn)
            if one is None or one.state is State.ABANDONED:
                continue
            if one.state is State.IN_FLIGHT:
                self.flight_bytes -= len(one.payload)
            self.held_bytes -= len(one.payload)
            one.payload = b""
            one.state = State.ABANDONED

    def give_up(self) -> bool:
        """Move `given_up_to` over what is abandoned (RFC 3758 section 3.5, C1 and C2); True when the peer is to be told."""
        at = max(self.given_up_to, self.cumulative)
        while (one := self._sent.get(at + 1)) is not None and one.state is State.ABANDONED:
            self._meter.steps += 1
            at += 1
            if one.message.ordered:
                self._skipped[one.message.stream] = (one.message.ssn, at)
        self.given_up_to = at
        return at > self.cumulative

    def skipped(self) -> list[tuple[int, int]]:
        """Return streams and the SSNs up to which they are given up, of what the peer has not passed."""
        self._skipped = {stream: told for stream, told in self._skipped.items() if told[1] > self.cumulative}
        return [(stream, ssn) for stream, (ssn, _) in self._skipped.items()]

    def export(self, messages: list[Message]) -> dict[str, Any]:
        """Return its state; messages that chunks belong to are added to ``messages`` and named by their place there."""
        places = {id(message): place for place, message in enumerate(messages)}
        chunks = []
        for one in self._sent.values():
            if id(one.message) not in places:
                places[id(one.message)] = len(messages)
                messages.append(one.message)
            chunks.append([one.tsn, one.flags, one.payload, one.resends, int(one.state), places[id(one.message)]])
        return {
            "next_tsn": self.next_tsn,
            "cumulative": self.cumulative,
            "given_up_to": self.given_up_to,
            "flight_bytes": self.flight_bytes,
            "held_bytes": self.held_bytes,
            "partial": self.partial,
            "chunks": chunks,
            "acknowledged": self._acknowledged.export(),
            "lost": list(self._lost),
            "strikes": list(self._strikes),
            "struck_to": self._struck_to,
            "skipped": [[stream, *told] for stream, told in self._skipped.items()],
        }

    def restore(self, state: dict[str, Any], messages: list[Message]) -> None:
        """Go on from an export."""
        for name in ("next_tsn", "cumulative", "given_up_to", "flight_bytes", "held_bytes", "partial"):
            setattr(self, name, state[name])
        for tsn, flags, payload, resends, made, place in state["chunks"]:
            one = self._sent[tsn] = Sent(tsn, flags, payload, messages[place])
            one.resends, one.state = resends, State(made)
        self._acknowledged = Ranges.restore(state["acknowledged"])
        self._lost = list(state["lost"])
        self._strikes = list(state["strikes"])
        self._struck_to = state["struck_to"]
        self._skipped = {stream: (ssn, tsn) for stream, ssn, tsn in state["skipped"]}

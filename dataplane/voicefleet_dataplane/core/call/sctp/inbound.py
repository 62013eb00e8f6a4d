"""What the peer sends: which TSNs have come, what is acknowledged when, and how much is kept (RFC 9260 sections 6.2 and 6.7).

A chunk is taken, or dropped as if the network had lost it. It is dropped
- past the window that was announced, unless it fills a hole: for those there is another limit;
- too far ahead of what is missing, or when it would open one hole too many.
A peer that follows the RFC meets the last two on a network that is about to fail anyway. The next chunk in order finds the
last limit reached only if what is kept can never become messages: then the association ends.

Owns: TSNs of the peer, SACK, the window. Does not own: messages (reassembly.py).
"""

from enum import Enum, auto
from typing import Any

from voicefleet_dataplane.core.call.sctp.chunks import AT_ONCE, UNORDERED, Violation, build_sack
from voicefleet_dataplane.core.call.sctp.meter import Meter
from voicefleet_dataplane.core.call.sctp.ranges import TSN_MASK, Ranges, unwrap_tsn
from voicefleet_dataplane.core.call.sctp.reassembly import FRAGMENT_BYTES, Reassembly, Received

WINDOW_BYTES = 1 << 20  # what is announced
_LIMIT_BYTES = WINDOW_BYTES + (WINDOW_BYTES >> 1)  # fragments count more than their bytes
_HOLES_LIMIT_BYTES = 2 * WINDOW_BYTES
_LAST_LIMIT_BYTES = _HOLES_LIMIT_BYTES + (WINDOW_BYTES >> 1)
MAX_AHEAD = 16_384  # TSNs
MAX_HOLES = 1_024
_MAX_REPORTED = 64  # holes in a SACK: a bounded answer; the peer sends the others again when these are filled
_MAX_DUPLICATES = 16
SACK_DELAY_S = 0.2


class Taken(Enum):
    """What became of a chunk."""

    TAKEN = auto()
    DUPLICATE = auto()
    DROPPED = auto()
    NO_SUCH_STREAM = auto()


class Inbound:
    """One direction of an association. ``tsn`` is the first that the peer uses."""

    def __init__(self, meter: Meter, tsn: int, max_message_bytes: int) -> None:
        self._meter = meter
        self.cumulative = tsn - 1
        self.messages = Reassembly(meter, max_message_bytes)
        self._ahead = Ranges()
        self._duplicates: list[int] = []
        self._packets = 0  # with data, since the last SACK
        self._announced = WINDOW_BYTES
        self.sack_at: float | None = None  # at the latest
        self._sack_now = True  # the first one tells the peer its round-trip time

    @property
    def window(self) -> int:
        """What may come, in bytes."""
        return min(max(_LIMIT_BYTES - self.messages.kept_bytes, 0), WINDOW_BYTES)

    def receive(self, flags: int, wire: int, stream: int, ssn: int, protocol: int, fragment: bytes) -> Taken:
        """Take a DATA chunk."""
        tsn = unwrap_tsn(wire, self.cumulative)
        if flags & AT_ONCE:
            self._sack_now = True
        if tsn <= self.cumulative or (self._ahead.firsts and tsn in self._ahead):
            self._sack_now = True
            if len(self._duplicates) < _MAX_DUPLICATES:
                self._duplicates.append(wire)
            return Taken.DUPLICATE
        if not self._has_room_for(tsn, len(fragment) + FRAGMENT_BYTES):
            self._sack_now = True  # the window may have closed
            return Taken.DROPPED
        is_known = flags & UNORDERED or self.messages.has_room_for(stream)
        if tsn == self.cumulative + 1:
            self.cumulative = tsn
            self._pass_ahead()
        else:
            self._sack_now = True
            self._ahead.add(tsn, tsn)
        if not is_known:
            return Taken.NO_SUCH_STREAM
        self.messages.add(tsn, flags, stream, ssn, protocol, fragment)
        return Taken.TAKEN

    def _has_room_for(self, tsn: int, size: int) -> bool:
        kept = self.messages.kept_bytes + size
        if tsn == self.cumulative + 1:
            if self.messages.ready:  # the application is behind
                return kept <= _LIMIT_BYTES
            if kept > _LAST_LIMIT_BYTES:
                raise Violation("what is kept cannot become messages")
            return True
        if tsn > self.cumulative + MAX_AHEAD or (len(self._ahead) >= MAX_HOLES and not self._ahead.touches(tsn)):
            return False
        fills_hole = bool(self._ahead.lasts) and tsn < self._ahead.lasts[-1]
        return kept <= (_HOLES_LIMIT_BYTES if fills_hole else _LIMIT_BYTES)

    def _pass_ahead(self) -> None:
        ahead = self._ahead
        if ahead.firsts and ahead.firsts[0] == self.cumulative + 1:
            self.cumulative = ahead.lasts[0]
            ahead.forget_to(self.cumulative)
        if ahead.firsts:  # more is missing
            self._sack_now = True

    def forward(self, wire: int, skipped: list[tuple[int, int]]) -> None:
        """Take a FORWARD-TSN: what has not come up to there is not waited for."""
        tsn = unwrap_tsn(wire, self.cumulative)
        self._sack_now = True
        if tsn <= self.cumulative:
            return
        self.cumulative = tsn
        self._ahead.forget_to(tsn)
        self._pass_ahead()
        self.messages.forward(tsn, skipped)

    def take(self) -> Received | None:
        """Return the next message. A window that was small opens again, and the peer is told."""
        message = self.messages.take()
        if message is not None and self._announced < WINDOW_BYTES >> 1 <= self.window:
            self._sack_now = True
        return message

    def end_packet(self, now: float) -> None:
        """A packet with data is over: acknowledge every second one, and each after 200 ms (section 6.2)."""
        self._packets += 1
        if self._packets >= 2:
            self._sack_now = True
        elif self.sack_at is None:
            self.sack_at = now + SACK_DELAY_S

    def sack(self, now: float, *, at_once: bool) -> bytes | None:
        """Build the SACK that is due, or that would be some time if ``at_once``."""
        if not self._sack_now and (self.sack_at is None or (now < self.sack_at and not at_once)):
            return None
        self._sack_now = False
        self.sack_at = None
        self._packets = 0
        self._announced = self.window
        gaps = [
            (first - self.cumulative, last - self.cumulative)
            for first, last in zip(self._ahead.firsts[:_MAX_REPORTED], self._ahead.lasts, strict=False)
        ]
        self._meter.steps += 1 + len(gaps)
        duplicates, self._duplicates = self._duplicates, []
        return build_sack(self.cumulative & TSN_MASK, self._announced, gaps, duplicates)

    def export(self) -> dict[str, Any]:
        """Return its state; times are as they are here."""
        return {
            "cumulative": self.cumulative,
            "messages": self.messages.export(),
            "ahead": self._ahead.export(),
            "duplicates": list(self._duplicates),
            "packets": self._packets,
            "announced": self._announced,
            "sack_at": self.sack_at,
            "sack_now": self._sack_now,
        }

    def restore(self, state: dict[str, Any], shift_s: float) -> None:
        """Go on from an export whose clock was ``shift_s`` behind ours."""
        self.cumulative = state["cumulative"]
        self.messages.restore(state["messages"])
        self._ahead = Ranges.restore(state["ahead"])
        self._duplicates = list(state["duplicates"])
        self._packets = state["packets"]
        self._announced = state["announced"]
        self.sack_at = None if state["sack_at"] is None else state["sack_at"] + shift_s
        self._sack_now = state["sack_now"]

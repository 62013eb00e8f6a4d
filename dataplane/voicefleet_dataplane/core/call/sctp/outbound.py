"""Messages on their way out: the queue, the two windows, the retransmission timer (RFC 9260 sections 6.1, 6.3 and 7.2).

One message after the other is cut into chunks, in the order in which they were given: chunks of a message have consecutive
TSNs. A chunk goes out when the congestion window and the peer's window let it; into a peer's closed window one chunk goes at a
time, as a probe. What was lost goes first.

Owns: what is sent when. Does not own: chunks that were sent (outstanding.py), packets, the end of an association that is not
answered (association.py).
"""

from collections import deque
from typing import Any

from voicefleet_dataplane.core.call.sctp.chunks import (
    AT_ONCE,
    DATA_HEADER_BYTES,
    ENDS,
    Sack,
    build_data,
    build_forward_tsn,
)
from voicefleet_dataplane.core.call.sctp.congestion import CongestionWindow, RetransmissionTimeout
from voicefleet_dataplane.core.call.sctp.meter import Meter
from voicefleet_dataplane.core.call.sctp.outstanding import MESSAGE_BYTES, Message, Outstanding, Sent
from voicefleet_dataplane.core.call.sctp.ranges import SSN_MASK, TSN_MASK

_MAX_SKIPPED = 64  # streams in one FORWARD-TSN; another one tells the rest


class Outbound:
    """One direction of an association."""

    def __init__(self, meter: Meter, tsn: int, payload_bytes: int) -> None:
        self._meter = meter
        self._payload_bytes = payload_bytes
        self.sent = Outstanding(meter, tsn)
        self.congestion = CongestionWindow(payload_bytes)
        self.timeout = RetransmissionTimeout()
        self.peer_window = 0
        self.resend_at: float | None = None  # T3-rtx
        self._queue: deque[Message] = deque()
        self._queued: dict[int, int] = {}  # stream → messages of it in the queue
        self._ssns: dict[int, int] = {}
        self._limit = 0
        self._regardless = False  # the first packet of a fast retransmission asks no window (section 7.2.4)
        self._timed: tuple[int, float] | None = None  # a TSN, and when it was sent
        self._forward_due = False
        self._forwarded_at = 0.0

    @property
    def held_bytes(self) -> int:
        """What waits, or is not acknowledged."""
        return self.sent.held_bytes

    @property
    def is_empty(self) -> bool:
        """Nothing waits, and all is acknowledged."""
        return not self._queue and not len(self.sent)

    @property
    def is_eager(self) -> bool:
        """Something waits to be sent."""
        return bool(self._queue) or self.sent.has_lost

    def queue(self, message: Message) -> None:
        """Take a message of at least one byte."""
        self._queue.append(message)
        self._queued[message.stream] = self._queued.get(message.stream, 0) + 1
        self.sent.held_bytes += len(message.data) + MESSAGE_BYTES

    def is_queued(self, stream: int) -> bool:
        """Say whether messages of the stream wait for their TSNs."""
        return stream in self._queued

    def reset_stream(self, stream: int) -> None:
        """Its next message is the first again (RFC 6525)."""
        self._ssns.pop(stream, None)

    # ---- out

    def begin(self, now: float) -> None:
        """Find out how much may be sent until the peer says something, before a row of `fill`."""
        self._meter.steps += 1
        self._limit = self.congestion.limit(self.sent.flight_bytes)
        self.sent.next_lost(now)  # abandons what is too late
        self._drop_late(now)
        before = self.sent.given_up_to
        if self.sent.give_up() and self.sent.given_up_to > before:
            self._forward_due = True

    def fill(self, chunks: list[bytes], room: int, now: float) -> None:
        """Add what is due and fits into ``room`` bytes."""
        if self._forward_due:
            self._forward_due = False
            built = build_forward_tsn(self.sent.given_up_to & TSN_MASK, self.sent.skipped()[:_MAX_SKIPPED])
            chunks.append(built)
            room -= len(built)
            self._forwarded_at = now
            self._start_timer(now)
        room, all_sent = self._send_lost(chunks, room, now)
        if all_sent:
            self._send_new(chunks, room, now)

    def _send_lost(self, chunks: list[bytes], room: int, now: float) -> tuple[int, bool]:
        regardless = self._regardless
        while (one := self.sent.next_lost(now)) is not None:
            in_flight = self.sent.flight_bytes
            if _size(one.payload) > room or (in_flight and in_flight >= self._limit and not regardless):
                return room, False
            self._regardless = False
            self.sent.send_again(one)
            if self._timed is not None and self._timed[0] == one.tsn:
                self._timed = None  # nobody could say which of the two was acknowledged
            if one.tsn == self.sent.cumulative + 1:
                self.resend_at = None  # the earliest that is out: the timer begins anew (section 7.2.4)
            room -= self._append(chunks, one, now)
        return room, True

    def _send_new(self, chunks: list[bytes], room: int, now: float) -> None:
        while self._queue:
            message = self._queue[0]
            if not message.data or (self.sent.partial and message.is_late(now)):
                self._drop_late(now)
                continue
            payload = message.data[message.offset : message.offset + self._payload_bytes]
            in_flight = self.sent.flight_bytes
            if _size(payload) > room or (
                in_flight and (in_flight >= self._limit or in_flight + len(payload) > self.peer_window)
            ):
                return
            if message.offset == 0 and message.ordered:
                message.ssn = self._ssns.get(message.stream, 0)
                self._ssns[message.stream] = (message.ssn + 1) & SSN_MASK
            one = self.sent.add(message, payload)
            if self._timed is None:
                self._timed = (one.tsn, now)
            room -= self._append(chunks, one, now)
            if one.flags & ENDS:
                self._leave_queue()

    def _append(self, chunks: list[bytes], one: Sent, now: float) -> int:
        self._meter.steps += 1
        message = one.message
        # Where the peer's delay of 200 ms would be ours: what we wait for, it is asked to say at once (RFC 7053).
        at_once = AT_ONCE if one.resends or self.sent.flight_bytes >= self._limit else 0
        numbers = (one.tsn & TSN_MASK, message.stream, message.ssn, message.protocol)
        built = build_data(one.flags | at_once, *numbers, one.payload)
        chunks.append(built)
        self._start_timer(now)
        return len(built)

    def _drop_late(self, now: float) -> None:
        """Take messages from the head of the queue that are too late, or were given up in the middle."""
        while self._queue:
            message = self._queue[0]
            if message.data and not (self.sent.partial and message.is_late(now)):
                return
            self._meter.steps += 1
            self._leave_queue()
            if message.chunks:
                self.sent.abandon(message)
            else:
                self.sent.held_bytes -= len(message.data) + MESSAGE_BYTES

    def _leave_queue(self) -> None:
        stream = self._queue.popleft().stream
        self._queued[stream] -= 1
        if not self._queued[stream]:
            del self._queued[stream]

    # ---- what the peer says, and what it does not

    def receive(self, sack: Sack, now: float) -> bool:
        """Take a SACK; True when it acknowledges something new."""
        sent, congestion = self.sent, self.congestion
        was_used = congestion.is_used(sent.flight_bytes)
        before = sent.cumulative
        found = sent.acknowledge(sack)
        if found is None:
            return False
        count, new = found
        advanced = sent.cumulative > before
        self.peer_window = sack.window
        if self._timed is not None and self._timed[0] in new:
            self.timeout.measure(now - self._timed[1])
        if self._timed is not None and (self._timed[0] <= sent.cumulative or self._timed[0] in new):
            self._timed = None
        if congestion.recovery_ends is not None and sent.cumulative >= congestion.recovery_ends:
            congestion.recovery_ends = None
        if advanced:
            congestion.acknowledged(count, was_used=was_used)
        self._look_for_losses(sack, new, advanced=advanced)
        if not len(sent):
            self.resend_at = None
        elif advanced:
            self.resend_at = now + self.timeout.rto_s
        if sent.give_up() and now - self._forwarded_at >= (self.timeout.srtt_s or 0.0):
            self._forward_due = True
        return bool(new) or advanced

    def _look_for_losses(self, sack: Sack, new: list[int], *, advanced: bool) -> None:
        sent, congestion = self.sent, self.congestion
        highest = max(new, default=sent.cumulative)
        if congestion.recovery_ends is not None and advanced and sack.gaps:
            highest = max(highest, min(sent.cumulative + sack.gaps[-1][1], sent.next_tsn - 1))
        if highest > sent.cumulative and sent.strike(highest) and congestion.lost(sent.next_tsn - 1):
            self._regardless = True

    def _start_timer(self, now: float) -> None:
        if self.resend_at is None:
            self.resend_at = now + self.timeout.rto_s

    def time_out(self, now: float) -> None:
        """T3-rtx ran out (section 6.3.3)."""
        self.timeout.back_off()
        self.congestion.timed_out()
        self.sent.time_out()
        self._timed = None
        self.resend_at = None
        if self.sent.give_up():
            self._forward_due = True
        elif len(self.sent):
            self._start_timer(now)

    # ---- its state elsewhere

    def export(self) -> dict[str, Any]:
        """Return its state; times are as they are here."""
        messages = list(self._queue)
        sent = self.sent.export(messages)
        return {
            "sent": sent,
            "queued": len(self._queue),
            "messages": [[getattr(message, name) for name in Message.__slots__] for message in messages],
            "congestion": self.congestion.export(),
            "timeout": self.timeout.export(),
            "peer_window": self.peer_window,
            "resend_at": self.resend_at,
            "ssns": [list(pair) for pair in self._ssns.items()],
            "regardless": self._regardless,
            "timed": None if self._timed is None else list(self._timed),
            "forward_due": self._forward_due,
            "forwarded_at": self._forwarded_at,
        }

    def restore(self, state: dict[str, Any], shift_s: float) -> None:
        """Go on from an export whose clock was ``shift_s`` behind ours."""
        messages = []
        for values in state["messages"]:
            message = Message(0, 0, b"")
            for name, value in zip(Message.__slots__, values, strict=True):
                setattr(message, name, value)
            if message.expires_at is not None:
                message.expires_at += shift_s
            messages.append(message)
        self.sent.restore(state["sent"], messages)
        for message in messages[: state["queued"]]:
            self._queue.append(message)
            self._queued[message.stream] = self._queued.get(message.stream, 0) + 1
        self.congestion.restore(state["congestion"])
        self.timeout.restore(state["timeout"])
        self.peer_window = state["peer_window"]
        self.resend_at = None if state["resend_at"] is None else state["resend_at"] + shift_s
        self._ssns = dict(state["ssns"])
        self._regardless = state["regardless"]
        self._timed = None if state["timed"] is None else (state["timed"][0], state["timed"][1] + shift_s)
        self._forward_due = state["forward_due"]
        self._forwarded_at = state["forwarded_at"] + shift_s


def _size(payload: bytes) -> int:
    return DATA_HEADER_BYTES + (len(payload) + 3 & ~3)

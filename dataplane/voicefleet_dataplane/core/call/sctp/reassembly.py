"""Fragments become messages, and messages of a stream come in order (RFC 9260 sections 6.5, 6.6 and 6.9).

Fragments of a message have consecutive TSNs. Neighbours join to a run; a run that begins and ends is a message. Joining
moves the shorter list of fragments to the longer one. An ordered message that comes before its turn waits in its stream.

Everything that is kept counts: its bytes and FRAGMENT_BYTES, so that a thousand fragments of one byte are not taken for a
kilobyte. What is delivered counts until it is taken.

Owns: what is kept of messages. Does not own: TSNs (arrivals.py), how much may be kept (inbound.py).
"""

from collections import deque
from heapq import heappop, heappush
from typing import Any, NamedTuple

from voicefleet_dataplane.core.call.sctp.chunks import BEGINS, ENDS, UNORDERED, Violation
from voicefleet_dataplane.core.call.sctp.meter import Meter
from voicefleet_dataplane.core.call.sctp.ranges import unwrap_ssn

FRAGMENT_BYTES = 256
MAX_STREAMS = 256  # with ordered messages; channels are fewer


class Received(NamedTuple):
    """A message of the peer. ``protocol`` is its payload protocol identifier."""

    stream: int
    protocol: int
    data: bytes


class _Run:
    """Neighbouring fragments of one message."""

    __slots__ = ("begins", "ends", "first", "fragments", "last", "ordered", "protocol", "size", "ssn", "stream")

    def __init__(self, tsn: int, flags: int, stream: int, ssn: int, protocol: int, fragment: bytes) -> None:
        self.first = self.last = tsn
        self.begins, self.ends = bool(flags & BEGINS), bool(flags & ENDS)
        self.ordered = not flags & UNORDERED
        self.stream, self.ssn, self.protocol = stream, ssn, protocol
        self.fragments = deque((fragment,))
        self.size = len(fragment)

    def append(self, right: "_Run") -> None:
        """Take the fragments that follow."""
        if (self.stream, self.ssn, self.ordered) != (right.stream, right.ssn, right.ordered):
            raise Violation("fragments of two messages have neighbouring TSNs")
        if len(self.fragments) >= len(right.fragments):
            self.fragments.extend(right.fragments)
        else:
            right.fragments.extendleft(reversed(self.fragments))
            self.fragments = right.fragments
        self.last, self.ends = right.last, right.ends
        self.size += right.size


class _Stream:
    """What is next in a stream, and the messages that came before their turn, by SSN."""

    __slots__ = ("next_ssn", "order", "waiting")

    def __init__(self) -> None:
        self.next_ssn = 0
        self.waiting: dict[int, Received] = {}
        self.order: list[int] = []  # a heap of the SSNs in `waiting`


class Reassembly:
    """`ready` are messages to be taken from the left. `kept_bytes` counts them and all that waits."""

    def __init__(self, meter: Meter, max_message_bytes: int) -> None:
        self._meter = meter
        self._max_message_bytes = max_message_bytes
        self.kept_bytes = 0
        self.ready: deque[Received] = deque()
        self._streams: dict[int, _Stream] = {}
        self._by_first: dict[int, _Run] = {}
        self._by_last: dict[int, _Run] = {}
        self._firsts: list[int] = []  # a heap of the keys of _by_first, some of them gone

    def has_room_for(self, stream: int) -> bool:
        """Say whether ordered messages of the stream can be taken."""
        return stream in self._streams or len(self._streams) < MAX_STREAMS

    def add(self, tsn: int, flags: int, stream: int, ssn: int, protocol: int, fragment: bytes) -> None:
        """Take a fragment, each TSN once."""
        self._meter.steps += 1
        self.kept_bytes += len(fragment) + FRAGMENT_BYTES
        run = _Run(tsn, flags, stream, ssn, protocol, fragment)
        if not run.begins and (left := self._by_last.get(tsn - 1)) is not None and not left.ends:
            del self._by_last[tsn - 1]
            left.append(run)
            run = left
        if not run.ends and (right := self._by_first.get(tsn + 1)) is not None and not right.begins:
            del self._by_first[tsn + 1]
            run.append(right)
        if run.size > self._max_message_bytes:
            raise Violation(f"a message is longer than {self._max_message_bytes} bytes")
        if run.begins and run.ends:
            self._by_first.pop(run.first, None)
            self._by_last.pop(run.last, None)
            self._complete(run)
            return
        if run.first not in self._by_first:
            self._by_first[run.first] = run
            self._note_first(run.first)
        self._by_last[run.last] = run

    def _note_first(self, tsn: int) -> None:
        if len(self._firsts) > 2 * len(self._by_first) + 64:  # most of them are gone
            self._firsts = sorted(self._by_first)
        else:
            heappush(self._firsts, tsn)

    def _complete(self, run: _Run) -> None:
        self.kept_bytes -= (len(run.fragments) - 1) * FRAGMENT_BYTES  # from here on it is one piece
        message = Received(run.stream, run.protocol, b"".join(run.fragments))
        if not run.ordered:
            self.ready.append(message)
            return
        stream = self._stream(run.stream)
        ssn = unwrap_ssn(run.ssn, stream.next_ssn)
        if ssn < stream.next_ssn or ssn in stream.waiting:
            raise Violation("two messages of a stream have one sequence number")
        stream.waiting[ssn] = message
        heappush(stream.order, ssn)
        self._deliver(stream)

    def _stream(self, number: int) -> _Stream:
        stream = self._streams.get(number)
        if stream is None:
            stream = self._streams[number] = _Stream()
        return stream

    def _deliver(self, stream: _Stream) -> None:
        while stream.order and stream.order[0] == stream.next_ssn:
            self._meter.steps += 1
            self.ready.append(stream.waiting.pop(heappop(stream.order)))
            stream.next_ssn += 1

    def take(self) -> Received | None:
        """Return the next message."""
        if not self.ready:
            return None
        message = self.ready.popleft()
        self.kept_bytes -= len(message.data) + FRAGMENT_BYTES
        return message

    def forward(self, tsn: int, skipped: list[tuple[int, int]]) -> None:
        """Give up unfinished messages up to ``tsn``, and wait no more for the SSNs that streams skip (RFC 3758 section 3.6)."""
        while self._firsts and self._firsts[0] <= tsn:
            self._meter.steps += 1
            run = self._by_first.pop(heappop(self._firsts), None)
            if run is not None:
                del self._by_last[run.last]
                self.kept_bytes -= run.size + len(run.fragments) * FRAGMENT_BYTES
        self._meter.steps += len(skipped)
        for number, wire in skipped:
            if not self.has_room_for(number):
                continue
            stream = self._stream(number)
            ssn = unwrap_ssn(wire, stream.next_ssn)
            while stream.order and stream.order[0] <= ssn:
                self._meter.steps += 1
                self.ready.append(stream.waiting.pop(heappop(stream.order)))
            stream.next_ssn = max(stream.next_ssn, ssn + 1)
            self._deliver(stream)

    def reset(self, numbers: list[int]) -> None:
        """Streams begin anew, all of them if none is named (RFC 6525 section 5.2.2): what waited for what never came is gone."""
        for number in numbers or list(self._streams):
            self._meter.steps += 1
            stream = self._streams.pop(number, None)
            if stream is not None:
                self.kept_bytes -= sum(len(one.data) + FRAGMENT_BYTES for one in stream.waiting.values())

    def export(self) -> dict[str, Any]:
        """Return its state."""
        return {
            "kept_bytes": self.kept_bytes,
            "ready": [list(message) for message in self.ready],
            "streams": [
                [number, stream.next_ssn, [[ssn, *stream.waiting[ssn]] for ssn in stream.order]]
                for number, stream in self._streams.items()
            ],
            "runs": [
                [run.first, run.last, run.begins, run.ends, run.ordered, run.stream, run.ssn, run.protocol]
                for run in self._by_first.values()
            ],
            "fragments": [list(run.fragments) for run in self._by_first.values()],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from an export."""
        self.kept_bytes = state["kept_bytes"]
        self.ready.extend(Received(*message) for message in state["ready"])
        for number, next_ssn, waiting in state["streams"]:
            stream = self._stream(number)
            stream.next_ssn = next_ssn
            stream.order = [ssn for ssn, *_ in waiting]
            stream.waiting = {ssn: Received(*message) for ssn, *message in waiting}
        for (first, last, begins, ends, ordered, number, ssn, protocol), fragments in zip(
            state["runs"], state["fragments"], strict=True
        ):
            run = _Run(first, 0, number, ssn, protocol, b"")
            run.last, run.begins, run.ends, run.ordered = last, begins, ends, ordered
            run.fragments, run.size = deque(fragments), sum(map(len, fragments))
            self._by_first[first] = self._by_last[last] = run
        self._firsts = sorted(self._by_first)

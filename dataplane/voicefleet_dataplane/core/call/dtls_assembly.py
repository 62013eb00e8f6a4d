"""Handshake messages from fragments that may be anybody's: put together in every way that fits, within bounds.

Fragments in clear can be forged by who spoofs the peer's address, and a forged one must not take the place of a true one. So
all are kept side by side, the newest few of each message, and each way to lay some of them end to end is a message. Which one is
true is for others to find out. Forged ones in numbers push true ones out; the parts of a message come right after each other, and
come again when their flight is repeated, so they find each other.

Owns: fragments, and the bounds. Does not own: which message is believed (core/call/dtls_flight.py).
"""

from collections.abc import Iterable, Iterator

from voicefleet_dataplane.wire.dtls_handshake import Fragment, Message, parse_fragments
from voicefleet_dataplane.wire.dtls_record import HANDSHAKE, parse_records, record_epoch

MOST_GROUPS = 4  # messages of which parts are kept: a flight has at most two that do not fit a datagram
MOST_PARTS = 16  # of each
_MOST_WAYS = 4
_MOST_STEPS = 64

_Group = tuple[int, int, int]  # sequence, kind, length


class Assembly:
    """The parts of a peer's messages."""

    def __init__(self) -> None:
        self._groups: dict[_Group, list[Fragment]] = {}  # oldest first

    def add(self, fragment: Fragment) -> list[Message]:
        """Take a fragment; gives the messages that it completes, which are few."""
        if fragment.is_whole:
            return [Message(fragment.kind, fragment.sequence, fragment.data)]
        if not fragment.data:
            return []
        group = (fragment.sequence, fragment.kind, fragment.length)
        parts = self._groups.pop(group, [])
        if fragment not in parts:
            parts = [*parts[-(MOST_PARTS - 1) :], fragment]
        self._groups[group] = parts  # the newest
        if len(self._groups) > MOST_GROUPS:
            del self._groups[next(iter(self._groups))]
        found = []
        for way in _ways(parts, fragment.length):
            if fragment in way:
                found.append(Message(fragment.kind, fragment.sequence, b"".join(part.data for part in way)))
                if len(found) == _MOST_WAYS:
                    break
        return found


def messages_of(flight: Iterable[bytes]) -> list[Message]:
    """Our own messages in clear, as they stand in the datagrams of a flight."""
    assembly = Assembly()
    records = [record for datagram in flight for record in parse_records(datagram) or ()]
    fragments = [
        fragment
        for record in records
        if record[0] == HANDSHAKE and record_epoch(record) == 0
        for fragment in parse_fragments(record)
    ]
    return [message for fragment in fragments for message in assembly.add(fragment)]


def _ways(parts: list[Fragment], length: int) -> Iterator[list[Fragment]]:
    """Each way to cover a message from its beginning to its end, those of new parts first; a bounded search."""
    steps = 0
    open_ways: list[list[Fragment]] = [[]]
    while open_ways and steps < _MOST_STEPS:
        way = open_ways.pop()
        at = way[-1].offset + len(way[-1].data) if way else 0
        if at == length:
            yield way
            continue
        for part in parts:  # the newest is taken from the stack first
            if part.offset == at:
                steps += 1
                open_ways.append([*way, part])

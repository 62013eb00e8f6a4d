"""Which transceivers a page of sessions is read from, and where the next page goes on. Pure.

Sessions are listed by slot, generation and call id. A continue token is the last place that was listed: it holds no state
in the server, so any replica serves the next page, and a session that ends between two pages shifts nothing.
"""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from voicefleet_contract.outside import decode_base64_url, parse_json
from voicefleet_contract.sessions import INDEXED
from voicefleet_operator.sessions_api.selectors import Query
from voicefleet_operator.sessions_api.status import StatusError

MOST_SLOTS_AT_ONCE = 64
_MAX_TOKEN_BYTES = 512


class Place(NamedTuple):
    """A place in the order of sessions: everything up to and with ``call_id`` of this transceiver is before it."""

    slot: int = -1
    generation: int = -1
    call_id: str = ""


@dataclass(frozen=True, slots=True)
class SlotView:
    """A transceiver's heartbeat as far as listing needs it."""

    slot: int
    generation: int
    pool: str = ""
    node: str = ""
    sessions: int = 0
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    state: str = ""
    capacity: int = 0
    setups_per_s: float = 0.0
    known: bool = True  # False: no heartbeat; its sessions are listed until somebody takes them away

    @property
    def place(self) -> tuple[int, int]:
        """Its place in the order."""
        return self.slot, self.generation

    def index_for(self, query: Query) -> tuple[str, str] | None:
        """Return (field, value) of the smallest set that holds all matches; None: read them all."""
        if not self.known:
            return None
        sets = [(self.count(name, value), name, value) for name, value in query.equal.items() if name in INDEXED]
        smallest = min(sets, default=None)
        return None if smallest is None or smallest[0] * 2 >= self.sessions else smallest[1:]

    def expected(self, query: Query) -> int:
        """Return how many matches there are at most, as the heartbeat has it."""
        if not self.known:
            return 1
        if query.nothing or any(
            name in query.equal and query.equal[name] != mine
            for name, mine in (("pool", self.pool), ("node", self.node))
        ):
            return 0
        return min(
            (self.count(name, value) for name, value in query.equal.items() if name in INDEXED), default=self.sessions
        )

    def count(self, name: str, value: str) -> int:
        """Return how many sessions have a value."""
        return self.counts.get(name, {}).get(value, 0)


def batches(slots: Sequence[SlotView], query: Query, after: Place, wanted: int | None) -> Iterator[list[SlotView]]:
    """Yield transceivers to read together, in order: enough for what is wanted, never too many.

    ``wanted``: sessions per page, or None for all of them.
    """
    batch: list[SlotView] = []
    expected = 0
    for slot in slots:
        count = slot.expected(query)
        if slot.place < after[:2] or not count:
            continue
        batch.append(slot)
        expected += count
        if len(batch) >= MOST_SLOTS_AT_ONCE or (wanted is not None and expected >= wanted):
            yield batch
            batch, expected = [], 0
    if batch:
        yield batch


def encode_continue(version: int, place: Place) -> str:
    """Return a continue token."""
    return base64.urlsafe_b64encode(json.dumps([1, version, *place]).encode()).decode().rstrip("=")


def decode_continue(token: str) -> tuple[int, Place]:
    """Return (resourceVersion of the first page, place). Raises StatusError 400."""
    try:
        said = parse_json(decode_base64_url(token, _MAX_TOKEN_BYTES), _MAX_TOKEN_BYTES)
        form, version, slot, generation, call_id = said
        numbers = (version, slot, generation)
        if form != 1 or not isinstance(call_id, str) or not all(type(one) is int and one < 1 << 63 for one in numbers):
            raise ValueError
        return version, Place(slot, generation, call_id)
    except (ValueError, TypeError):
        raise StatusError(400, "continue key is not valid: it is not one that this server gave") from None

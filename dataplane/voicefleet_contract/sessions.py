"""Sessions in the registry: the record, how it is indexed, and the stream of what happened to it.

::

    HASH   …:calls:GENERATION          call id → SessionRecord          one per transceiver, one TTL
    SET    …:ix:GENERATION:FIELD:VALUE  call ids                        one per transceiver and value, same TTL
    STREAM …:events                    type, record, what it was before  one per cluster, bounded

Everything of a transceiver expires together when it stops telling, so nothing is ever searched for what is old. Which
transceivers have sessions of a relay, a region or a state stands in their heartbeats (`Heartbeat.counts`): a reader goes
only to those, and in them only to the calls of the set. A page of a million sessions costs a page.

Writers write state first, the event after it: who reads the stream's end and then the state misses nothing.

Owns: the record, the Redis commands that write it, and resource versions. Does not own: connections, or who reads.
"""

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum

from voicefleet_contract.outside import OutsideError, parse_integer, parse_model
from voicefleet_contract.registry import (
    MAX_RECORD_BYTES,
    SESSION_TTL_S,
    Record,
    events_key,
    index_key,
    sessions_key,
    slots_key,
)

Command = tuple[str | int | float, ...]

SELECTABLE = ("pool", "node", "relay", "region", "state")
INDEXED = ("relay", "region", "state")  # pool and node are the transceiver's own: its heartbeat says them
EVENTS_KEPT = 100_000  # about 60 MB; a watcher that was away for more of them lists again
_SEQUENCE_BITS = 20
_INT64 = (1 << 63) - 1
_MAX_MS = _INT64 >> _SEQUENCE_BITS


class SessionRecord(Record):
    """A session as the registry shows it: no SDP, no key, the client's network and not its address."""

    call_id: str
    pool: str
    slot: int
    generation: int
    pod: str
    node: str
    relay: str
    region: str
    client_network: str
    state: str
    started_at: float
    rtt_ms: float | None = None
    loss: float | None = None
    jitter_ms: float | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    ended_reason: str | None = None


class EventType(StrEnum):
    """As Kubernetes spells them."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


def parse_record(value: str | bytes | None) -> SessionRecord | None:
    """Return a record, or None for what is none (a malformed one is a reader's to count)."""
    try:
        return None if value is None else parse_model(SessionRecord, value, MAX_RECORD_BYTES)
    except OutsideError:
        return None


def count_fields(records: Iterable[SessionRecord]) -> dict[str, dict[str, int]]:
    """Return field → value → how many, for a heartbeat."""
    counts: dict[str, dict[str, int]] = {field: {} for field in INDEXED}
    for record in records:
        for field in INDEXED:
            value = getattr(record, field)
            counts[field][value] = counts[field].get(value, 0) + 1
    return counts


def write_commands(
    cluster: int, slot: int, generation: int, written: Sequence[tuple[SessionRecord | None, SessionRecord]]
) -> Iterator[Command]:
    """Yield the commands that bring (before, now) records of one transceiver into its hash and sets."""
    if written:
        values = (text for _, now in written for text in (now.call_id, _dump(now)))
        yield ("HSET", sessions_key(cluster, slot, generation), *values)
    for before, now in written:
        for field in INDEXED:
            old, new = (None if before is None else getattr(before, field)), getattr(now, field)
            if old == new:
                continue
            if old is not None:
                yield ("SREM", index_key(cluster, slot, generation, field, old), now.call_id)
            yield ("SADD", index_key(cluster, slot, generation, field, new), now.call_id)


def forget_commands(cluster: int, gone: Iterable[SessionRecord]) -> Iterator[Command]:
    """Yield the commands that take sessions away."""
    for record in gone:
        place = (cluster, record.slot, record.generation)
        yield ("HDEL", sessions_key(*place), record.call_id)
        for field in INDEXED:
            yield ("SREM", index_key(*place, field, getattr(record, field)), record.call_id)


def keep_commands(
    cluster: int, slot: int, generation: int, indexed: Iterable[tuple[str, str]], unix_now: float
) -> Iterator[Command]:
    """Yield the commands that keep a transceiver's sessions alive. ``indexed``: (field, value) of its sets."""
    yield ("ZADD", slots_key(cluster), round(unix_now, 3), f"{slot}:{generation}")
    yield ("EXPIRE", sessions_key(cluster, slot, generation), SESSION_TTL_S)
    for field, value in indexed:
        yield ("EXPIRE", index_key(cluster, slot, generation, field, value), SESSION_TTL_S)


def leave_commands(cluster: int, slot: int, generation: int, indexed: Iterable[tuple[str, str]]) -> Iterator[Command]:
    """Yield the commands that take a transceiver with all its sessions away."""
    yield ("ZREM", slots_key(cluster), f"{slot}:{generation}")
    yield ("DEL", sessions_key(cluster, slot, generation))
    for field, value in indexed:
        yield ("DEL", index_key(cluster, slot, generation, field, value))


def event_command(cluster: int, before: SessionRecord | None, now: SessionRecord | None) -> Command | None:
    """Return the command that tells watchers of a change; None for one that is none of theirs (a new RTT)."""
    if before is None and now is None:
        return None
    if before is not None and now is not None and all(getattr(before, f) == getattr(now, f) for f in INDEXED):
        return None
    kind = EventType.ADDED if before is None else EventType.DELETED if now is None else EventType.MODIFIED
    shown = now or before
    assert shown is not None
    fields: Command = ("type", kind.value, "record", _dump(shown))
    if kind is EventType.MODIFIED and before is not None:
        fields += ("before", _dump(before))
    return ("XADD", events_key(cluster), "MAXLEN", "~", EVENTS_KEPT, "*", *fields)


def resource_version(stream_id: str) -> int:
    """Return the decimal resourceVersion of a stream's entry ``MS-SEQ``: it grows, over lost registries too. Raises OutsideError."""
    ms, _, sequence = stream_id.partition("-")
    return parse_integer(ms, _MAX_MS) << _SEQUENCE_BITS | min(
        parse_integer(sequence or "0", _INT64), (1 << _SEQUENCE_BITS) - 1
    )


def stream_id(version: int) -> str:
    """Return the stream's entry of a resourceVersion."""
    return f"{version >> _SEQUENCE_BITS}-{version & ((1 << _SEQUENCE_BITS) - 1)}"


def _dump(record: SessionRecord) -> str:
    return record.model_dump_json(exclude_defaults=True)

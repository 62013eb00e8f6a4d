"""Reading sessions from Redis: a page, one, what happened since. Raises RegistryAwayError for a registry that is away.

Resource versions are the ids of the stream of events, which Redis makes from its clock: they grow, and go on growing when
a registry was lost. Since when the stream is whole is the *epoch*: it begins anew when another Redis answers (a failover, a
restart), because the last events of the one before may be missing. Versions of before are then told to be expired.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any, TypeVar, cast

from redis.asyncio import RedisCluster
from redis.exceptions import RedisClusterException, RedisError

from voicefleet_contract.call_id import CallIdError, peek_call_id
from voicefleet_contract.hint import MAX_GENERATION, MAX_SLOT
from voicefleet_contract.outside import OutsideError, is_digits, parse_integer, parse_json
from voicefleet_contract.registry import (
    HEARTBEAT_TTL_S,
    MAX_RECORD_BYTES,
    epoch_key,
    events_key,
    heartbeat_key,
    index_key,
    sessions_key,
)
from voicefleet_contract.registry import slots_key as all_slots_key
from voicefleet_contract.sessions import (
    Command,
    EventType,
    SessionRecord,
    parse_record,
    resource_version,
    stream_id,
)
from voicefleet_operator.cluster.redis_client import Client
from voicefleet_operator.sessions_api.pages import Place, SlotView, batches
from voicefleet_operator.sessions_api.selectors import Query

_T = TypeVar("_T")
_N = TypeVar("_N", int, float)
_FRESH_S = 1.0  # heartbeats come every two seconds
_TIMEOUT_S = 3.0
_KINDS = frozenset(kind.value for kind in EventType)


class RegistryAwayError(Exception):
    """Redis does not answer, or there is none; the text says which."""


class Change:
    """An event of the stream. ``before`` is known for MODIFIED."""

    __slots__ = ("before", "kind", "record", "version")

    def __init__(self, version: int, kind: EventType, record: SessionRecord, before: SessionRecord | None) -> None:
        self.version, self.kind, self.record, self.before = version, kind, record, before


class SessionRegistry:
    """The sessions of one cluster id."""

    def __init__(self, client: Client | None, cluster: int) -> None:
        self._client, self._cluster = client, cluster
        self._slots: tuple[float, int, list[SlotView]] = (-1e9, 0, [])
        self._epoch: tuple[float, int] = (-1e9, 0)
        self.malformed = 0  # records that could not be read, skipped

    # ---- sessions

    async def slots(self, as_of: int = 0) -> list[SlotView]:
        """Return the transceivers that have sessions or had them lately, in the order of listing.

        As they were a second ago, unless something has happened by version ``as_of``: whoever saw a session in another
        replica's answer finds it in ours.
        """
        now = asyncio.get_running_loop().time()
        read_at, version, known = self._slots
        if now - read_at < _FRESH_S and version >= as_of:
            return known
        names = await self._do(self._redis.zrange(all_slots_key(self._cluster), 0, -1))
        places = sorted(place for name in names if (place := _place(name)) is not None)
        beats = await self._pipelined([("GET", heartbeat_key(self._cluster, *place)) for place in places])
        found = [_view(*place, beat) for place, beat in zip(places, beats, strict=True)]
        self._slots = (now, as_of, found)
        return found

    async def silent_slots(self, unix_now: float) -> list[tuple[int, int]]:
        """Return the transceivers whose last heartbeat is too old."""
        oldest = unix_now - 2 * HEARTBEAT_TTL_S
        names = await self._do(self._redis.zrangebyscore(all_slots_key(self._cluster), "-inf", oldest))
        return [place for name in names if (place := _place(name)) is not None]

    async def get(self, call_id: str) -> SessionRecord | None:
        """Return a session: its id says where it is."""
        try:
            call = peek_call_id(call_id)
        except CallIdError:
            return None
        if call.cluster != self._cluster:
            return None
        key = sessions_key(self._cluster, call.slot, call.generation)
        return self._parsed(await self._do(cast("Awaitable[Any]", self._redis.hget(key, call_id))))

    async def all_of(self, slot: int, generation: int) -> list[SessionRecord]:
        """Return all sessions of a transceiver."""
        values = (await self._pipelined([("HVALS", sessions_key(self._cluster, slot, generation))]))[0]
        return [record for value in values or () if (record := self._parsed(value)) is not None]

    async def walk(
        self, query: Query, after: Place, wanted: int | None, as_of: int = 0
    ) -> AsyncIterator[SessionRecord]:
        """Yield matches after a place, in order, no older than ``as_of``. ``wanted`` bounds what is read at once."""
        if query.nothing:
            return
        if query.name is not None:
            record = await self.get(query.name)
            if record is not None and query.matches(record) and not after.call_id:
                yield record
            return
        for batch in batches(await self.slots(as_of), query, after, wanted):
            for slot, records in zip(batch, await self._read(batch, query), strict=True):
                for record in sorted(records, key=lambda one: one.call_id):
                    if (slot.place > after[:2] or record.call_id > after.call_id) and query.matches(record):
                        yield record

    async def _read(self, batch: Sequence[SlotView], query: Query) -> list[list[SessionRecord]]:
        """Read the sessions of some transceivers: through an index where it is shorter, else all."""
        indexes = {slot.place: index for slot in batch if (index := slot.index_for(query)) is not None}
        sets = [("SMEMBERS", index_key(self._cluster, *place, *index)) for place, index in indexes.items()]
        members = dict(zip(indexes, await self._pipelined(sets), strict=True))
        commands: list[Command] = []
        for slot in batch:
            key = sessions_key(self._cluster, *slot.place)
            ids = members.get(slot.place)
            commands.append(("HVALS", key) if ids is None else ("HMGET", key, *(ids or ("",))))
        values = await self._pipelined(commands)
        return [[record for value in of if (record := self._parsed(value)) is not None] for of in values]

    # ---- events

    async def epoch(self) -> int:
        """Return the version before which nothing is known; every replica finds the same one."""
        now = asyncio.get_running_loop().time()
        if now - self._epoch[0] < _FRESH_S:
            return self._epoch[1]
        key, replication = epoch_key(self._cluster), await self._replication_id()
        said = await self._do(self._redis.get(key))
        server, _, version = (said or b"").decode().partition(" ")
        if server != replication or not is_digits(version):
            marker = await self._do(self._redis.xadd(events_key(self._cluster), {"type": "EPOCH"}))
            version = str(resource_version(marker.decode()))
            await self._do(self._redis.set(key, f"{replication} {version}"))
        self._epoch = (now, parse_integer(version, (1 << 63) - 1))
        return self._epoch[1]

    async def newest(self) -> int:
        """Return the version of now."""
        await self.epoch()  # a stream that was never written has an entry from then on
        entries = await self._do(self._redis.xrevrange(events_key(self._cluster), count=1))
        return resource_version(entries[0][0].decode()) if entries else 0

    async def is_whole_since(self, version: int) -> bool:
        """Tell whether every event after a version can still be had."""
        if version < await self.epoch():
            return False
        info = await self._do(self._redis.xinfo_stream(events_key(self._cluster)))
        first = info["first-entry"]
        if first is None or info["entries-added"] == info["length"]:
            return True
        return version >= resource_version(first[0].decode()) - 1

    async def since(self, version: int, *, block_ms: int | None = None) -> tuple[int, list[Change]]:
        """Return the version reached and the events after another, at most a thousand, waiting for the first if told."""
        key = events_key(self._cluster)
        timeout_s = _TIMEOUT_S + (block_ms or 0) / 1000
        answer = await self._do(
            self._redis.xread({key: stream_id(version)}, count=1_000, block=block_ms), timeout_s=timeout_s
        )
        changes = []
        for entry, fields in answer[0][1] if answer else ():
            version = resource_version(entry.decode())
            change = self._change(version, fields)
            if change is not None:
                changes.append(change)
        return version, changes

    def _change(self, version: int, fields: dict[bytes, bytes]) -> Change | None:
        kind = fields.get(b"type", b"").decode()
        if kind not in _KINDS:
            return None  # the marker of an epoch
        record = self._parsed(fields.get(b"record"))
        return None if record is None else Change(version, EventType(kind), record, parse_record(fields.get(b"before")))

    # ---- writing: what a transceiver that died could not

    async def claim(self, slot: int, generation: int) -> bool:
        """Take a transceiver off the list; True for the one of all replicas that did."""
        return bool(await self._do(self._redis.zrem(all_slots_key(self._cluster), f"{slot}:{generation}")))

    async def execute(self, commands: Sequence[Command]) -> None:
        """Execute commands in order."""
        await self._pipelined(commands)

    # ---- Redis

    @property
    def _redis(self) -> Any:
        if self._client is None:
            raise RegistryAwayError("this fleet has no registry: set redis.embedded or redis.externalUrl in the chart")
        return self._client

    async def _replication_id(self) -> str:
        client = self._redis
        if isinstance(client, RedisCluster):
            await self._do(client.initialize())
            node = client.get_node_from_key(epoch_key(self._cluster))
            info = await self._do(client.info("replication", target_nodes=node))
        else:
            info = await self._do(client.info("replication"))
        return str(info["master_replid"])

    async def _pipelined(self, commands: Sequence[Command]) -> list[Any]:
        if not commands:
            return []
        client = self._redis
        pipeline = client.pipeline() if isinstance(client, RedisCluster) else client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return await self._do(pipeline.execute())

    async def _do(self, answer: Awaitable[_T], *, timeout_s: float = _TIMEOUT_S) -> _T:
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except (RedisError, RedisClusterException, OSError, TimeoutError) as error:
            raise RegistryAwayError(f"the registry does not answer: {error or type(error).__name__}") from None

    def _parsed(self, value: bytes | None) -> SessionRecord | None:
        record = parse_record(value)
        if record is None and value is not None:
            self.malformed += 1
        return record


def _place(name: bytes) -> tuple[int, int] | None:
    slot, _, generation = name.decode("ascii", "replace").partition(":")
    try:
        return parse_integer(slot, MAX_SLOT), parse_integer(generation, MAX_GENERATION)
    except OutsideError:
        return None


def _view(slot: int, generation: int, beat: bytes | None) -> SlotView:
    """Read a heartbeat by hand: thousands at once, and only these fields."""
    try:
        said = parse_json(beat or b"null", MAX_RECORD_BYTES)
        return SlotView(
            slot,
            generation,
            str(said["pool"]),
            str(said["node"]),
            _number(said["sessions"]),
            {
                str(name): {str(value): _number(count) for value, count in of.items()}
                for name, of in said["counts"].items()
            },
            str(said["state"]),
            _number(said["capacity"]),
            _number(said.get("setups_per_s", 0.0)),
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return SlotView(slot, generation, known=False)


def _number(value: _N) -> _N:
    """JSON's own numbers: int() would take text and truth too."""
    if type(value) not in (int, float):
        raise TypeError
    return value

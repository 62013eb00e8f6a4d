"""The sessions API's reading side over real Redis: pages, indexes, events, lost owners, lost registries."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import redis.asyncio as redis

from tests.support.fleet_world import CONFIG, World, empty_fleet, pool
from tests.support.redis_server import HOST, running_cluster, running_redis
from tests.support.session_records import CLUSTER, make_record
from voicefleet_contract.registry import HEARTBEAT_TTL_S, Heartbeat, heartbeat_key
from voicefleet_contract.sessions import (
    INDEXED,
    Command,
    SessionRecord,
    count_fields,
    event_command,
    forget_commands,
    keep_commands,
    write_commands,
)
from voicefleet_operator.cluster.redis_client import connect
from voicefleet_operator.cluster.registry import RegistryReader
from voicefleet_operator.desired.config import Redis
from voicefleet_operator.sessions_api.hub import Hub
from voicefleet_operator.sessions_api.lost_slots import forget_once
from voicefleet_operator.sessions_api.pages import Place
from voicefleet_operator.sessions_api.registry import RegistryAwayError, SessionRegistry
from voicefleet_operator.sessions_api.selectors import Query, parse_query
from voicefleet_operator.sessions_api.status import StatusError
from voicefleet_operator.sessions_api.watch import Event, WatchOptions, watch

pytestmark = pytest.mark.interop

SLOTS, EACH = 6, 20
NOW = 1_000_000.0


def fleet() -> list[SessionRecord]:
    return [
        make_record(slot, number, state="new" if number == 0 else "connected")
        for slot in range(SLOTS)
        for number in range(EACH)
    ]


async def tell(registry: SessionRegistry, records: Sequence[SessionRecord], unix_now: float = NOW) -> None:
    """Write as the owners do."""
    for slot in sorted({record.slot for record in records}):
        mine = [record for record in records if record.slot == slot]
        sets = sorted({(field, getattr(record, field)) for record in mine for field in INDEXED})
        beat = Heartbeat(
            slot=slot, generation=0, pool="agents", node=f"node-{slot % 3}", state="active",
            sessions=len(mine), capacity=400, counts=count_fields(mine), at=unix_now,
        )  # fmt: skip
        commands: list[Command] = [
            ("SET", heartbeat_key(CLUSTER, slot, 0), beat.model_dump_json(), "EX", HEARTBEAT_TTL_S)
        ]
        commands += write_commands(CLUSTER, slot, 0, [(None, record) for record in mine])
        await registry.execute([*commands, *keep_commands(CLUSTER, slot, 0, sets, unix_now)])
    await registry.execute([c for record in records if (c := event_command(CLUSTER, None, record)) is not None])


@contextlib.asynccontextmanager
async def registry_at(url: str) -> AsyncIterator[SessionRegistry]:
    client = connect(url, "")
    try:
        yield SessionRegistry(client, CLUSTER)
    finally:
        await client.aclose()


@pytest.fixture(params=["single", "cluster"])
async def registry(request) -> AsyncIterator[SessionRegistry]:
    async with contextlib.AsyncExitStack() as closing:
        if request.param == "single":
            url = (await closing.enter_async_context(running_redis())).url
        else:
            servers = await closing.enter_async_context(running_cluster())
            url = "redis+cluster://" + ",".join(f"{HOST}:{server.port}" for server in servers)
        yield await closing.enter_async_context(registry_at(url))


async def ids(registry: SessionRegistry, query: Query) -> list[str]:
    return [record.call_id async for record in registry.walk(query, Place(), None)]


async def test_pages_put_together_are_the_whole_in_order_for_every_selector(registry):
    records = fleet()
    await tell(registry, records)
    for fields in ("", "relay=fra-1", "state=new", "relay=fra-0,state=new", "node=node-1", "pool=agents", "pool=x"):
        query = parse_query("", fields, "voice")
        expected = [
            record.call_id
            for record in sorted(records, key=lambda r: (r.slot, r.generation, r.call_id))
            if query.matches(record)
        ]
        assert await ids(registry, query) == expected, fields
        for size in (1, 7, 50):
            found: list[str] = []
            after = Place()
            while True:
                page = []
                async for record in registry.walk(query, after, size):
                    page.append(record)
                    if len(page) == size:
                        break
                found += [record.call_id for record in page]
                if len(page) < size:
                    break
                after = Place(page[-1].slot, page[-1].generation, page[-1].call_id)
            assert found == expected, (fields, size)


async def test_a_list_is_no_older_than_what_another_replica_showed(registry):
    other = SessionRegistry(registry._client, CLUSTER)
    assert await ids(other, Query()) == []  # it knows of nobody, and may for a second
    record = make_record(4, 1)
    await tell(registry, [record])
    version = await registry.newest()
    assert [one.call_id async for one in other.walk(Query(), Place(), None, version)] == [record.call_id]


async def test_a_malformed_record_is_skipped_and_counted(registry):
    records = fleet()
    await tell(registry, records)
    await registry.execute([("HSET", f"vf1:{{{CLUSTER}:2}}:calls:0", "call_bad", b"{not json")])
    assert len(await ids(registry, Query())) == len(records)
    assert registry.malformed == 1


async def test_one_session_is_found_by_its_id_and_a_strange_id_is_nobody(registry):
    record = make_record(3, 9)
    await tell(registry, [record])
    assert await registry.get(record.call_id) == record
    assert await registry.get(make_record(3, 10).call_id) is None
    for strange in ("", "nonsense", "call_" + "A" * 32):
        assert await registry.get(strange) is None


async def test_a_watch_gets_what_is_there_and_then_every_change(registry):
    first, second = make_record(1, 1), make_record(2, 2, state="new")
    await tell(registry, [first])
    async with watching(registry, WatchOptions(None, initial_events=True, bookmarks=True)) as events:
        assert (await anext(events)).record == first
        bookmark = await anext(events)
        assert bookmark.initial_end
        await tell(registry, [second])
        added = await anext(events)
        assert (added.kind, added.record) == ("ADDED", second)
        later = second.model_copy(update={"state": "connected"})
        await change(registry, second, later)
        assert [(e.kind, e.record) for e in [await anext(events)]] == [("MODIFIED", later)]
        await change(registry, later, None)
        deleted = await anext(events)
        assert (deleted.kind, deleted.record) == ("DELETED", later)
        assert bookmark.version < added.version < deleted.version


async def test_a_watch_from_a_version_gets_each_later_change_once(registry):
    await tell(registry, [make_record(1, 1)])
    version = await registry.newest()
    later = [make_record(1, number) for number in range(2, 30)]
    await tell(registry, later[:20])
    async with watching(registry, WatchOptions(version, initial_events=False, bookmarks=False)) as events:
        await tell(registry, later[20:])
        assert [(await anext(events)).record for _ in later] == later


async def test_a_version_that_was_trimmed_away_is_told_to_be_expired(registry):
    await tell(registry, [make_record(1, 1)])
    version = await registry.newest()
    await tell(registry, [make_record(1, number) for number in range(2, 400)])
    await registry.execute([("XTRIM", f"vf1:{{{CLUSTER}}}:events", "MAXLEN", 10)])
    options = WatchOptions(version, initial_events=False, bookmarks=False)
    async with watching(registry, options) as events:
        with pytest.raises(StatusError) as expired:
            await anext(events)
    assert expired.value.code == 410


async def test_the_sessions_of_an_owner_that_died_are_told_to_be_gone_by_one_replica(registry):
    records = [make_record(1, number) for number in range(5)]
    await tell(registry, records)
    await tell(registry, [make_record(2, 7)], unix_now=NOW + 60)
    version = await registry.newest()
    counts = await asyncio.gather(*(forget_once(registry, CLUSTER, NOW + 61) for _ in range(2)))
    assert sorted(counts) == [0, 5]
    assert await ids(registry, Query()) == [make_record(2, 7).call_id]
    _, changes = await registry.since(version)
    assert {(c.kind, c.record.call_id) for c in changes} == {("DELETED", record.call_id) for record in records}


async def test_another_redis_expires_every_version_and_every_watch():
    async with (
        running_redis() as server,
        registry_at(server.url) as registry,
        contextlib.AsyncExitStack() as closing,
    ):
        await tell(registry, [make_record(1, 1)])
        before = await registry.newest()
        options = WatchOptions(before, initial_events=False, bookmarks=False)
        events = await closing.enter_async_context(watching(registry, options))
        await tell(registry, [make_record(1, 2)])
        assert (await anext(events)).kind == "ADDED"
        await server.kill()
        with pytest.raises(RegistryAwayError):
            await registry.newest()
        await server.start()
        with pytest.raises(StatusError) as expired:
            await anext(events)
        assert expired.value.code == 410
        assert not await registry.is_whole_since(before)
        assert await registry.newest() > before


async def test_sentinels_lead_to_the_master_and_a_failover_is_a_new_epoch(tmp_path: Path):
    config = tmp_path / "sentinel.conf"
    async with (
        running_redis() as master,
        running_redis("--save", "", "--replicaof", HOST, str(master.port)) as replica,
    ):
        config.write_text(
            f"sentinel monitor fleet {HOST} {master.port} 1\nsentinel down-after-milliseconds fleet 500\n"
            "sentinel failover-timeout fleet 5000\n"
        )
        async with (
            running_redis(str(config), "--sentinel") as sentinel,
            registry_at(f"redis+sentinel://{HOST}:{sentinel.port}/fleet") as registry,
        ):
            await tell(registry, [make_record(1, 1)])
            version = await registry.newest()
            async with asyncio.timeout(20):
                while (await replica.client.info("replication"))["master_link_status"] != "up":
                    await asyncio.sleep(0.05)
            async with asyncio.timeout(30):
                while True:  # a Sentinel takes a moment to learn of the replica
                    with contextlib.suppress(redis.ResponseError):
                        await sentinel.client.execute_command("SENTINEL FAILOVER fleet")
                        break
                    await asyncio.sleep(0.1)
            async with asyncio.timeout(30):
                while True:
                    with contextlib.suppress(RegistryAwayError):
                        if await registry.epoch() > version:
                            break
                    await asyncio.sleep(0.1)
            assert not await registry.is_whole_since(version)
            assert await ids(registry, Query()) == [make_record(1, 1).call_id]


async def change(registry: SessionRegistry, before: SessionRecord, now: SessionRecord | None) -> None:
    state = write_commands(CLUSTER, before.slot, 0, [(before, now)]) if now else forget_commands(CLUSTER, [before])
    await registry.execute([*state])
    event = event_command(CLUSTER, before, now)
    assert event is not None
    await registry.execute([event])


@contextlib.asynccontextmanager
async def watching(registry: SessionRegistry, options: WatchOptions) -> AsyncIterator[AsyncIterator[Event]]:
    hub = Hub(registry)
    reading = asyncio.create_task(hub.run())
    events = watch(registry, hub, Query(), options)
    try:
        async with asyncio.timeout(30):
            yield (event async for event in events if event is not None)
    finally:
        reading.cancel()
        await events.aclose()


async def test_a_cluster_that_goes_away_is_away_and_nothing_else():
    """Its client says so with an error that is none of the library's own family."""
    async with running_cluster() as servers:
        url = "redis+cluster://" + ",".join(f"{HOST}:{server.port}" for server in servers)
        operators = RegistryReader("")
        config = CONFIG.model_copy(update={"redis": Redis(url=url)})
        world = World(empty_fleet(pools={"agents": pool()}))
        world.settle()
        fleet = replace(world.fleet, config=config)
        async with registry_at(url) as registry:
            await tell(registry, [make_record(1, 1)])
            hub = Hub(registry)
            reading = asyncio.create_task(hub.run())
            await hub.reading.wait()
            assert (await operators.read(fleet)).acknowledgements is not None
            for server in servers:
                await server.kill()
            for _ in range(3):  # what the first try learns is not what the next one meets
                with pytest.raises(RegistryAwayError):
                    await registry.get(make_record(1, 1).call_id)
                assert (await operators.read(fleet)).acknowledgements is None
            async with asyncio.timeout(20):
                while not hub.away:
                    await asyncio.sleep(0.05)
            assert not reading.done()
            reading.cancel()
        await operators.close()

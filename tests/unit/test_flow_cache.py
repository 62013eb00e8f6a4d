"""Relay processes and their flow cache, on real sockets and a real redis-server."""

import asyncio
import time

import pytest

from tests.support.redis_server import RedisServer, free_port, running_redis
from tests.support.relay_process import CLUSTER, HOST, KEYS, Peer, bind, running_relay, until
from voicefleet_contract.addresses import Address
from voicefleet_contract.announcement import Addressee, decode_announcement
from voicefleet_contract.cached_flow import cached_flow_name, encode_cached_flow
from voicefleet_contract.drops import DropReason
from voicefleet_contract.registry import flow_key
from voicefleet_contract.spp import encode_spp
from voicefleet_dataplane.core.relay import lookups
from voicefleet_dataplane.shell.relay import flow_cache as module

RTP = b"\x80\x6f" + bytes(160)


@pytest.fixture
async def redis():
    async with running_redis() as server:
        yield server


def key_of(client: Address) -> str:
    return flow_key(CLUSTER, cached_flow_name(client, CLUSTER, KEYS))


async def restored(relay, client, owner, packet=RTP):
    """Media without a check reaches the owner, behind an announcement."""
    client.send(packet, relay.public)
    who, relay_address, announcement = await owner.receive_spp()
    header = encode_spp(who, relay_address)
    said_ms = decode_announcement(announcement, header, Addressee(CLUSTER, owner.slot, owner.generation), KEYS)
    assert (await owner.receive_spp()) == (client.address, relay.inner, packet)
    return said_ms


async def lookups_of(relay):
    samples = await relay.metrics()
    name = 'voicefleet_relay_lookups_total{outcome="'
    return {key[len(name) : -2]: int(count) for key, count in samples.items() if key.startswith(name) and count}


# ---- the way it should go


async def test_a_second_relay_goes_on_with_the_first_ones_calls_before_any_check(tmp_path, redis, owner, client):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    async with running_relay(tmp_path / "first", owner, redis_url=redis.url) as first:
        await bind(first, client, owner)
        await until(lambda: first.process.cache.written == 1)
    assert await redis.client.get(key_of(client.address)) == encode_cached_flow(client.address, (1, 1), CLUSTER, KEYS)
    assert 300 <= await redis.client.ttl(key_of(client.address)) <= 360
    async with running_relay(tmp_path / "second", owner, redis_url=redis.url) as second:
        said_ms = await restored(second, client, owner)
        assert abs(said_ms - time.time_ns() // 1_000_000) < 60_000
        owner.send_spp(RTP, client.address, second.inner)
        assert await client.receive() == (RTP, second.public)
        assert await lookups_of(second) == {"restored": 1}
        assert await second.drops() == {}
        assert (await second.metrics())["voicefleet_relay_announcements_total"] == 1


async def test_an_owner_that_speaks_first_reaches_its_client_through_a_relay_that_was_restarted(
    tmp_path, redis, owner, client
):
    async with running_relay(tmp_path, owner, redis_url=redis.url) as old:
        await bind(old, client, owner)
        await until(lambda: old.process.cache.written == 1)
        ports = {"public_port": old.public.port, "inner_port": old.inner.port}
    async with running_relay(tmp_path, owner, redis_url=redis.url, **ports) as new:
        owner.send_spp(RTP, client.address, new.inner)
        assert await client.receive() == (RTP, new.public)


async def test_a_herd_is_restored_in_batches(tmp_path, redis, owner):
    clients = [Peer() for _ in range(150)]
    await redis.client.mset(
        {key_of(one.address): encode_cached_flow(one.address, (1, 1), CLUSTER, KEYS) for one in clients}
    )
    before = (await redis.client.info("commandstats")).get("cmdstat_mget", {"calls": 0})["calls"]
    async with running_relay(tmp_path, owner, redis_url=redis.url) as relay:
        for one in clients:
            one.send(RTP, relay.public)
        heard = {(await owner.receive_spp())[0] for _ in range(2 * len(clients))}
        assert heard == {one.address for one in clients}
        assert await lookups_of(relay) == {"restored": len(clients)}
        assert await relay.drops() == {}
    questions = (await redis.client.info("commandstats"))["cmdstat_mget"]["calls"] - before
    assert questions <= len(clients) / 8
    for one in clients:
        one.socket.close()


# ---- what the cache does not know, or lies about


async def test_a_flood_from_addresses_that_nobody_knows_is_no_flood_to_redis(tmp_path, redis, owner, monkeypatch):
    monkeypatch.setattr(lookups, "ABSENT_S", 60.0)
    strangers = [Peer() for _ in range(20)]
    async with running_relay(tmp_path, owner, redis_url=redis.url) as relay:
        for _ in range(10):
            for one in strangers:
                one.send(RTP, relay.public)
            await asyncio.sleep(0)
        await until(lambda: sum(relay.process.core.drops.values()) == 200)
        assert await lookups_of(relay) == {"unknown": len(strangers)}
        assert all(one.nothing_waits() for one in strangers)
        assert owner.nothing_waits()
    for one in strangers:
        one.socket.close()


@pytest.mark.parametrize("value", [b"", b"10.0.0.66:1", bytes(16), "of another client"])
async def test_a_record_that_somebody_put_there_leads_nowhere(tmp_path, redis, owner, client, value):
    if isinstance(value, str):
        value = encode_cached_flow(Address(HOST, 1), (1, 1), CLUSTER, KEYS)
    await redis.client.set(key_of(client.address), value)
    async with running_relay(tmp_path, owner, redis_url=redis.url) as relay:
        client.send(RTP, relay.public)
        await until(lambda: relay.process.core.drops[DropReason.FLOW_UNKNOWN] == 1)
        assert await lookups_of(relay) == {"not_authentic": 1}
        assert owner.nothing_waits()
        await bind(relay, client, owner)  # and the next check binds it as ever


# ---- Redis comes and goes


async def test_without_redis_a_relay_starts_and_checks_bind(tmp_path, owner, client, caplog):
    async with running_relay(tmp_path, owner, redis_url=f"redis://{HOST}:{free_port()}") as relay:
        await until(lambda: "flow cache is away" in caplog.text)
        client.send(RTP, relay.public)
        await until(lambda: relay.process.core.drops[DropReason.FLOW_UNKNOWN] == 1)
        await bind(relay, client, owner)
        client.send(RTP, relay.public)
        assert (await owner.receive_spp())[2] == RTP
        samples = await relay.metrics()
        assert samples['voicefleet_relay_source_stale{what="flow_cache"}'] == 1
        assert (await relay.get("/readyz")).status_code == 200


async def test_a_redis_that_hangs_holds_nothing_up(tmp_path, redis, owner, client, monkeypatch):
    monkeypatch.setattr(module, "ANSWER_WITHIN_S", 0.05)
    async with running_relay(tmp_path, owner, redis_url=redis.url) as relay:
        await bind(relay, client, owner)
        await until(lambda: relay.process.cache.written == 1)
        redis.freeze()
        stranger = Peer()
        stranger.send(RTP, relay.public)
        client.send(RTP, relay.public)
        assert (await owner.receive_spp())[2] == RTP  # flows that are here do not wait
        await until(lambda: len(relay.process.cache.recovery.lookups) == 0)
        assert await lookups_of(relay) == {"failed": 1}
        assert await relay.drops() == {DropReason.FLOW_UNKNOWN: 1}
        stranger.socket.close()


async def test_a_redis_that_comes_back_empty_hears_of_every_flow_again(tmp_path, redis, owner, caplog, monkeypatch):
    monkeypatch.setattr(module, "_WRITE_AGAIN_S", 0.02)
    caplog.set_level("INFO")
    clients = [Peer() for _ in range(3)]
    async with running_relay(tmp_path, owner, redis_url=redis.url) as relay:
        await bind(relay, clients[0], owner)
        await until(lambda: relay.process.cache.written == 1)
        await redis.kill()
        await bind(relay, clients[1], owner)  # this write fails
        await until(lambda: "flow cache is away (writing" in caplog.text)
        await redis.start()
        await bind(relay, clients[2], owner)  # this one doesn't, and says that it is back
        await until(lambda: "flow cache is back (writing" in caplog.text)
        async with asyncio.timeout(10):
            while len(await redis.keys()) < len(clients):
                await asyncio.sleep(0.01)
        assert caplog.text.count("flow cache is away (writing") == 1
    for one in clients:
        one.socket.close()


async def test_questions_work_again_after_redis_was_restarted(tmp_path, redis: RedisServer, owner, client):
    async with running_relay(tmp_path, owner, redis_url=redis.url) as relay:
        await until(lambda: relay.process.cache.connected)
        await redis.kill()
        await redis.start()
        await redis.client.set(key_of(client.address), encode_cached_flow(client.address, (1, 1), CLUSTER, KEYS))
        await restored(relay, client, owner)  # at once: the connection that was closed is made anew


async def test_redis_is_told_no_address(tmp_path, redis, owner, client):
    async with running_relay(tmp_path, owner, redis_url=redis.url) as relay:
        await bind(relay, client, owner)
        await until(lambda: relay.process.cache.written == 1)
        [key] = await redis.keys("*flow*")
        said = key + await redis.client.get(key)
        assert str(client.address.port).encode() not in said
        assert HOST.encode() not in said

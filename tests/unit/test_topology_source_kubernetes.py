"""TopologySlices from an API server that fails in the ways API servers fail."""

import asyncio
import contextlib

import httpx
import pytest

from tests.support.kubernetes_api import FakeApi
from voicefleet_dataplane.shell.process.topology_source import KubernetesTopology, open_topology

RELAYS = {"cluster": 7, "relays": [{"name": "fra-0", "inner": [{"address": "10.0.0.1", "port": 3479}]}]}


def pool(*slots, cluster=7):
    members = [{"slot": slot, "generation": 1, "address": "10.0.1.1", "port": 20000 + slot} for slot in slots]
    return {"cluster": cluster, "pool": {"name": "agents", "members": members}}


def slots(source):
    index = source()
    return None if index is None else sorted(m.slot for p in index.topology.pools for m in p.members)


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def following(api, token=None, settle_s=0.02):
    async with api.serving() as client:
        source = KubernetesTopology(client, "voice", token, backoff_s=(0.01,), settle_s=settle_s)
        follower = asyncio.create_task(source.run())
        try:
            yield source
        finally:
            follower.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await follower


@pytest.fixture
def api():
    api = FakeApi()
    api.put("relays-fra-0", RELAYS)
    api.put("pool-agents-0", pool(1, 2))
    return api


async def test_the_listed_slices_make_one_topology(api):
    async with following(api) as source:
        await until(lambda: source() is not None)
        assert slots(source) == [1, 2]
        assert [relay.name for relay in source().topology.relays] == ["fra-0"]
        assert source.problem == ""


async def test_changes_arrive_over_the_watch_without_another_list(api):
    async with following(api) as source:
        await until(lambda: api.watches == 1)
        api.put("pool-agents-0", pool(1, 2, 3))
        await until(lambda: slots(source) == [1, 2, 3])
        api.put("pool-agents-1", pool(200))
        await until(lambda: slots(source) == [1, 2, 3, 200])
        api.delete("pool-agents-1")
        await until(lambda: slots(source) == [1, 2, 3])
        assert api.lists == 1


async def test_a_slice_that_is_replaced_by_another_never_leaves_a_gap(api):
    async with following(api, settle_s=0.2) as source:
        await until(lambda: api.watches == 1)
        seen = []
        api.delete("pool-agents-0")
        api.put("pool-agents-9", pool(1, 2, 3))
        while slots(source) != [1, 2, 3]:
            seen.append(slots(source))
            await asyncio.sleep(0.01)
        assert all(one == [1, 2] for one in seen)


async def test_a_watch_that_ends_goes_on_where_it_was(api):
    async with following(api) as source:
        await until(lambda: api.watches == 1)
        api.end_watches()
        await until(lambda: api.watches == 2)
        api.put("pool-agents-0", pool(5))
        await until(lambda: slots(source) == [5])
        assert api.lists == 1


async def test_an_expired_watch_lists_again(api):
    async with following(api) as source:
        await until(lambda: api.watches == 1)
        api.expire()
        await until(lambda: api.lists == 2 and api.watches == 2)
        api.put("pool-agents-0", pool(5))
        await until(lambda: slots(source) == [5])


async def test_a_watch_refused_as_too_old_lists_again(api):
    api.watch_status = 410
    async with following(api):
        await until(lambda: api.lists >= 3)


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
async def test_an_api_server_that_refuses_leaves_the_last_topology_in_use(api, status):
    async with following(api) as source:
        await until(lambda: slots(source) == [1, 2])
        api.refuse = status
        api.end_watches()
        await until(lambda: str(status) in source.problem)
        assert slots(source) == [1, 2]
        api.refuse = 0
        api.put("pool-agents-0", pool(3))
        await until(lambda: slots(source) == [3])
        assert source.problem == ""


@pytest.mark.parametrize("line", ["not json", "[]", '{"type": "ADDED"}', '{"type": "MODIFIED", "object": 5}'])
async def test_garbage_in_the_watch_does_not_end_the_following(api, line):
    async with following(api) as source:
        await until(lambda: api.watches == 1)
        api.send(line)
        await until(lambda: api.watches == 2)
        api.put("pool-agents-0", pool(3))
        await until(lambda: slots(source) == [3])
        assert source.problem == ""


async def test_a_corrupt_slice_keeps_what_was_read_before_and_says_so(api):
    async with following(api) as source:
        await until(lambda: api.watches == 1)
        api.put("pool-agents-0", {"cluster": "seven"})
        await until(lambda: "pool-agents-0" in source.problem)
        api.put("pool-agents-1", pool(200))
        await until(lambda: slots(source) == [1, 2, 200])
        assert "pool-agents-0" in source.problem
        api.put("pool-agents-0", pool(4))
        await until(lambda: slots(source) == [4, 200])
        assert source.problem == ""


async def test_a_slice_of_another_cluster_changes_nothing(api):
    async with following(api) as source:
        await until(lambda: api.watches == 1)
        api.put("pool-other-0", pool(9, cluster=8))
        await until(lambda: "several clusters" in source.problem)
        assert slots(source) == [1, 2]


async def test_the_deletion_of_everything_ends_nothing(api):
    async with following(api) as source:
        await until(lambda: api.watches == 1)
        for name in list(api.objects):
            api.delete(name)
        await until(lambda: "no TopologySlice" in source.problem)
        assert slots(source) == [1, 2]


async def test_nothing_published_yet_is_no_topology_and_said(api):
    async with following(FakeApi()) as source:
        await until(lambda: "no TopologySlice" in source.problem)
        assert source() is None


async def test_an_outage_that_changed_nothing_gives_the_same_topology(api):
    async with following(api) as source:
        await until(lambda: api.watches == 1)
        before = source()
        api.expire()
        await until(lambda: api.watches == 2)
        assert source() is before


async def test_the_revision_is_the_newest_resource_version_seen(api):
    async with following(api) as source:
        await until(lambda: source() is not None and source().topology.revision == api.version)
        api.put("pool-agents-1", pool(200))
        await until(lambda: source().topology.revision == api.version)
        api.delete("pool-agents-1")
        await until(lambda: source().topology.revision == api.version)


async def test_the_token_is_read_for_each_request(api, tmp_path):
    token = tmp_path / "token"
    token.write_text("one\n")
    async with following(api, token) as source:
        await until(lambda: source() is not None and api.watches == 1)
        token.write_text("two\n")
        api.end_watches()
        await until(lambda: "Bearer two" in api.tokens)
        assert "Bearer one" in api.tokens


async def test_outside_a_pod_the_kubernetes_source_says_what_to_set(monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ValueError, match="VOICEFLEET_TOPOLOGY"):
        async with open_topology("kubernetes", "voice"):
            pass


async def test_a_relay_may_ask_whether_it_is_deleted(api):
    api.relays = {"fra": {"name": "fra"}, "lab": {"name": "lab", "deletionTimestamp": "2026-01-01T00:00:00Z"}}
    async with following(api) as source:
        assert [await source.relay_is_gone(name) for name in ("fra", "lab", "ams")] == [False, True, True]


@pytest.mark.parametrize("status", [401, 403, 500, 503])
async def test_an_answer_that_is_none_leaves_it_open(api, status):
    api.refuse = status
    async with following(api) as source:
        assert await source.relay_is_gone("fra") is None


async def test_an_api_server_that_is_away_leaves_it_open(api):
    async with api.serving() as client:
        base = client.base_url
    async with httpx.AsyncClient(base_url=base, trust_env=False) as client:
        assert await KubernetesTopology(client, "voice").relay_is_gone("fra") is None

"""Calls move to another relay in mid-call: the node of the first dies, and the public address or its route moves.

What is lost is counted where it is lost. Every packet that reaches a relay's sockets is forwarded or moves one of its counters, so
the second relay's counters say what was lost once it got the calls, and why: while a question to Redis was under way (none, where
that is shorter than three frames), or while nobody knew the flow. The callers' frame numbers say that nothing else was lost.
"""

import asyncio

import pytest

from tests.support.namespaces import mount_bpffs, unmount
from tests.support.talking import FRAMES_PER_CHECK, Talking, until
from tests.support.two_relays import TwoRelays
from voicefleet_contract.drops import DropReason

CALLS = 3
PENDING = f'voicefleet_relay_drops_total{{reason="{DropReason.FLOW_LOOKUP_PENDING}"}}'
WITHOUT_FLOW = (DropReason.FLOW_UNKNOWN, DropReason.FLOW_LOOKUP_PENDING, DropReason.FLOW_LOOKUP_LIMIT)


@pytest.fixture(scope="module", params=["the route, in user space", "the address, in the kernel"])
def nodes(tmp_path_factory, request):
    if request.param.endswith("user space"):
        with TwoRelays(tmp_path_factory.mktemp("relays")) as running:
            yield running
        return
    bpffs = tmp_path_factory.mktemp("bpf")
    mount_bpffs(bpffs)
    kernel = {"datapath": "TC", "bpffs": str(bpffs)}
    with TwoRelays(tmp_path_factory.mktemp("relays"), address_moves=True, **kernel) as running:
        yield running
    unmount(bpffs)


@pytest.fixture
def net(nodes):
    """Both relays and Redis run and know nothing, the client's packets go to relay one, and we are the client."""
    nodes.start_anew()
    with nodes.client.inside():
        yield nodes


async def samples(net, relay):
    return await asyncio.to_thread(net.metrics, relay)


def without_flow(found):
    return sum(found[f'voicefleet_relay_drops_total{{reason="{reason}"}}'] for reason in WITHOUT_FLOW)


def all_drops(found):
    return {name: count for name, count in found.items() if "_drops_total" in name and count}


async def cache_knows_the_flows(net):
    async def written():
        return (await samples(net, "one"))["voicefleet_relay_cache_records_total"] >= CALLS

    await until("the cache knows the flows", written)


async def move(net, calls):
    """Relay one dies, and its address is answered for by relay two."""
    net.kill("one")
    net.lead_client_to("two")
    await calls.hear_more(FRAMES_PER_CHECK)


async def test_a_call_goes_on_through_another_relay_after_one_question_to_the_cache(net):
    async with Talking(net.url, net.api_key, CALLS) as calls:
        await cache_knows_the_flows(net)
        assert calls.lost() == [0] * CALLS
        await move(net, calls)
        found = await samples(net, "two")
        outcomes = {name: count for name, count in found.items() if "_lookups_total" in name and count}
        print(f"lost while nobody answered: {calls.lost()} frames; relay two: {outcomes}, {all_drops(found)}")
        restored = found['voicefleet_relay_lookups_total{outcome="restored"}']
        assert restored == found["voicefleet_relay_announcements_total"] >= 1
        assert restored + found["voicefleet_relay_flows_bound_total"] == CALLS  # a check may be faster
        assert all_drops(found).keys() <= {PENDING}  # one Redis round trip
        assert all_drops(found).get(PENDING, 0) <= CALLS * FRAMES_PER_CHECK / 4
        at = calls.lost()
        assert max(at) <= FRAMES_PER_CHECK / 2  # the owner did not wait for a check either
        await calls.hear_more(FRAMES_PER_CHECK)
        assert calls.lost() == at


async def test_without_redis_it_goes_on_with_the_next_check(net):
    async with Talking(net.url, net.api_key, CALLS) as calls:
        net.kill("redis")
        await move(net, calls)
        found = await samples(net, "two")
        lost = without_flow(found)
        print(f"lost while nobody answered and until a check: {calls.lost()} frames; relay two: {lost:.0f} packets")
        assert found["voicefleet_relay_flows_bound_total"] == CALLS
        assert found["voicefleet_relay_announcements_total"] == 0
        assert 0 < lost <= 1.5 * CALLS * FRAMES_PER_CHECK
        at = calls.lost()
        assert max(at) <= 1.5 * FRAMES_PER_CHECK
        await calls.hear_more(FRAMES_PER_CHECK)
        assert calls.lost() == at


async def test_between_two_relays_that_live_a_move_loses_nothing(net):
    """As a load balancer that rehashes does: there and back again, before any check.

    An address that comes back before the next check is another thing: the relay that has it again knows the flow and announces
    nothing, and the owner goes on sending to the other one, which cannot send without the address. That costs a check.
    """
    async with Talking(net.url, net.api_key, CALLS) as calls:
        await cache_knows_the_flows(net)
        for relay in ("two",) if net.address_moves else ("two", "one", "two"):
            net.lead_client_to(relay)
            await calls.hear_more(FRAMES_PER_CHECK // 3)
        drops = {**all_drops(await samples(net, "one")), **all_drops(await samples(net, "two"))}
        print(f"lost over the moves: {calls.lost()} frames; relays: {drops}")
        assert drops.keys() <= {PENDING}
        assert max(calls.lost()) <= FRAMES_PER_CHECK / 4
        net.lead_client_to("one")
        await calls.hear_more(FRAMES_PER_CHECK)
        print(f"lost over the way back as well: {calls.lost()} frames")
        at = calls.lost()
        assert max(at) <= (1.5 if net.address_moves else 0.25) * FRAMES_PER_CHECK
        await calls.hear_more(FRAMES_PER_CHECK)
        assert calls.lost() == at

"""Ten real calls through relays whose media moves in the kernel: gateway, transceiver and callers are the fleet's own.

Restarted and killed under calls, counted in lost frames.
"""

import asyncio

import pytest

from tests.support.namespaces import mount_bpffs, unmount
from tests.support.talking import FRAMES_PER_CHECK, Talking, until
from tests.support.two_relays import TwoRelays

CALLS = 10
FORWARDED = 'voicefleet_relay_kernel_packets_total{what="forwarded"}'


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    bpffs = tmp_path_factory.mktemp("bpf")
    mount_bpffs(bpffs)
    with TwoRelays(tmp_path_factory.mktemp("relays"), datapath="Auto", bpffs=str(bpffs)) as running:
        yield running
    unmount(bpffs)


@pytest.fixture
def net(nodes):
    """Both relays run, the client's packets go to relay one, and we are the client."""
    nodes.start_anew()
    with nodes.client.inside():
        yield nodes


async def in_the_kernel(net, calls, relay="one"):
    """Wait until the kernel carries every call, both ways."""

    async def carried():
        found = await asyncio.to_thread(net.metrics, relay)
        return found["voicefleet_relay_kernel_rules"] >= 2 * CALLS and found[FORWARDED] > 0

    await until("every call in the kernel", carried)
    await calls.hear_more(10)


@pytest.mark.parametrize("how", ["killed", "restarted"])
async def test_ten_calls_do_not_notice_that_their_relay_is(net, how):
    async with Talking(net.url, net.api_key, CALLS) as calls:
        await in_the_kernel(net, calls)
        before = calls.lost()
        (net.kill if how == "killed" else net.stop)("one")
        await calls.hear_more(FRAMES_PER_CHECK // 2)  # nobody is there
        await asyncio.to_thread(net.start_relay, "one")
        await calls.hear_more(2 * FRAMES_PER_CHECK)  # checks again, and media
        assert calls.lost() == before
        found = await asyncio.to_thread(net.metrics, "one")
        assert found["voicefleet_relay_flows_adopted"] >= CALLS  # those of calls before this test may live yet


async def test_ten_calls_move_to_another_relays_kernel(net):
    async with Talking(net.url, net.api_key, CALLS) as calls:
        await in_the_kernel(net, calls)
        net.kill("one")
        net.lead_client_to("two")
        await in_the_kernel(net, calls, "two")
        print(f"lost over the move: {calls.lost()} frames")
        assert max(calls.lost()) <= 1.5 * FRAMES_PER_CHECK
        at = calls.lost()
        await calls.hear_more(FRAMES_PER_CHECK)
        assert calls.lost() == at

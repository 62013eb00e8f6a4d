"""User-space relays die, restart and leave in mid-call. Counted in frames, and by the relays' own counters.

"After the new process's socket is up" needs no clock: every packet that reaches the new process is forwarded or moves one of its
drop counters, and those begin at zero. What was lost besides was lost while no socket was there.
"""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from e2e.fleet import Fleet
from e2e.kube import eventually
from e2e.relays import Location, kill_process
from tests.support.talking import FRAMES_PER_CHECK, Talking, until

CALLS = 10
WITHIN_S = 90.0
WITHOUT_FLOW = ("flow_unknown", "flow_lookup_pending", "flow_lookup_limit")


@pytest.fixture(scope="module")
def lab(fleet: Fleet) -> Iterator[Location]:
    fleet.site.only_local("these stories kill processes on a node")
    with Location(fleet, "lab", "node-c", 3500, "Userspace") as location:
        yield location


def drops(samples: dict[str, float]) -> dict[str, int]:
    begin = 'voicefleet_relay_drops_total{reason="'
    found = {name.removeprefix(begin)[:-2]: int(count) for name, count in samples.items() if name.startswith(begin)}
    return {reason: count for reason, count in found.items() if count}


def outcomes(samples: dict[str, float]) -> dict[str, int]:
    begin = 'voicefleet_relay_lookups_total{outcome="'
    found = {name.removeprefix(begin)[:-2]: int(count) for name, count in samples.items() if name.startswith(begin)}
    return {outcome: count for outcome, count in found.items() if count}


async def samples(lab: Location, pod: Any) -> dict[str, float]:
    return await asyncio.to_thread(lab.samples, pod)


async def cache_knows(lab: Location, pod: Any, flows: int) -> None:
    async def written() -> bool:
        return (await samples(lab, pod))["voicefleet_relay_cache_records_total"] >= flows

    await until("the cache knows the flows", written)


async def all_flows_are_back(lab: Location, pod: Any, flows: int) -> dict[str, float]:
    found: dict[str, float] = {}

    async def look() -> bool:
        try:
            found.update(await samples(lab, pod))
        except httpx.HTTPError:
            return False  # it is starting
        return found["voicefleet_relay_flows"] >= flows

    await until(f"{flows} flows in the relay that comes after", look, WITHIN_S)
    return found


def assert_one_redis_round_trip(found: dict[str, float], calls: Talking, flows: int) -> None:
    """Nothing was lost for want of a flow but while a question to Redis was under way."""
    restored, bound = outcomes(found).get("restored", 0), found["voicefleet_relay_flows_bound_total"]
    assert restored + bound == flows  # a check may be faster than the cache
    assert found["voicefleet_relay_announcements_total"] == restored
    lost = drops(found)
    assert lost.keys() & set(WITHOUT_FLOW) <= {"flow_lookup_pending"}
    assert lost.get("flow_lookup_pending", 0) <= flows * FRAMES_PER_CHECK / 4


async def test_a_killed_or_restarted_relay_goes_on_after_one_question_to_redis(fleet: Fleet, lab: Location) -> None:
    async with Talking(fleet.url, fleet.api_key, CALLS, region="lab") as calls:
        pod = lab.pod()
        assert calls.ingresses == {f"{pod['status']['hostIP']}:3500"}
        await cache_knows(lab, pod, CALLS)
        assert calls.lost() == [0] * CALLS
        kill_process(pod)
        killed = await all_flows_are_back(lab, pod, CALLS)
        await calls.hear_more(FRAMES_PER_CHECK)
        killed = await samples(lab, pod)
        at_kill = calls.lost()
        print(f"SIGKILL: lost while nobody was there {at_kill} frames; then {outcomes(killed)}, {drops(killed)}")

        await asyncio.to_thread(fleet.kube.run, "rollout", "restart", "daemonset/lab-relay")
        await asyncio.to_thread(eventually, "another pod", lambda: another(lab, pod), WITHIN_S)
        after = lab.pod()
        await all_flows_are_back(lab, after, CALLS)
        await calls.hear_more(FRAMES_PER_CHECK)
        restarted = await samples(lab, after)
        print(f"restart: lost while nobody was there {calls.lost()} frames in all; "
              f"then {outcomes(restarted)}, {drops(restarted)}")  # fmt: skip
        last = calls.lost()
        await calls.hear_more(FRAMES_PER_CHECK)
        assert calls.lost() == last
    for found in (killed, restarted):
        assert_one_redis_round_trip(found, calls, CALLS)


async def test_with_redis_stopped_a_killed_relay_costs_one_stun_interval(fleet: Fleet, lab: Location) -> None:
    pod = lab.pod()
    try:
        async with Talking(fleet.url, fleet.api_key, CALLS, region="lab") as calls:
            await asyncio.to_thread(fleet.kube.run, "scale", "deployment", "voicefleet-redis", "--replicas=0")
            selector = "app.kubernetes.io/component=redis"
            await asyncio.to_thread(
                eventually, "Redis gone", lambda: not fleet.kube.get("pods", selector=selector), 60.0
            )
            kill_process(pod)
            await all_flows_are_back(lab, pod, CALLS)
            await calls.hear_more(FRAMES_PER_CHECK)
            found, at = await samples(lab, pod), calls.lost()
            lost = sum(drops(found).get(reason, 0) for reason in WITHOUT_FLOW)
            print(f"SIGKILL without Redis: lost {at} frames; of them {lost} packets with a socket and no flow: "
                  f"{outcomes(found)}, {drops(found)}")  # fmt: skip
            assert found["voicefleet_relay_flows_bound_total"] == CALLS
            assert "restored" not in outcomes(found)
            # Both ways: the owners go on sending to the address that the dead one had.
            assert 0 < lost <= 2 * 1.5 * CALLS * FRAMES_PER_CHECK
            await calls.hear_more(FRAMES_PER_CHECK)
            assert calls.lost() == at
    finally:
        fleet.kube.run("scale", "deployment", "voicefleet-redis", "--replicas=1")


async def test_a_relay_whose_ingress_is_withdrawn_ends_its_calls_first(fleet: Fleet, lab: Location) -> None:
    pod = lab.pod()
    name = pod["metadata"]["name"]
    async with Talking(fleet.url, fleet.api_key, CALLS, region="lab") as calls:
        await asyncio.to_thread(lab.withdraw_node)
        await asyncio.to_thread(eventually, "it drains", lambda: lab.draining().get("status") == "True", 30.0)
        await asyncio.to_thread(
            eventually, "flows are counted", lambda: "flows left" in lab.draining().get("message", ""), 30.0
        )
        message = lab.draining()["message"]
        print(f"status: {message}")
        async with Talking(fleet.url, fleet.api_key, 1, region="lab") as late:
            assert late.ingresses.isdisjoint(calls.ingresses)  # new calls go elsewhere
        await asyncio.to_thread(eventually, "it was told to end", lambda: terminating(lab, name), 30.0)
        await calls.hear_more(5 * FRAMES_PER_CHECK)  # far longer than the grace of a relay that restarts
        assert calls.lost() == [0] * CALLS
        assert terminating(lab, name)
    await asyncio.to_thread(eventually, "it is gone with its flows", lambda: not lab.all_pods(), 60.0)


def another(lab: Location, before: Any) -> bool:
    return [one["metadata"]["uid"] for one in lab.all_pods()] != [before["metadata"]["uid"]] and bool(lab.pod())


def terminating(lab: Location, name: str) -> bool:
    return any(one["metadata"]["name"] == name and "deletionTimestamp" in one["metadata"] for one in lab.all_pods())

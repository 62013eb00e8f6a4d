"""Parts of the fleet go away in mid-call. Counted in packets, not in seconds."""

import asyncio
from typing import Any

from e2e.fleet import POOL, Fleet
from e2e.kube import eventually, ready
from e2e.talk import PACKETS_PER_S, Marks, calling, hang_up, holding, lost_after, place_calls, talking

DATAPLANE = "app.kubernetes.io/component in (relay,transceiver,gateway)"


async def test_the_relay_pod_of_a_call_is_killed_and_twenty_more_seconds_of_media_need_no_renegotiation(
    fleet: Fleet,
) -> None:
    async with holding(fleet, 1) as [caller]:
        pod = await asyncio.to_thread(fleet.relay_of, caller.result.ingress)
        await asyncio.to_thread(
            fleet.kube.run, "delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force", "--wait=false"
        )
        await asyncio.to_thread(eventually, "a new relay pod on the node", lambda: successor(fleet, pod), 60.0)
        heard_before = max(caller.result.heard)

        def media_is_back() -> bool:
            return max(caller.result.heard) > heard_before + PACKETS_PER_S

        await asyncio.to_thread(eventually, "media through the new relay", media_is_back, 20.0)
        back = max(caller.result.heard)
        await Marks([caller]).settle(20 * PACKETS_PER_S)  # what the loss below is counted over
    result = caller.result
    print(f"lost over the relay's death: {result.sent - len(result.heard)} of {result.sent} packets")
    assert result.sent - back >= 20 * PACKETS_PER_S
    assert lost_after(result, back) == 0


async def test_redis_is_stopped_and_old_and_new_calls_and_hang_ups_work(fleet: Fleet) -> None:
    try:
        async with talking(fleet, 1) as [caller]:
            await asyncio.to_thread(fleet.kube.run, "scale", "deployment", "voicefleet-redis", "--replicas=0")
            await asyncio.to_thread(
                eventually, "Redis gone", lambda: not fleet.kube.pods("app.kubernetes.io/component=redis"), 60.0
            )
            _, summary = await asyncio.to_thread(place_calls, fleet, 3, 2.0)
            async with calling(fleet, seconds=30) as other:
                status = await asyncio.to_thread(hang_up, fleet, other.result.call_id)
        assert summary["audio_ok"] == 3
        assert status == 200
        assert other.result.error == "the other side ended the call"
        assert not caller.result.error
        assert caller.result.loss == 0
        eventually("nobody can be asked", lambda: ring_converged(fleet) == "Unknown", within_s=60)
    finally:
        fleet.kube.run("scale", "deployment", "voicefleet-redis", "--replicas=1")
    eventually("every process acknowledged the ring again", lambda: ring_converged(fleet) == "True", within_s=60)


def ring_converged(fleet: Fleet) -> str:
    return fleet.status_condition("transceiver", POOL, "RingConverged")[0]


async def test_the_operator_is_restarted_and_no_dataplane_pod_changes(fleet: Fleet) -> None:
    """Its upgrade: test_versions.py."""
    before = identities(fleet)
    async with talking(fleet, 1) as [caller]:
        await asyncio.to_thread(fleet.kube.run, "rollout", "restart", "deployment", "voicefleet-operator")
        await asyncio.to_thread(
            fleet.kube.run, "rollout", "status", "deployment", "voicefleet-operator", "--timeout=100s"
        )
        await asyncio.to_thread(eventually, "a new operator at work", lambda: leads(fleet), 60.0)
    assert not caller.result.error
    assert caller.result.loss == 0
    assert identities(fleet) == before


async def test_scaling_up_adds_members_and_moves_no_call(fleet: Fleet) -> None:
    before = {pod["metadata"]["uid"] for pod in fleet.transceivers()}
    async with talking(fleet, 1) as [caller]:
        await asyncio.to_thread(fleet.kube.run, "scale", "transceiver", "agents", "--replicas=5")
        await asyncio.to_thread(eventually, "five members", lambda: len(fleet.transceivers()) == 5, 90.0)
    try:
        assert not caller.result.error
        assert caller.result.loss == 0
        pods = fleet.transceivers()
        assert before < {pod["metadata"]["uid"] for pod in pods}
        ports = [(pod["spec"]["nodeName"], pod["spec"]["containers"][0]["ports"][0]["hostPort"]) for pod in pods]
        assert len(set(ports)) == len(ports)
    finally:
        fleet.kube.run("scale", "transceiver", "agents", "--replicas=3")
        eventually("three members again", lambda: len(fleet.transceivers()) == 3, 150.0)


def successor(fleet: Fleet, gone: Any) -> bool:
    return any(
        pod["status"]["hostIP"] == gone["status"]["hostIP"] and pod["metadata"]["uid"] != gone["metadata"]["uid"]
        for pod in fleet.relays()
    )


def identities(fleet: Fleet) -> dict[str, Any]:
    """Which pods there are, what they were told, how often they started: not their labels, which follow the load."""
    return {
        pod["metadata"]["name"]: (
            pod["metadata"]["uid"],
            pod["spec"],
            [container["restartCount"] for container in pod["status"]["containerStatuses"]],
        )
        for pod in fleet.kube.pods(DATAPLANE)
    }


def leads(fleet: Fleet) -> bool:
    holder = fleet.kube.get("lease", "voicefleet-operator")["spec"]["holderIdentity"]
    pods = {pod["metadata"]["name"]: pod for pod in fleet.kube.pods("app.kubernetes.io/component=operator")}
    return holder in pods and ready(pods[holder])

"""Nodes, slots and pods leave under calls. Counted in calls and in sequence numbers that never came back."""

import asyncio
import json
from typing import Any

from e2e.fleet import POOL, Fleet
from e2e.kube import eventually
from e2e.talk import calls, holding, lost, place_calls, sent, slot_of
from voicefleet_contract import names
from voicefleet_contract.hint import peek_hint

OPERATOR = "app.kubernetes.io/component=operator"
TRANSCEIVERS = "app.kubernetes.io/component=transceiver"


async def test_kubectl_drain_empties_a_node_and_every_call_on_it_ends_by_itself(fleet: Fleet) -> None:
    node = fleet.transceivers()[0]["spec"]["nodeName"]
    before = slots_on(fleet, node)
    # Transceivers only: the fleet's other pods are not this story's.
    options = ("--ignore-daemonsets", "--delete-emptydir-data", f"--pod-selector={TRANSCEIVERS}", "--timeout=120s")
    hurry(fleet)
    try:
        async with holding(fleet, 9) as callers:
            here = [caller for caller in callers if slot_of(caller) in before]
            assert here, "chance put no call on the node; once in 10^4 runs"
            drain = asyncio.create_task(asyncio.to_thread(fleet.kube.run, "drain", node, *options, namespaced=False))
            await asyncio.to_thread(eventually, "replacements elsewhere", lambda: moved(fleet, node), 40.0)
            assert not drain.done(), "the drain did not wait for the calls"
            new, summary = await asyncio.to_thread(place_calls, fleet, 6, 2.0)
        await drain
        print(
            f"kubectl drain {node}: {len(here)} of {len(callers)} calls, {lost(callers)} of {sent(callers)} packets lost"
        )
        assert [caller.result.error for caller in callers] == [""] * 9
        assert lost(callers) == 0
        assert summary["audio_ok"] == 6
        assert not pods_on(fleet, node), "kubectl drain came back and the node holds transceivers"
        owners = {(hint.slot, hint.generation) for hint in (peek_hint(call["ufrag"]) for call in new)}
        assert owners <= {generation_of(pod) for pod in fleet.transceivers()}, "a new call went to a pod that drains"
    finally:
        fleet.kube.run("uncordon", node, namespaced=False)
        hurry(fleet, on=False)


async def test_scaling_to_one_and_back_to_three_under_calls_loses_no_packet(fleet: Fleet) -> None:
    async with holding(fleet, 6) as callers:
        await asyncio.to_thread(scale, fleet, 1)
        await asyncio.to_thread(eventually, "one member takes calls", lambda: replicas(fleet) == (1, 1), 30.0)
        said = fleet.kube.get("transceiver", POOL)["status"]
        new, summary = await asyncio.to_thread(place_calls, fleet, 4, 1.0)
        await asyncio.to_thread(scale, fleet, 3)
        await asyncio.to_thread(eventually, "three members take calls", lambda: replicas(fleet) == (3, 3), 60.0)
    assert summary["audio_ok"] == 4
    assert len({peek_hint(call["ufrag"]).slot for call in new}) == 1, "a draining member took a call"
    assert said["drain"]["sessions"] + said["drain"]["unknown"] > 0
    assert {"oldestSession", "eta"} <= said["drain"].keys() or said["drain"]["unknown"]
    print(f"scale 3 → 1 → 3: {len(callers)} calls, {lost(callers)} of {sent(callers)} packets lost")
    assert [caller.result.error for caller in callers] == [""] * 6
    assert lost(callers) == 0
    eventually("nothing drains", lambda: "drain" not in fleet.kube.get("transceiver", POOL)["status"], 60.0)


async def test_at_the_deadline_of_an_annotated_pod_its_calls_are_hung_up_with_the_reason(fleet: Fleet) -> None:
    hurry(fleet)
    async with calls(fleet, 6, seconds=30) as callers:
        slots = [slot_of(caller) for caller in callers]
        slot = max(set(slots), key=slots.count)
        [pod] = [pod for pod in fleet.transceivers() if generation_of(pod)[0] == slot]
        name = pod["metadata"]["name"]
        log = await asyncio.create_subprocess_exec(*fleet.kube.argv("logs", "-f", name), stdout=asyncio.subprocess.PIPE)
        fleet.kube.run("annotate", "pod", name, f"{names.ANNOTATION_DRAIN}=3s")
        await asyncio.to_thread(eventually, "the pod gone", lambda: name not in names_of(fleet), 60.0)
        said, _ = await asyncio.wait_for(log.communicate(), 30)
    ended = [line for line in said.decode().splitlines() if "ended: drain_deadline" in line]
    hung_up = [caller for caller in callers if slot_of(caller) == slot]
    others = [caller for caller in callers if slot_of(caller) != slot]
    assert len(ended) == len(hung_up), said
    assert {caller.result.error for caller in hung_up} == {"the other side ended the call"}  # its close_notify came
    assert [caller.result.error for caller in others] == [""] * len(others)
    assert lost(others) == 0
    eventually("its replacement serves", lambda: replicas(fleet) == (3, 3), 30.0)
    hurry(fleet, on=False)


async def test_a_pod_deleted_while_the_operator_is_down_lets_its_calls_end_and_new_ones_go_elsewhere(
    fleet: Fleet,
) -> None:
    replicas_before = fleet.kube.get("deployment", "voicefleet-operator")["spec"]["replicas"]
    scale_operator(fleet, 0)
    try:
        await asyncio.to_thread(eventually, "no operator", lambda: not fleet.kube.get("pods", selector=OPERATOR), 60.0)
        async with holding(fleet, 4) as callers:
            slot = slot_of(callers[0])
            [pod] = [pod for pod in fleet.transceivers() if generation_of(pod)[0] == slot]
            # What `kubectl drain --disable-eviction` does.
            fleet.kube.run("delete", "pod", pod["metadata"]["name"], "--wait=false")
            new, summary = await asyncio.to_thread(place_calls, fleet, 6, 1.0)
            assert pod["metadata"]["name"] in names_of(fleet), "the pod did not wait for its calls"
    finally:
        scale_operator(fleet, replicas_before)
    assert [caller.result.error for caller in callers] == [""] * 4
    assert lost(callers) == 0
    assert summary["audio_ok"] == 6
    assert slot not in {peek_hint(call["ufrag"]).slot for call in new}
    eventually("the operator makes a replacement", lambda: replicas(fleet) == (3, 3), 60.0)


def hurry(fleet: Fleet, *, on: bool = True) -> None:
    """Let every slot move at once, and believe in a new generation after a second: calls here last seconds."""
    rollout = {"maxSurge": 3, "minReady": "1s"} if on else {"maxSurge": 1, "minReady": "10s"}
    fleet.kube.run("patch", "transceiver", POOL, "--type=merge", "-p", json.dumps({"spec": {"rollout": rollout}}))


def scale_operator(fleet: Fleet, count: int) -> None:
    fleet.kube.run("scale", "deployment", "voicefleet-operator", f"--replicas={count}")


def scale(fleet: Fleet, count: int) -> None:
    fleet.kube.run("scale", "transceiver", POOL, f"--replicas={count}")


def replicas(fleet: Fleet) -> tuple[int, int]:
    status = fleet.kube.get("transceiver", POOL)["status"]
    return status["replicas"], status["readyReplicas"]


def generation_of(pod: Any) -> tuple[int, int]:
    labels = pod["metadata"]["labels"]
    return int(labels[names.LABEL_SLOT]), int(labels[names.LABEL_GENERATION])


def pods_on(fleet: Fleet, node: str) -> list[Any]:
    return [pod for pod in fleet.kube.get("pods", selector=TRANSCEIVERS) if pod["spec"].get("nodeName") == node]


def slots_on(fleet: Fleet, node: str) -> set[int]:
    return {generation_of(pod)[0] for pod in pods_on(fleet, node)}


def moved(fleet: Fleet, node: str) -> bool:
    """Every slot has a ready pod on another node, and what is left on this one is fenced."""
    elsewhere = [pod for pod in fleet.transceivers() if pod["spec"]["nodeName"] != node]
    fenced = all("voicefleet.dev/draining-since" in pod["metadata"]["annotations"] for pod in pods_on(fleet, node))
    return fenced and len({generation_of(pod)[0] for pod in elsewhere}) == 3


def names_of(fleet: Fleet) -> set[str]:
    return {pod["metadata"]["name"] for pod in fleet.kube.get("pods", selector=TRANSCEIVERS)}

"""Deleting the namespace frees every pod and port. The last story: the next run makes the fleet again."""

import asyncio
import json
import socket

from e2e.fleet import RELAY_NODES, Fleet
from e2e.kube import KubeError, eventually
from e2e.talk import calls

OPERATOR = "app.kubernetes.io/component=operator"


async def test_the_namespace_goes_with_calls_in_it_and_the_operator_down(fleet: Fleet) -> None:
    """Nothing of ours has a finalizer, and a pod's grace bounds its drain: no deletion waits for the operator.

    Kubernetes' namespace controller looks again after half of the longest grace of the pods that it found: with a relay's default
    of an hour that may be half an hour after the last pod ended. So this fleet's relays drain for a minute, and transceivers that
    an earlier story made with a longer grace are replaced.
    """
    patch = json.dumps({"spec": {"drain": {"deadline": "60s"}}})
    fleet.kube.run("patch", "voicerelay", "fra", "--type=merge", "--patch", patch)
    fleet.change(
        {"drain": {"deadline": "60s"}, "capacity": {"sessions": 51}, "rollout": {"maxSurge": 3, "minReady": "1s"}}
    )
    eventually("every pod has a short grace", lambda: all_have_a_short_grace(fleet), 240)
    ports = inner_ports(fleet)
    assert {host for host, _ in ports} <= {node.internal for node in fleet.nodes}
    assert ports
    assert all(accepts(*port) for port in ports)
    async with calls(fleet, 3, seconds=30):
        fleet.kube.run("scale", "deployment", "voicefleet-operator", "--replicas=0")
        await asyncio.to_thread(eventually, "no operator", lambda: not fleet.kube.get("pods", selector=OPERATOR), 60.0)
        longest_s = max(pod["spec"]["terminationGracePeriodSeconds"] for pod in fleet.kube.get("pods"))
        fleet.kube.run("delete", "namespace", fleet.kube.namespace, "--wait=false", namespaced=False)
    within_s = 1.5 * longest_s + 60  # the pod of the longest grace, the controller's next look, kubelet
    await asyncio.to_thread(eventually, "the namespace gone", lambda: "NotFound" in gone(fleet), within_s)
    assert not any(accepts(*port) for port in ports)


def all_have_a_short_grace(fleet: Fleet) -> bool:
    pods = fleet.kube.get("pods")
    return len(fleet.relays()) == RELAY_NODES and all(p["spec"]["terminationGracePeriodSeconds"] <= 75 for p in pods)


def gone(fleet: Fleet) -> str:
    try:
        return fleet.kube.run("get", "namespace", fleet.kube.namespace, namespaced=False)
    except KubeError as error:
        return str(error)


def inner_ports(fleet: Fleet) -> set[tuple[str, int]]:
    return {
        (pod["status"]["hostIP"], port["hostPort"])
        for pod in [*fleet.transceivers(), *fleet.relays()]
        for port in pod["spec"]["containers"][0]["ports"]
        if port["protocol"] == "TCP"
    }


def accepts(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False

"""Other people's ports on our nodes: wanted after us, and held by what Kubernetes does not know. Taken before us: tests/control_plane/test_ports.py."""

import asyncio
import contextlib
import json
import subprocess
from collections.abc import Iterator
from typing import Any

from e2e.cluster.nodes import NODES
from e2e.fleet import POOL, Fleet
from e2e.kube import eventually
from e2e.talk import talking
from voicefleet_contract import names

RANGE = range(20000, 20100)
ELSEWHERE = "other-people"


def port_of(pod: Any) -> int:
    return int(pod["metadata"]["labels"][names.LABEL_PORT])


def slot_of(pod: Any) -> int:
    return int(pod["metadata"]["labels"][names.LABEL_SLOT])


@contextlib.contextmanager
def foreign_pod(fleet: Fleet, name: str, node: str, ports: list[int]) -> Iterator[None]:
    """Let a pod of another namespace declare host ports on a node."""
    kube = fleet.kube
    label = {"pod-security.kubernetes.io/enforce": "privileged"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": ELSEWHERE, "labels": label}}
    container = {
        "name": "holder",
        "image": fleet.site.image("redis"),
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "600"],
        "ports": [{"containerPort": port, "hostPort": port, "protocol": "UDP"} for port in ports],
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": ELSEWHERE},
        "spec": {
            "hostNetwork": True,
            "terminationGracePeriodSeconds": 0,
            "nodeSelector": {"kubernetes.io/hostname": node},
            "containers": [container],
        },
    }
    for manifest in (namespace, pod):
        kube.run("apply", "--server-side", "-f", "-", stdin=json.dumps(manifest), namespaced=False)
    try:
        yield
    finally:
        kube.run("delete", "namespace", ELSEWHERE, "--timeout=60s", namespaced=False)


def foreign_status(fleet: Fleet, name: str) -> dict[str, Any]:
    return json.loads(fleet.kube.run("get", "pod", name, "-n", ELSEWHERE, "-o", "json", namespaced=False))["status"]


async def test_a_foreign_pod_that_wants_our_number_later_waits_and_moves_no_call(fleet: Fleet) -> None:
    before = {pod["metadata"]["uid"] for pod in fleet.transceivers()}
    ours = fleet.transceivers()[0]

    def refused() -> bool:
        with foreign_pod(fleet, "late", ours["spec"]["nodeName"], [port_of(ours)]):
            return eventually("refused", lambda: "free ports" in json.dumps(foreign_status(fleet, "late")), 30)

    async with talking(fleet, 5):
        assert await asyncio.to_thread(refused)
        assert {pod["metadata"]["uid"] for pod in fleet.transceivers()} == before


@contextlib.contextmanager
def process_on_every_node(port: int) -> Iterator[None]:
    """Bind a UDP port in the namespace of each node, as a process that Kubernetes does not know."""
    program = (
        "import socket, sys; one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
        f"one.bind(('0.0.0.0', {port})); print('bound', flush=True); sys.stdin.read()"
    )
    with contextlib.ExitStack() as ending:
        for node in NODES:
            argv = ["ip", "netns", "exec", node.name, "python3", "-c", program]
            process = ending.enter_context(
                subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            ending.callback(process.terminate)
            assert process.stdout is not None
            assert process.stdout.readline() == "bound\n"
        yield


def test_a_number_that_a_process_on_the_node_holds_is_found_out_shut_and_replaced(fleet: Fleet) -> None:
    fleet.site.only_local("this story binds ports inside of nodes")
    before = fleet.transceivers()
    lost = before[0]
    slot, generation = slot_of(lost), int(lost["metadata"]["labels"][names.LABEL_GENERATION])
    kept = {port_of(pod) for pod in before[1:]}
    start = slot + (generation + 1) * len(RANGE) // 2
    first_choice = next(
        port for step in range(len(RANGE)) if (port := RANGE[(start + step) % len(RANGE)]) not in kept | {port_of(lost)}
    )
    fleet.site.only_local("a process in the network namespace of each node")
    with process_on_every_node(first_choice):
        fleet.kube.run("delete", "pod", lost["metadata"]["name"], "--wait=false")
        eventually("three members again", lambda: served(fleet, lost), within_s=90)
    [pod] = [pod for pod in fleet.transceivers() if slot_of(pod) == slot]
    assert port_of(pod) != first_choice
    shut = fleet.kube.get("configmap", "voicefleet-ports")["data"]
    assert [key for key in shut if key.endswith(f"_{first_choice}")], shut
    words = (f"{first_choice} on ", "is held by a process on the node")
    fleet.await_condition(POOL, "PortsAllocated", "True", "ConflictsAvoided", *words)


def served(fleet: Fleet, lost: Any) -> bool:
    pods = fleet.transceivers()
    return len(pods) == 3 and lost["metadata"]["uid"] not in {pod["metadata"]["uid"] for pod in pods}

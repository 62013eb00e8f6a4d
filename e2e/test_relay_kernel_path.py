"""Relays in kernel mode: restarted and killed under ten calls, in lost packets; what each fall back says, and what stays.

Media passes in the kernel, so it must not notice. Relays and transceivers share nodes here: some calls take the way through a
transceiver on the relay's own node, some the way to another.
"""

import asyncio
import json
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from e2e.fleet import Fleet
from e2e.kube import eventually
from e2e.relays import Location, kill_process, process_of
from e2e.talk import PACKETS_PER_S, calling, holding, place_calls
from voicefleet_dataplane.shell.client.packet_caller import Caller

RELAYS = "daemonset/fra-relay"
OPERATOR = "app.kubernetes.io/component=operator"
MOST_LOST = 3  # of each call, over a restart or a kill of every relay


async def test_relays_are_restarted_and_killed_and_no_call_notices(fleet: Fleet) -> None:
    kernel_path(fleet, "InKernel")
    async with holding(fleet, 10) as callers:
        await asyncio.to_thread(eventually, "media in the kernel", lambda: carried(fleet) > 500, 30.0)
        for what, do in (("undisturbed", undisturbed), ("restarted", restart), ("killed", kill)):
            before = Marks(callers)
            await asyncio.to_thread(do, fleet)
            await asyncio.sleep(2.0)  # of media after it, which is counted too
            lost = before.lost()
            print(f"relays {what}: lost of each call {lost}, of {before.sent()} packets each")
            assert max(lost) <= MOST_LOST, f"relays {what}: {lost}"
        adopted = [metrics(pod)["voicefleet_relay_flows_adopted"] for pod in fleet.relays()]
        assert sum(adopted) >= 10, adopted
    assert not [caller.result.error for caller in callers if caller.result.error]


async def test_user_space_by_config_and_for_want_of_rights_says_so_and_carries_calls(fleet: Fleet) -> None:
    with datapath(fleet, "Userspace"):
        await asyncio.to_thread(kernel_path, fleet, "NotAskedFor")
        assert {mode(pod) for pod in fleet.relays()} == {"Userspace"}
        _, summary = await asyncio.to_thread(place_calls, fleet, 4, 2.0)
        assert summary["audio_ok"] == 4
    await asyncio.to_thread(kernel_path, fleet, "InKernel")
    with datapath(fleet, "XDP"):  # the other ends of these nodes' links do no GRO
        await asyncio.to_thread(eventually, "why it is TC", lambda: "XDPNative: " in kernel_path(fleet, "InKernel"))
        assert {mode(pod) for pod in fleet.relays()} == {"TCX"}
    with no_rights(fleet):
        nodes = {pod["spec"]["nodeName"] for pod in fleet.relays()}  # each says it when its own relay has come up
        message = await asyncio.to_thread(kernel_path, fleet, "FellBackToUserspace", nodes)
        assert "not permitted" in message
        _, summary = await asyncio.to_thread(place_calls, fleet, 4, 2.0)
        assert summary["audio_ok"] == 4
    await asyncio.to_thread(kernel_path, fleet, "InKernel")
    async with calling(fleet, seconds=6):
        before = carried(fleet)
        await asyncio.to_thread(eventually, "media in the kernel again", lambda: carried(fleet) > before + 50, 20.0)


async def test_a_voicerelay_that_is_deleted_while_the_operator_is_away_leaves_nothing_on_its_node(fleet: Fleet) -> None:
    fleet.site.only_local("it looks into a node's BPF file system")
    replicas = fleet.kube.get("deployment", "voicefleet-operator")["spec"]["replicas"]
    with Location(fleet, "lonely", "node-c", 3510, "Auto") as lonely, pins_of_node(lonely.pod()) as pins:
        assert "lonely" in pins()
        scale_operator(fleet, 0)
        try:
            await asyncio.to_thread(eventually, "no operator", lambda: not fleet.kube.get("pods", selector=OPERATOR))
            fleet.kube.run("delete", "voicerelay", "lonely", "--wait=false")
            await asyncio.to_thread(eventually, "its pod gone", lambda: not lonely.all_pods(), 60.0)
            assert "lonely" not in pins()
        finally:
            scale_operator(fleet, replicas)


def scale_operator(fleet: Fleet, count: int) -> None:
    fleet.kube.run("scale", "deployment", "voicefleet-operator", f"--replicas={count}")


@contextmanager
def pins_of_node(pod: Any) -> Iterator[Callable[[], list[str]]]:
    """Gives what relays have pinned on a pod's node, also when the pod is gone."""
    bpffs = os.open(f"/proc/{process_of(pod)}/root/sys/fs/bpf", os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield lambda: [path.name for path in Path(f"/proc/self/fd/{bpffs}/voicefleet").glob("*/*")]
    finally:
        os.close(bpffs)


class Marks:
    """How far each call was, to count what it lost since."""

    def __init__(self, callers: list[Caller]) -> None:
        self._callers = callers
        self._since = [caller.result.sent for caller in callers]

    def _until(self) -> list[int]:
        return [caller.result.sent - PACKETS_PER_S for caller in self._callers]  # younger ones may be on their way

    def lost(self) -> list[int]:
        until = self._until()
        return [
            len(set(range(start, end)) - set(caller.result.heard))
            for caller, start, end in zip(self._callers, self._since, until, strict=True)
        ]

    def sent(self) -> int:
        return min(end - start for start, end in zip(self._since, self._until(), strict=True))


def undisturbed(fleet: Fleet) -> None:
    start = carried(fleet)
    eventually("four seconds of packets", lambda: carried(fleet) > start + 2_000, 30.0)


def restart(fleet: Fleet) -> None:
    fleet.kube.run("rollout", "restart", RELAYS)
    fleet.kube.run("rollout", "status", RELAYS, "--timeout=120s")


def kill(fleet: Fleet) -> None:
    """SIGKILL each relay's process, as the kernel would for want of memory; the kubelet starts it again."""
    fleet.site.only_local("SIGKILL of a pod's process needs its node's processes")
    before = {pod["metadata"]["name"]: restarts(pod) for pod in fleet.relays()}
    for pod in fleet.relays():
        kill_process(pod)

    def all_back() -> bool:
        now = {pod["metadata"]["name"]: restarts(pod) for pod in fleet.relays()}
        return now.keys() == before.keys() and all(now[name] > before[name] for name in before)

    eventually("every relay started again and ready", all_back, 60.0)


def restarts(pod: Any) -> int:
    return int(pod["status"]["containerStatuses"][0]["restartCount"])


def metrics(pod: Any, port: int = 3479) -> dict[str, float]:
    text = httpx.get(f"http://{pod['status']['hostIP']}:{port}/metrics", trust_env=False, timeout=5).text
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in lines}


def carried(fleet: Fleet) -> int:
    """Packets that the kernel has carried for all relays, both ways."""
    whats = ("forwarded", "delivered", "returned")
    names = [f'voicefleet_relay_kernel_packets_total{{what="{what}"}}' for what in whats]
    return sum(int(found.get(name, 0)) for found in map(metrics, fleet.relays()) for name in names)


def mode(pod: Any) -> str:
    [name] = [name for name in metrics(pod) if name.startswith("voicefleet_relay_datapath{")]
    return name.split('mode="', 1)[1].split('"', 1)[0]


def kernel_path(fleet: Fleet, reason: str, of_nodes: Collection[str] = ()) -> str:
    """Wait until VoiceRelay's condition FastPath has a reason, and names each of the nodes; gives its message."""

    def said() -> str:
        status, why, message = fleet.status_condition("voicerelay", "fra", "FastPath")
        assert why == reason, f"FastPath is {status} ({why}): {message}"
        assert all(f"{node}: " in message for node in of_nodes), message
        return message or reason

    return eventually(f"FastPath {reason}", said, 60.0)


@contextmanager
def datapath(fleet: Fleet, wanted: str) -> Iterator[None]:
    def ask(value: str) -> None:
        before = fleet.kube.get("daemonset", "fra-relay")["metadata"]["generation"]
        fleet.kube.run("patch", "voicerelay", "fra", "--type=merge", "-p", json.dumps({"spec": {"datapath": value}}))
        eventually(
            "the relays' DaemonSet changed",
            lambda: fleet.kube.get("daemonset", "fra-relay")["metadata"]["generation"] > before,
        )
        fleet.kube.run("rollout", "status", RELAYS, "--timeout=120s")

    ask(wanted)
    try:
        yield
    finally:
        ask("Auto")


@contextmanager
def no_rights(fleet: Fleet) -> Iterator[None]:
    """Relays without their capabilities, as a cluster's policy may have them; the operator leaves what it did not change."""

    def give(*names: str) -> None:
        patch = [
            {
                "op": "replace",
                "path": "/spec/template/spec/containers/0/securityContext/capabilities/add",
                "value": list(names),
            }
        ]
        fleet.kube.run("patch", "daemonset", "fra-relay", "--type=json", "-p", json.dumps(patch))
        fleet.kube.run("rollout", "status", RELAYS, "--timeout=120s")

    give("NET_BIND_SERVICE")
    try:
        yield
    finally:
        give("BPF", "NET_ADMIN")

"""A transceiver that answers offers and hears no packet: out of placement on the evidence of its calls, and back."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from e2e.cluster.startup import node_prefix
from e2e.cluster.steps import run
from e2e.fleet import POOL, Fleet
from e2e.kube import eventually
from e2e.talk import place_calls, talking
from voicefleet_contract import names
from voicefleet_contract.hint import peek_hint

ANNOTATION = "voicefleet.dev/gray"
TABLE = "voicefleet-gray"


@contextmanager
def deaf(node: str, port: str) -> Iterator[None]:
    """No UDP datagram reaches a port of a node; TCP, probes and heartbeats do."""
    nft = [*node_prefix(node), "nft"]
    run([*nft, "add", "table", "inet", TABLE])
    run([*nft, "add", "chain", "inet", TABLE, "in", "{ type filter hook input priority -300; }"])
    run([*nft, "add", "rule", "inet", TABLE, "in", "udp", "dport", port, "drop"])
    try:
        yield
    finally:
        run([*nft, "delete", "table", "inet", TABLE])


async def test_a_transceiver_that_no_datagram_reaches_is_out_of_placement_and_returns(fleet: Fleet) -> None:
    fleet.site.only_local("a rule is put into a node's network namespace")
    async with talking(fleet, 1) as [caller]:
        owner = peek_hint(caller.result.ufrag).slot
        victim = next(pod for pod in fleet.transceivers() if slot_of(pod) != owner)
        with deaf(victim["spec"]["nodeName"], victim["metadata"]["labels"][names.LABEL_PORT]):
            await asyncio.to_thread(call_until, fleet, lambda: verdict(fleet, victim).get("phase") == "out")
            ejected = ("False", "MembersEjected", victim["metadata"]["name"], "no media in")
            await asyncio.to_thread(fleet.await_condition, POOL, "MembersHealthy", *ejected)
            await asyncio.to_thread(eventually, "out", lambda: member(fleet, victim)["state"] == "starting", 10.0)
            converged = "every gateway works with the ring without it"
            await asyncio.to_thread(
                eventually, converged, lambda: fleet.condition("transceiver", POOL, "RingConverged"), 30.0
            )
            each, well = await asyncio.to_thread(place_calls, fleet, 6, 4.0)
            assert slot_of(victim) not in {peek_hint(call["ufrag"]).slot for call in each}
            assert well["audio_ok"] == 6, [(call["error"], call["own"], call["others"], call["loss"]) for call in each]
        await asyncio.to_thread(
            eventually, "on probation", lambda: verdict(fleet, victim).get("phase") == "probation", 45.0
        )
        await asyncio.to_thread(eventually, "in the ring", lambda: member(fleet, victim)["state"] == "active", 10.0)
        assert member(fleet, victim)["weight"] == 10
        await asyncio.to_thread(call_until, fleet, lambda: not verdict(fleet, victim))
    assert not caller.result.error
    assert caller.result.loss == 0
    eventually("all are well", lambda: fleet.condition("transceiver", POOL, "MembersHealthy"), 30.0)


def call_until(fleet: Fleet, seen: Any, batches: int = 14) -> None:
    for _ in range(batches):
        place_calls(fleet, 20, 1.0)
        if seen():
            return
    raise AssertionError(
        f"not after {batches * 20} calls: {fleet.status_condition('transceiver', POOL, 'MembersHealthy')}"
    )


def slot_of(pod: Any) -> int:
    return int(pod["metadata"]["labels"][names.LABEL_SLOT])


def verdict(fleet: Fleet, pod: Any) -> dict[str, Any]:
    annotations = fleet.kube.get("pod", pod["metadata"]["name"])["metadata"].get("annotations", {})
    found: dict[str, Any] = json.loads(annotations.get(ANNOTATION, "{}"))
    return found


def member(fleet: Fleet, pod: Any) -> dict[str, Any]:
    for part in fleet.kube.get("topologyslices"):
        for one in part["spec"].get("pool", {}).get("members", ()):
            if one["name"] == pod["metadata"]["name"]:
                found: dict[str, Any] = one
                return found
    raise AssertionError(f"{pod['metadata']['name']} is not in the topology")

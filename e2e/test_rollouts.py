"""Rollouts under calls: none is dropped by one, by another on top of it, or by an image that does not work."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from e2e.fleet import POOL, Fleet
from e2e.kube import eventually
from e2e.talk import place_calls, slot_of, talking
from voicefleet_contract import names

TRANSCEIVERS = "app.kubernetes.io/component=transceiver"


@pytest.fixture(autouse=True)
def _as_it_was(fleet: Fleet):
    """Short proofs and long drains; afterwards the pool as the other stories know it."""
    fleet.change({"rollout": {"minReady": "2s"}, "drain": {"deadline": "180s"}})
    yield
    fleet.change({"capacity": {"sessions": 50}, "image": None})
    eventually("settled", lambda: rolled_out(fleet) and drained(fleet), within_s=120)
    fleet.change({"rollout": {"minReady": "10s"}, "drain": {"deadline": "60s"}})


def status(fleet: Fleet) -> dict[str, Any]:
    found = fleet.kube.get("transceiver", POOL)
    current = found["status"]["observedGeneration"] == found["metadata"]["generation"]
    return found["status"] if current else {}


def rolled_out(fleet: Fleet) -> bool:
    seen = status(fleet)
    conditions = {c["type"]: c["status"] for c in seen.get("conditions", ())}
    return bool(seen) and seen["updatedReplicas"] == 3 and conditions["Reconciling"] == "False"


def drained(fleet: Fleet) -> bool:
    return bool(seen := status(fleet)) and seen["drainingReplicas"] == 0


def generations(fleet: Fleet) -> dict[int, set[int]]:
    found: dict[int, set[int]] = {}
    for pod in fleet.transceivers():
        labels = pod["metadata"]["labels"]
        found.setdefault(int(labels[names.LABEL_SLOT]), set()).add(int(labels[names.LABEL_GENERATION]))
    return found


async def until(what: str, look: Callable[[], object], within_s: float) -> None:
    await asyncio.to_thread(eventually, what, look, within_s)


async def roll(fleet: Fleet, capacity: int) -> None:
    await asyncio.to_thread(fleet.change, {"capacity": {"sessions": capacity}})
    await until(f"capacity {capacity} everywhere", lambda: rolled_out(fleet), 90)


async def test_two_rollouts_under_thirty_calls_drop_none_and_new_calls_go_to_the_new_generation(fleet: Fleet) -> None:
    async with talking(fleet, 20) as first:
        await roll(fleet, 60)
        async with talking(fleet, 10) as second:  # they belong to the second generation
            await roll(fleet, 70)
            each, new = await asyncio.to_thread(place_calls, fleet, 5, 1.0)
            assert new["audio_ok"] == 5, each
            left = [slot for callers in (first, second) for slot in set(map(slot_of, callers))]
            assert len(left) >= 4, f"calls are spread over slots: {left}"
            slots = generations(fleet).keys()  # whatever numbers earlier stories left
            want = {slot: 1 + left.count(slot) for slot in slots}
            assert len(slots) == 3 and set(left) <= slots, (slots, left)
            said = "a slot keeps each generation that holds calls, and no other"
            await until(said, lambda: {slot: len(of) for slot, of in generations(fleet).items()} == want, 30)
            await until("the status counts them", lambda: status(fleet).get("drainingReplicas") == len(left), 30)
            assert status(fleet)["readyReplicas"] == 3
            pods = fleet.transceivers()
            places = [(pod["spec"]["nodeName"], pod["metadata"]["labels"][names.LABEL_PORT]) for pod in pods]
            assert len(set(places)) == len(places) == 3 + len(left)
            state, reason, said = fleet.status_condition("transceiver", POOL, "Draining")
            assert (state, reason) == ("True", "WaitingForCalls"), said
            assert "memory requested" in said
    await until("the old generations gone", lambda: drained(fleet), 60)


async def test_an_image_that_does_not_work_stalls_touches_one_slot_and_the_old_spec_rolls_back(fleet: Fleet) -> None:
    """Other ways in which one does not work: tests/control_plane/test_rollouts.py."""
    image, trouble = fleet.site.image("redis"), "CrashLoopBackOff"  # Redis knows no role named transceiver
    before = {pod["metadata"]["uid"] for pod in fleet.transceivers()}
    assert len(before) == 3

    def stalled() -> bool:
        return trouble in fleet.status_condition("transceiver", POOL, "Stalled")[2]

    async with talking(fleet, 5):
        await asyncio.to_thread(fleet.change, {"image": image})
        await until(trouble, stalled, 60)
        state, _, said = fleet.status_condition("transceiver", POOL, "Stalled")
        assert state == "True"
        assert "apply the old spec to roll back" in said
        assert fleet.status_condition("transceiver", POOL, "Reconciling")[0] == "True"
        assert {pod["metadata"]["uid"] for pod in fleet.transceivers()} == before
        assert len(fleet.kube.pods(TRANSCEIVERS)) == 4
        each, new = await asyncio.to_thread(place_calls, fleet, 3, 1.0)
        assert new["audio_ok"] == 3, each
        await asyncio.to_thread(fleet.change, {"image": None})
        await until("rolled back", lambda: rolled_out(fleet), 60)
        assert {pod["metadata"]["uid"] for pod in fleet.transceivers()} == before


async def test_the_leading_operator_is_killed_in_mid_rollout_and_the_other_one_ends_it(fleet: Fleet) -> None:
    async with talking(fleet, 10):
        before = leader(fleet)
        await asyncio.to_thread(fleet.change, {"capacity": {"sessions": 80}})
        await until("a rollout in its middle", lambda: 0 < status(fleet).get("updatedReplicas", 0) < 3, 60)
        kill = ("delete", "pod", before, "--grace-period=0", "--force", "--wait=false")
        await asyncio.to_thread(fleet.kube.run, *kill)
        await until("another leader", lambda: leader(fleet) not in ("", before), 30)
        await until("the rollout's end", lambda: rolled_out(fleet), 90)
        each, new = await asyncio.to_thread(place_calls, fleet, 5, 1.0)
        assert new["audio_ok"] == 5, each
    assert {len(of_slot) for of_slot in generations(fleet).values()} <= {1, 2}, "no slot was moved twice"


def leader(fleet: Fleet) -> str:
    return str(fleet.kube.get("lease", "voicefleet-operator")["spec"].get("holderIdentity") or "")

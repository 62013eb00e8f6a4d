"""Rollouts under calls: none is dropped by one, by another on top of it, or by an image that does not work."""

import contextlib
from typing import Any

import pytest

from e2e.fleet import POOL, Fleet
from e2e.kube import eventually
from e2e.talk import Calls, control, place_calls
from voicefleet_contract import names


@pytest.fixture(autouse=True)
def _as_it_was(fleet: Fleet):
    """Short proofs and long drains; afterwards the pool as the other stories know it."""
    fleet.change({"rollout": {"minReady": "2s"}, "drain": {"deadline": "120s"}})
    yield
    fleet.change(
        {"rollout": {"minReady": "10s"}, "drain": {"deadline": "60s"}, "capacity": {"sessions": 50}, "image": None}
    )
    eventually("settled", lambda: rolled_out(fleet) and drained(fleet), within_s=180)


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


def test_two_rollouts_under_thirty_calls_drop_none_and_new_calls_go_to_the_new_generation(fleet: Fleet) -> None:
    with contextlib.ExitStack() as ending:
        thirty: list[Calls] = []

        def ten_more(seconds: float) -> None:
            before = sessions(fleet)  # a gateway lets one client place ten at once
            thirty.append(ending.enter_context(Calls(fleet, 10, seconds)))
            eventually("ten more calls", lambda: sessions(fleet) == before + 10, within_s=30)

        ten_more(90)
        ten_more(85)
        for capacity in (60, 70):
            fleet.change({"capacity": {"sessions": capacity}})
            eventually(f"capacity {capacity} everywhere", lambda: rolled_out(fleet), within_s=60)
            assert all(calls.running for calls in thirty), "the calls ended before the rollout: make them longer"
            if len(thirty) < 3:
                ten_more(50)  # to the second generation: the second rollout is under thirty
            each, new = place_calls(fleet, 5, seconds=1.0)
            assert new["audio_ok"] == 5, each
        assert {len(of_slot) for of_slot in generations(fleet).values()} == {3}, "three generations of each slot"
        assert status(fleet)["drainingReplicas"] == 6
        assert status(fleet)["readyReplicas"] == 3
        places = [
            (pod["spec"]["nodeName"], pod["metadata"]["labels"][names.LABEL_PORT]) for pod in fleet.transceivers()
        ]
        assert len(set(places)) == len(places) == 9
        state, reason, said = fleet.status_condition("transceiver", POOL, "Draining")
        assert (state, reason) == ("True", "WaitingForCalls"), said
        assert "memory requested" in said
        for calls in thirty:
            each, summary = calls.finish()
            assert summary["answered"] == summary["audio_ok"] == 10, each
            assert summary["loss"] == 0, each
    eventually("the old generations gone", lambda: drained(fleet), within_s=60)


def sessions(fleet: Fleet) -> int:
    return sum(control(fleet, pod, "/v1/status")["sessions"] for pod in fleet.transceivers())


@pytest.mark.parametrize(
    ("image", "trouble"),
    [
        ("voicefleet.local/dataplane:never-built", "ErrImageNeverPull"),
        ("voicefleet.local/redis:7", "CrashLoopBackOff"),  # it knows no role named transceiver, and ends
    ],
)
def test_a_bad_image_stalls_touches_one_slot_and_the_old_spec_rolls_back(
    fleet: Fleet, image: str, trouble: str
) -> None:
    before = {pod["metadata"]["uid"] for pod in fleet.transceivers()}
    with Calls(fleet, 5, seconds=40) as calls:
        fleet.change({"image": image})
        eventually(trouble, lambda: trouble in fleet.status_condition("transceiver", POOL, "Stalled")[2], within_s=40)
        state, _, said = fleet.status_condition("transceiver", POOL, "Stalled")
        assert state == "True"
        assert "apply the old spec to roll back" in said
        assert fleet.status_condition("transceiver", POOL, "Reconciling")[0] == "True"
        assert {pod["metadata"]["uid"] for pod in fleet.transceivers()} == before
        assert len(fleet.kube.pods("app.kubernetes.io/component=transceiver")) == 4
        assert place_calls(fleet, 3, seconds=1.0)[1]["audio_ok"] == 3
        fleet.change({"image": None})
        eventually("rolled back", lambda: rolled_out(fleet), within_s=30)
        assert {pod["metadata"]["uid"] for pod in fleet.transceivers()} == before
        each, summary = calls.finish()
        assert summary["audio_ok"] == 5, each
        assert summary["loss"] == 0, each

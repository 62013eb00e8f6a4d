"""Rollouts that do not work touch one slot, say why, and go back; a leader's death in the middle of one costs no slot a second move.

What calls notice of rollouts: e2e/test_rollouts.py.
"""

import signal
from typing import Any

import pytest

from e2e.bare.fleet import BareFleet
from e2e.bare.kubelets import CRASHES, NO_IMAGE, Fate, Kubelets
from e2e.bare.operator import leader_and_standby
from e2e.kube import eventually
from e2e.resources import POOL
from tests.control_plane.pools import TRANSCEIVERS, make_pool, rolled_out, status, uids
from voicefleet_contract import names

PULL_FAILS = Fate(waiting="ImagePullBackOff", message="Back-off pulling image")


@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize(
    ("fate", "trouble"),
    [(NO_IMAGE, "ErrImageNeverPull"), (PULL_FAILS, "ImagePullBackOff"), (CRASHES, "CrashLoopBackOff")],
)
def test_a_bad_image_stalls_touches_one_slot_and_the_old_spec_rolls_back(
    fleet: BareFleet, kubelets: Kubelets, fate: Fate, trouble: str
) -> None:
    make_pool(fleet)
    before = uids(fleet.transceivers())

    def bad(pod: Any) -> Fate | None:
        return fate if pod["spec"]["containers"][0]["image"] == "bad" else None

    with kubelets.fate(bad):
        fleet.change({"image": "bad"})
        eventually(trouble, lambda: trouble in fleet.status_condition("transceiver", POOL, "Stalled")[2], 30.0)
        state, _, said = fleet.status_condition("transceiver", POOL, "Stalled")
        assert state == "True"
        assert "apply the old spec to roll back" in said
        assert fleet.status_condition("transceiver", POOL, "Reconciling")[0] == "True"
        assert uids(fleet.transceivers()) == before
        assert len(fleet.kube.pods(TRANSCEIVERS)) == 4
        fleet.change({"image": None})
        eventually("rolled back", lambda: rolled_out(fleet), 30.0)
    assert uids(fleet.transceivers()) == before


def test_the_leading_operator_is_killed_in_mid_rollout_and_the_other_one_ends_it(fleet: BareFleet) -> None:
    with fleet.operator(name="first", lease="op") as first, fleet.operator(name="second", lease="op") as second:
        leader, other = leader_and_standby(first, second)
        make_pool(fleet)
        fleet.change({"capacity": {"sessions": 80}})
        eventually("a rollout in its middle", lambda: 0 < status(fleet).get("updatedReplicas", 0) < 3, 30.0)
        leader.stop(signal.SIGKILL)
        other.wait_leading(30.0)
        eventually("the rollout's end", lambda: rolled_out(fleet), 60.0)
        found = [pod["metadata"]["labels"] for pod in fleet.transceivers()]
    assert {int(labels[names.LABEL_GENERATION]) for labels in found} <= {1, 2}, "a slot was moved twice"

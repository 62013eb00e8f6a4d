"""A transceiver with calls blocks its eviction and an idle one does not. Who has calls its heartbeat says."""

import json
from typing import Any

import pytest
import redis

from e2e.bare.fleet import BareFleet
from e2e.kube import eventually
from tests.control_plane.heartbeats import write_heartbeats
from tests.control_plane.pools import make_pool
from voicefleet_contract import names


@pytest.mark.usefixtures("operator")
def test_a_busy_transceiver_blocks_its_eviction_and_an_idle_one_does_not(fleet: BareFleet, registry: str) -> None:
    make_pool(fleet)
    slots = sorted(fleet.transceivers(), key=lambda pod: int(pod["metadata"]["labels"][names.LABEL_SLOT]))
    busy, _, idle = (pod["metadata"]["name"] for pod in slots)  # of those without calls the highest slot is marked
    with redis.Redis.from_url(registry) as client:
        write_heartbeats(client, fleet, {busy: 1})
    eventually("the idle one is marked", lambda: marked(fleet, idle), within_s=40)
    # A mark that somebody else put there, or that was true a moment ago.
    fleet.kube.run("label", "pod", busy, f"{names.LABEL_IDLE}=true", "--overwrite")
    eventually("the busy one is not idle", lambda: not marked(fleet, busy), within_s=20)
    refused = fleet.kube.fails("create", "--raw", eviction_path(fleet, busy), "-f", "-", stdin=eviction(fleet, busy))
    assert "disruption budget" in refused
    labels = fleet.kube.get("pod", busy)["metadata"]["labels"]
    budgets = [b["spec"]["selector"]["matchLabels"] for b in fleet.kube.get("poddisruptionbudgets")]
    assert len([over for over in budgets if over.items() <= labels.items()]) == 1  # two would break every eviction
    fleet.kube.run("create", "--raw", eviction_path(fleet, idle), "-f", "-", stdin=eviction(fleet, idle))
    eventually("it is gone", lambda: idle not in members(fleet), within_s=30)
    eventually("a replacement serves", lambda: len(members(fleet)) == 3, within_s=30)
    assert busy in members(fleet)


def members(fleet: BareFleet) -> set[str]:
    return {pod["metadata"]["name"] for pod in fleet.transceivers()}


def marked(fleet: BareFleet, name: str) -> Any:
    return fleet.kube.get("pod", name)["metadata"]["labels"].get(names.LABEL_IDLE)


def eviction_path(fleet: BareFleet, name: str) -> str:
    return f"/api/v1/namespaces/{fleet.namespace}/pods/{name}/eviction"


def eviction(fleet: BareFleet, name: str) -> str:
    metadata = {"name": name, "namespace": fleet.namespace}
    return json.dumps({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata})

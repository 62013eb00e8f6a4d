"""Other people's host ports, bound by kube-scheduler: avoided and named; a process that nobody knows of is found out."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from e2e.bare.fleet import BareFleet
from e2e.bare.kubelets import PORT_TAKEN, Kubelets
from e2e.bare.operator import OperatorProcess
from e2e.kube import eventually
from e2e.resources import POOL
from tests.control_plane.conftest import NODES
from tests.control_plane.pools import make_pool, port_of
from voicefleet_contract import names

RANGE = range(20000, 20100)
ELSEWHERE = "other-people"


@pytest.fixture
def operator(fleet: BareFleet) -> Iterator[OperatorProcess]:
    """One that may see other people's pods, as the chart has it."""
    with fleet.operator(see_foreign_pods=True) as running:
        running.wait_leading()
        yield running


@contextmanager
def foreign_pod(fleet: BareFleet, name: str, node: str, ports: list[int]) -> Iterator[None]:
    """Let a pod of another namespace declare host ports on a node."""
    container = {
        "name": "holder",
        "image": "holder",
        "ports": [{"containerPort": port, "hostPort": port, "protocol": "UDP"} for port in ports],
    }
    spec = {"hostNetwork": True, "nodeSelector": {"kubernetes.io/hostname": node}, "containers": [container]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": ELSEWHERE}, "spec": spec}
    fleet.plane.request("POST", "/api/v1/namespaces", {"metadata": {"name": ELSEWHERE}})
    fleet.kube.run("apply", "--server-side", "-f", "-", stdin=json.dumps(pod), namespaced=False)
    try:
        yield
    finally:
        path = f"/api/v1/namespaces/{ELSEWHERE}/pods/{name}"
        fleet.plane.request("DELETE", path, {"gracePeriodSeconds": 0})


def scheduled(fleet: BareFleet, name: str) -> bool:
    said = fleet.plane.request("GET", f"/api/v1/namespaces/{ELSEWHERE}/pods/{name}")[1]
    return "hostIP" in said["status"]


def allocated(fleet: BareFleet) -> tuple[str, str, str]:
    return fleet.status_condition("transceiver", POOL, "PortsAllocated")


def avoided(fleet: BareFleet) -> str:
    """Wait for the status, which the operator writes in the pass after the one that saw the pods; return its message."""
    eventually(
        "PortsAllocated says that conflicts are avoided",
        lambda: allocated(fleet)[:2] == ("True", "ConflictsAvoided"),
        within_s=30,
    )
    return allocated(fleet)[2]


@pytest.mark.usefixtures("operator")
def test_numbers_that_a_foreign_pod_has_are_avoided_and_its_name_is_said(fleet: BareFleet) -> None:
    make_pool(fleet)
    held = {port_of(pod) for pod in fleet.transceivers()}
    left = sorted(set(RANGE) - held)[7]  # all that the operator can choose without meeting it
    with foreign_pod(fleet, "early", NODES[0], sorted(set(RANGE) - held - {left})):
        eventually("scheduled", lambda: scheduled(fleet, "early"), within_s=30)
        eventually("seen", lambda: "pod other-people/early" in allocated(fleet)[2], within_s=30)
        fleet.kube.run("scale", "transceiver", POOL, "--replicas=4")
        eventually("four members", lambda: len(fleet.transceivers()) == 4, within_s=60)
        assert {port_of(pod) for pod in fleet.transceivers()} == held | {left}
        avoided(fleet)
    eventually("free again", lambda: ELSEWHERE not in allocated(fleet)[2], within_s=30)


@pytest.mark.usefixtures("operator")
def test_a_number_whose_process_ends_for_it_is_shut_and_another_one_serves(
    fleet: BareFleet, kubelets: Kubelets
) -> None:
    """That a transceiver whose port is taken does end so is e2e/test_ports.py's and tests/unit/test_port_taken.py's to show."""
    make_pool(fleet)
    lost = fleet.transceivers()[0]
    slot, before = (
        lost["metadata"]["labels"][names.LABEL_SLOT],
        {pod["metadata"]["uid"] for pod in fleet.transceivers()},
    )
    refused: list[int] = []  # the first number that the slot comes back with: on every node

    def taken(pod: Any) -> Any:
        labels, uid = pod["metadata"]["labels"], pod["metadata"]["uid"]
        if uid in before or pod["metadata"]["namespace"] != fleet.namespace or labels.get(names.LABEL_SLOT) != slot:
            return None
        if not refused:
            refused.append(port_of(pod))
        return PORT_TAKEN if port_of(pod) == refused[0] else None

    with kubelets.fate(taken):
        fleet.kube.run("delete", "pod", lost["metadata"]["name"], "--wait=false")
        eventually("the slot serves on another number", lambda: serves_elsewhere(fleet, slot, refused), within_s=90)
    shut = fleet.kube.get("configmap", "voicefleet-ports")["data"]
    assert [key for key in shut if key.endswith(f"_{refused[0]}")], shut
    said = avoided(fleet)
    assert f"{refused[0]} on " in said
    assert "is held by a process on the node" in said


def serves_elsewhere(fleet: BareFleet, slot: str, refused: list[int]) -> bool:
    pods = fleet.transceivers()
    ports = [port_of(pod) for pod in pods if pod["metadata"]["labels"][names.LABEL_SLOT] == slot]
    return len(pods) == 3 and bool(refused) and len(ports) == 1 and ports[0] != refused[0]

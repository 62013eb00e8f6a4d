"""A control plane without nodes for each process of the test run, and a fleet in a namespace of its own for each story.

Not one for all processes: a story may replace the CRDs, restart the API server, put back an older etcd or lose a node, and the
stories beside it must not notice.
"""

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from e2e.bare.fleet import VALUES, BareFleet, install_crds
from e2e.bare.kubelets import Kubelets
from e2e.bare.operator import OperatorProcess
from e2e.bare.plane import BareControlPlane, free_port
from e2e.cluster.build import build

HERE = Path(__file__).parent
NODES = ("node-a", "node-b", "node-c")
_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.control_plane)
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="session")
def plane() -> Iterator[BareControlPlane]:
    """etcd, kube-apiserver, kube-controller-manager and kube-scheduler, with our CRDs."""
    with BareControlPlane(build() / "bin", controllers=True, audit=True) as running:
        install_crds(running)
        running.start_controllers()
        running.start_scheduler()
        yield running


@pytest.fixture(scope="session")
def kubelets(plane: BareControlPlane) -> Iterator[Kubelets]:
    """Three nodes that a stand-in for kubelets speaks for; relays go to two of them."""
    with Kubelets(plane) as running:
        for name in NODES:
            running.add_node(name, {"voicefleet.dev/relay": str(name != NODES[-1]).lower()})
        yield running


@pytest.fixture(scope="session")
def registry(plane: BareControlPlane) -> str:
    """URL of a Redis; it ends with the control plane."""
    port = free_port()
    plane.spawn("redis", ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""])
    return f"redis://127.0.0.1:{port}/0"


@contextmanager
def new_fleet(
    plane: BareControlPlane, registry: str, values: Mapping[str, Any] = MappingProxyType({})
) -> Iterator[BareFleet]:
    """The chart in a namespace of its own, a cluster of its own for the registry; afterwards all of it is gone."""
    number = next(_numbers)
    own = {"cluster": {"id": number}, "redis": {"embedded": False, "externalUrl": registry}}
    made = BareFleet(plane, build() / "bin" / "helm", f"story-{number}", {**VALUES, **own, **values})
    try:
        yield made
    finally:
        made.remove()


@pytest.fixture
def fleet(plane: BareControlPlane, kubelets: Kubelets, registry: str) -> Iterator[BareFleet]:
    """A fleet of this story's own. No operator runs yet."""
    with new_fleet(plane, registry) as made:
        yield made


@pytest.fixture
def operator(fleet: BareFleet) -> Iterator[OperatorProcess]:
    """The fleet's operator, leading."""
    with fleet.operator() as running:
        running.wait_leading()
        yield running

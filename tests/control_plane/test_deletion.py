"""Deleting resources or the namespace frees every pod, and no deletion waits for the operator. With calls: e2e/test_deletion.py."""

import signal

from e2e.bare.fleet import BareFleet
from e2e.bare.kubelets import TAKES_ITS_GRACE, Kubelets
from e2e.bare.operator import OperatorProcess
from e2e.kube import KubeError, eventually
from tests.control_plane.pools import make_pool, make_relays

DATAPLANE = "app.kubernetes.io/component in (relay,transceiver)"


def test_deleting_the_resources_leaves_no_pod(fleet: BareFleet, operator: OperatorProcess) -> None:
    make_pool(fleet)
    make_relays(fleet)
    fleet.kube.run("delete", "voicerelays,transceivers", "--all", "--wait=false")
    eventually("every relay and transceiver pod gone", lambda: not fleet.kube.get("pods", selector=DATAPLANE), 60.0)
    eventually("no relay DaemonSet", lambda: not fleet.kube.get("daemonsets"), 30.0)


def test_the_namespace_goes_with_the_operator_down_when_the_grace_of_its_pods_is_over(
    fleet: BareFleet, operator: OperatorProcess, kubelets: Kubelets
) -> None:
    make_pool(fleet)
    make_relays(fleet)
    graces = {pod["spec"]["terminationGracePeriodSeconds"] for pod in fleet.kube.get("pods", selector=DATAPLANE)}
    with kubelets.fate(lambda pod: TAKES_ITS_GRACE if pod["metadata"]["namespace"] == fleet.namespace else None):
        operator.stop(signal.SIGKILL)
        fleet.kube.run("delete", "namespace", fleet.namespace, "--wait=false", namespaced=False)
        eventually("the namespace gone", lambda: "NotFound" in gone(fleet), max(graces) + 30)


def gone(fleet: BareFleet) -> str:
    try:
        return fleet.kube.run("get", "namespace", fleet.namespace, namespaced=False)
    except KubeError as error:
        return str(error)

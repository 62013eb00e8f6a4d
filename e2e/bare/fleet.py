"""One release of the chart in a namespace of a control plane without nodes, and its resources.

Its Deployments are objects, and what becomes of their pods the stand-in for kubelets says. The operator is a real process.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from e2e.bare.operator import OperatorProcess
from e2e.bare.plane import BareControlPlane
from e2e.bare.programs import ADMIN
from e2e.cluster.steps import run
from e2e.kube import Kube, eventually
from e2e.resources import Resources

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "voice"
# Off: what is of no use without packets. A story turns on what it is about.
VALUES: Mapping[str, Any] = {
    "gateway": {"enabled": False},
    "redis": {"embedded": False},
    "sessionsApi": {"enabled": False},
}


def operator_user(namespace: str = NAMESPACE) -> str:
    """Whom the chart's own rules bind."""
    return f"system:serviceaccount:{namespace}:voicefleet-operator"


def install_crds(plane: BareControlPlane) -> None:
    for crd in sorted((ROOT / "crds").glob("*.yaml")):
        plane.apply(crd.read_text())


def install(
    plane: BareControlPlane, helm: Path, namespace: str = NAMESPACE, values: Mapping[str, Any] = VALUES
) -> None:
    """Install or upgrade the chart, as the README says, into a namespace that is made for it."""
    argv = [helm, "--kubeconfig", plane.place.kubeconfig(ADMIN), "--namespace", namespace, "upgrade", "--install"]
    argv += ["voicefleet", ROOT / "charts" / "voicefleet", "--create-namespace", "--skip-crds", "--values", "-"]
    run(argv, stdin=json.dumps(values), env=os.environ | {"HELM_NO_PLUGINS": "1", "NO_PROXY": "*"})


class BareFleet(Resources):
    """A fleet without nodes of its own: installed when it is made, gone with `remove`."""

    def __init__(self, plane: BareControlPlane, helm: Path, namespace: str, values: Mapping[str, Any] = VALUES) -> None:
        super().__init__(Kube(plane.kubectl, namespace, plane.api))
        self.plane, self.namespace, self._helm = plane, namespace, helm
        self.cluster_id = int(values.get("cluster", {}).get("id", 1))
        self.upgrade(values)

    def upgrade(self, values: Mapping[str, Any]) -> None:
        """Helm upgrade with these values."""
        install(self.plane, self._helm, self.namespace, values)

    def operator(self, **options: Any) -> OperatorProcess:
        """Start an operator of this fleet: a context manager, which ends it."""
        return OperatorProcess(self.plane, self.namespace, **options)

    def writes(self, resource: str, verb: str = "create") -> list[dict[str, Any]]:
        """The operator's successful writes so far, from the API server's audit log."""
        events = (json.loads(line) for line in self.plane.audit_log.read_text().splitlines() if line.strip())
        return [
            event
            for event in events
            if event["user"]["username"] == operator_user(self.namespace)
            and (event["verb"], event["objectRef"].get("resource")) == (verb, resource)
            and event["responseStatus"]["code"] < 300
        ]

    def remove(self) -> None:
        """Delete what makes pods and the pods, which hold ports, and the namespace: the rest of it goes by and by.

        APIServices first: one that nobody answers for would hold up the end of every namespace.
        """
        services = "/apis/apiregistration.k8s.io/v1/apiservices"
        for service in self.plane.request("GET", services)[1]["items"]:
            if (service["spec"].get("service") or {}).get("namespace") == self.namespace:
                self.plane.request("DELETE", f"{services}/{service['metadata']['name']}")
        core, ours = f"/api/v1/namespaces/{self.namespace}", "/apis/voicefleet.dev/v1alpha1"
        for group, kinds in ((ours, ("transceivers", "voicerelays")), ("/apis/apps/v1", ("deployments", "daemonsets"))):
            for kind in kinds:
                self.plane.request("DELETE", f"{group}/namespaces/{self.namespace}/{kind}")

        def empty() -> bool:
            self.plane.request("DELETE", f"{core}/pods", {"gracePeriodSeconds": 0})
            return not self.plane.request("GET", f"{core}/pods")[1]["items"]

        eventually("no pod is left", empty)
        self.plane.request("DELETE", core)

"""The fleet that the demo shows and the stories try: chart installed, resources applied, ready.

Two nodes (those that are labelled already, or the first two) have relays, every node may have transceivers and the gateway.

Owns: installing with Helm as the README says, and waiting until the resources say Ready. Everything goes through the
chart and kubectl: what a user cannot do, this does not do. Does not own: which cluster it is (site.py).
"""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from e2e.cluster.steps import ClusterError, run, step
from e2e.kube import Kube, KubeError, eventually, ready
from e2e.resources import POOL, Resources
from e2e.site import Node, Site, find_site, usable_nodes

ROOT = Path(__file__).resolve().parents[1]
NAMESPACE = "voice"
CLUSTER_ID = 7
RELAY_LABEL = "voicefleet.dev/relay"
RELAY_NODES = 2

_RESOURCES = """\
apiVersion: voicefleet.dev/v1alpha1
kind: VoiceRelay
metadata: {name: fra}
spec:
  location: {region: eu-central, latitude: 50.11, longitude: 8.68}
  port: 3478
  advertise: {from: ADVERTISE_FROM}
  placement: {nodeSelector: {voicefleet.dev/relay: "true"}}
---
apiVersion: voicefleet.dev/v1alpha1
kind: Transceiver
metadata: {name: agents}
spec:
  replicas: 3
  ports: {min: 20000, max: 20099}
  capacity: {sessions: 50}
  backend: {type: Echo}
  drain: {deadline: 60s, policy: Wait}
"""


class Fleet(Resources):
    """The installed fleet: how to reach it, and what it says of itself."""

    def __init__(self) -> None:
        self.site: Site = find_site()
        super().__init__(Kube(self.site.kubectl, NAMESPACE, self.site.api))
        if self.site.local:  # a run that was killed in mid-drain leaves a node cordoned
            self.kube.run("uncordon", "--selector", "kubernetes.io/hostname", namespaced=False)
        self.nodes: list[Node] = usable_nodes(
            json.loads(self.kube.run("get", "nodes", "-o", "json", namespaced=False))["items"]
        )
        if not self.nodes:
            raise ClusterError("no node of this cluster is ready and takes pods: see `kubectl get nodes`")

    @property
    def values(self) -> dict[str, Any]:
        """The chart's values for this place."""
        return {
            "cluster": {"id": CLUSTER_ID, "name": "local"},
            "images": {name: self.site.image(name) for name in ("operator", "dataplane", "redis")}
            | {"pipeline": self.site.images.get("pipeline", "")}
            | {"pullPolicy": "Never" if self.site.local else "IfNotPresent"},
            "gateway": {
                "replicas": 1,
                "pool": POOL,
                "region": "eu-central",
                "latitude": 50.11,
                "longitude": 8.68,
                # Said, as the chart of the release before has no limit: its gateways would be others (test_versions.py).
                "resources": {"limits": {"memory": "512Mi"}},
                "tls": {"selfSignedAddresses": [node.address for node in self.nodes]},
                "service": {"type": "NodePort"},
                "fleetViewKeys": ["default"],
            },
            "keys": {"settle": "5s"},  # kubelets watch Secrets: a new pod has the newest one
        }

    @property
    def resources(self) -> str:
        """The manifests for this place."""
        external = self.nodes[0].address != self.nodes[0].internal
        return _RESOURCES.replace("ADVERTISE_FROM", "NodeExternalIP" if external else "NodeInternalIP")

    @property
    def url(self) -> str:
        """Where the gateway answers: a port of Kubernetes' choice on any node."""
        [port] = self.kube.get("service", "voicefleet-gateway")["spec"]["ports"]
        return f"https://{self.nodes[-1].address}:{port['nodePort']}"

    @property
    def api_key(self) -> str:
        """The bearer key that the chart made."""
        return self.kube.secret("voicefleet-api-keys")["default"].decode()

    def helm(self, *words: str) -> str:
        """Run Helm on the cluster."""
        return run([*self.site.helm, *words])

    def install(self) -> None:
        """Install or upgrade the chart, label the relay nodes, apply the resources."""
        with step("namespace, node labels"):
            namespace = {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "privileged"}},
            }
            self.kube.run("apply", "--server-side", "-f", "-", stdin=json.dumps(namespace), namespaced=False)
            chosen = [node for node in self.nodes if node.labels.get(RELAY_LABEL) == "true"]
            others = [node for node in self.nodes if node not in chosen]
            for node in others[: max(0, RELAY_NODES - len(chosen))]:
                self.kube.run("label", "node", node.name, f"{RELAY_LABEL}=true", "--overwrite", namespaced=False)
        with step("helm upgrade --install voicefleet charts/voicefleet"):
            self.upgrade(self.values)
        with step("kubectl apply: VoiceRelay fra, Transceiver agents"):
            self.kube.apply(self.resources)

    def upgrade(self, values: Mapping[str, Any], tree: Path = ROOT) -> None:
        """Helm upgrade with these values. The CRDs first: Helm itself never upgrades what is in crds/.

        ``tree``: whose chart and CRDs, this checkout's or another release's.
        """
        for crd in sorted((tree / "crds").glob("*.yaml")):
            self.kube.run("apply", "--server-side", "--force-conflicts", "-f", str(crd), namespaced=False)
        argv = [
            *self.site.helm,
            *("upgrade", "--install", "voicefleet", str(tree / "charts" / "voicefleet"), "--skip-crds"),
            *("--namespace", NAMESPACE, "--values", "-"),
        ]
        done = subprocess.run(argv, input=json.dumps(values), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ClusterError(f"helm: {done.stderr.strip()}")

    def wait_ready(self, replicas: int = 3) -> None:
        """Wait until both resources say Ready, and every member and the gateway are there."""
        with step("fleet ready"):
            eventually("VoiceRelay and Transceiver Ready", self._resources_ready, within_s=120)
            eventually(f"{replicas} transceivers ready", lambda: len(self.transceivers()) == replicas, within_s=60)
            eventually("gateway ready", self._gateway_ready, within_s=60)

    def relay_of(self, ingress: str) -> Any:
        """The relay pod behind an address that an answer advertised."""
        host = ingress.rsplit(":", 1)[0]
        [name] = [node.name for node in self.nodes if node.address == host]
        [pod] = [pod for pod in self.relays() if pod["spec"]["nodeName"] == name]
        return pod

    def _resources_ready(self) -> bool:
        return all(self.condition(kind, name) for kind, name in (("voicerelay", "fra"), ("transceiver", POOL)))

    def _gateway_ready(self) -> bool:
        return any(map(ready, self.kube.pods("app.kubernetes.io/component=gateway")))

    def explain(self) -> str:
        """What a person would look at when the fleet does not come up."""
        said = []
        for words in (
            ("get", "voicerelays,transceivers,pods", "-o", "wide"),
            ("get", "events", "--sort-by=.lastTimestamp"),
            ("logs", "deploy/voicefleet-operator", "--tail=40"),
        ):
            try:
                said.append(self.kube.run(*words)[-6000:])
            except KubeError as error:
                said.append(str(error))
        return "\n".join(said)

"""The fleet that the demo shows and the stories try: chart installed, resources applied, ready.

    node-a, node-b: relays        node-a, node-b, node-c: transceivers, gateway

Owns: installing with Helm as the README says, and waiting until the resources say Ready. Everything goes through the
chart and kubectl: what a user cannot do, this does not do.
"""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from e2e.cluster.__main__ import current_context
from e2e.cluster.build import build
from e2e.cluster.nodes import ADDRESS
from e2e.cluster.places import KUBECONFIG
from e2e.cluster.steps import ClusterError, run, step
from e2e.kube import Kube, KubeError, eventually, ready

ROOT = Path(__file__).resolve().parents[1]
NAMESPACE = "voice"
NODE_PORT = 30443
POOL = "agents"
RELAY_NODES = ("node-a", "node-b")

VALUES: Mapping[str, Any] = {
    "cluster": {"id": 7, "name": "local"},
    "images": {
        "operator": "voicefleet.local/operator:dev",
        "dataplane": "voicefleet.local/dataplane:dev",
        "redis": "voicefleet.local/redis:7",
        "pullPolicy": "Never",
    },
    "gateway": {
        "replicas": 1,
        "pool": POOL,
        "region": "eu-central",
        "latitude": 50.11,
        "longitude": 8.68,
        "tls": {"selfSignedAddresses": list(ADDRESS.values())},
        "service": {"type": "NodePort", "nodePort": NODE_PORT},
    },
    "keys": {"settle": "5s"},  # these kubelets watch Secrets: a new pod has the newest one
}

RESOURCES = """\
apiVersion: voicefleet.dev/v1alpha1
kind: VoiceRelay
metadata: {name: fra}
spec:
  location: {region: eu-central, latitude: 50.11, longitude: 8.68}
  port: 3478
  advertise: {from: NodeInternalIP}
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


class Fleet:
    """The installed fleet: how to reach it, and what it says of itself."""

    def __init__(self) -> None:
        if current_context():
            raise ClusterError("the stories need the nodes' addresses: run them on the local cluster")
        self._tree = build()
        self.kube = Kube(self._tree / "bin" / "kubectl", KUBECONFIG, NAMESPACE)
        self.url = f"https://{ADDRESS['node-c']}:{NODE_PORT}"

    @property
    def api_key(self) -> str:
        """The bearer key that the chart made."""
        return self.kube.secret("voicefleet-api-keys")["default"].decode()

    def helm(self, *words: str) -> str:
        """Run Helm on the cluster."""
        return run([self._tree / "bin" / "helm", *words], env=os.environ | {"KUBECONFIG": str(KUBECONFIG)})

    def install(self, values: Mapping[str, Any] = VALUES) -> None:
        """Install or upgrade the chart, label the relay nodes, apply the resources."""
        with step("namespace, node labels"):
            namespace = {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "privileged"}},
            }
            self.kube.run("apply", "--server-side", "-f", "-", stdin=json.dumps(namespace), namespaced=False)
            for node in RELAY_NODES:
                self.kube.run("label", "node", node, "voicefleet.dev/relay=true", "--overwrite", namespaced=False)
        with step("helm upgrade --install voicefleet charts/voicefleet"):
            self.upgrade(values)
        with step("kubectl apply: VoiceRelay fra, Transceiver agents"):
            self.kube.apply(RESOURCES)

    def upgrade(self, values: Mapping[str, Any]) -> None:
        """Helm upgrade with these values. The CRDs first: Helm itself never upgrades what is in crds/."""
        for crd in sorted((ROOT / "crds").glob("*.yaml")):
            self.kube.run("apply", "--server-side", "--force-conflicts", "-f", str(crd), namespaced=False)
        argv = [
            *("upgrade", "--install", "voicefleet", str(ROOT / "charts" / "voicefleet"), "--skip-crds"),
            *("--namespace", NAMESPACE, "--values", "-"),
        ]
        done = subprocess.run(
            [self._tree / "bin" / "helm", *argv],
            input=json.dumps(values),
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"KUBECONFIG": str(KUBECONFIG)},
        )
        if done.returncode != 0:
            raise ClusterError(f"helm: {done.stderr.strip()}")

    def wait_ready(self, replicas: int = 3) -> None:
        """Wait until both resources say Ready, and every member and the gateway are there."""
        with step("fleet ready"):
            eventually("VoiceRelay and Transceiver Ready", self._resources_ready, within_s=120)
            eventually(f"{replicas} transceivers ready", lambda: len(self.transceivers()) == replicas, within_s=60)
            eventually("gateway ready", self._gateway_ready, within_s=60)

    def transceivers(self) -> list[Any]:
        """The transceiver pods that are ready."""
        return [pod for pod in self.kube.pods("app.kubernetes.io/component=transceiver") if ready(pod)]

    def relays(self) -> list[Any]:
        """The relay pods that are ready."""
        return [pod for pod in self.kube.pods("app.kubernetes.io/component=relay") if ready(pod)]

    def _resources_ready(self) -> bool:
        return all(self.condition(kind, name) for kind, name in (("voicerelay", "fra"), ("transceiver", POOL)))

    def condition(self, kind: str, name: str, wanted: str = "Ready") -> bool:
        """Tell whether a condition of a resource is true for its present generation."""
        found = self.kube.get(kind, name)
        generation = found["metadata"]["generation"]
        return any(
            c["type"] == wanted and c["status"] == "True" and c.get("observedGeneration") == generation
            for c in found.get("status", {}).get("conditions", ())
        )

    def status_condition(self, kind: str, name: str, wanted: str) -> tuple[str, str, str]:
        """Return a condition's status, reason and message, of the present generation; empty ones while there is none."""
        found = self.kube.get(kind, name)
        for c in found.get("status", {}).get("conditions", ()):
            if c["type"] == wanted and c.get("observedGeneration") == found["metadata"]["generation"]:
                return c["status"], c["reason"], c["message"]
        return "", "", ""

    def change(self, patch: Mapping[str, Any]) -> None:
        """Change the pool's spec, as `kubectl patch` does."""
        self.kube.run("patch", "transceiver", POOL, "--type=merge", "--patch", json.dumps({"spec": patch}))

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

"""A fleet's pool as the stories here know it: three transceivers that drain for seconds, and what is read of them."""

from typing import Any

from e2e.bare.fleet import BareFleet
from e2e.kube import eventually
from e2e.resources import POOL
from voicefleet_contract import names

TRANSCEIVERS = "app.kubernetes.io/component=transceiver"
MANIFEST = """\
apiVersion: voicefleet.dev/v1alpha1
kind: Transceiver
metadata: {name: agents}
spec:
  replicas: 3
  ports: {min: 20000, max: 20099}
  capacity: {sessions: 50}
  drain: {deadline: 5s}
  rollout: {minReady: 1s}
"""
RELAY = """\
apiVersion: voicefleet.dev/v1alpha1
kind: VoiceRelay
metadata: {name: fra}
spec:
  location: {region: eu-central, latitude: 50.11, longitude: 8.68}
  port: 3478
  advertise: {from: NodeInternalIP}
  placement: {nodeSelector: {voicefleet.dev/relay: "true"}}
  drain: {deadline: 5s}
"""


def make_pool(fleet: BareFleet, replicas: int = 3) -> None:
    """Apply it and wait until it is Ready."""
    fleet.kube.apply(MANIFEST.replace("replicas: 3", f"replicas: {replicas}"))
    eventually("the pool is Ready", lambda: fleet.condition("transceiver", POOL))
    eventually("its members are there", lambda: len(fleet.transceivers()) == replicas)


def make_relays(fleet: BareFleet) -> None:
    """Relays on the two nodes that have their label."""
    fleet.kube.apply(RELAY)
    eventually("two relays", lambda: len(fleet.relays()) == 2)
    eventually("VoiceRelay Ready", lambda: fleet.condition("voicerelay", "fra"))


def uids(pods: list[Any]) -> set[str]:
    return {pod["metadata"]["uid"] for pod in pods}


def port_of(pod: Any) -> int:
    return int(pod["metadata"]["labels"][names.LABEL_PORT])


def status(fleet: BareFleet) -> dict[str, Any]:
    """The pool's status, when it is of its present spec; else an empty one."""
    found = fleet.kube.get("transceiver", POOL)
    current = found.get("status", {}).get("observedGeneration") == found["metadata"]["generation"]
    said: dict[str, Any] = found["status"] if current else {}
    return said


def rolled_out(fleet: BareFleet, replicas: int = 3) -> bool:
    seen = status(fleet)
    conditions = {c["type"]: c["status"] for c in seen.get("conditions", ())}
    return bool(seen) and seen["updatedReplicas"] == replicas and conditions["Reconciling"] == "False"

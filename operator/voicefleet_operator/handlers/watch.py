"""kopf's part: keep the store in step with the API server.

Handlers of raw events only: kopf then writes nothing to our objects (no finalizer, no annotation, no progress), and a
deletion never waits for an operator that is away.
"""

import logging
from typing import Any

import kopf

from voicefleet_contract import names
from voicefleet_operator.cluster.api import KubeApi
from voicefleet_operator.handlers.store import WATCHED, FleetStore

log = logging.getLogger("voicefleet.operator")

# kind → what kopf and its settings call it
_RESOURCES = {
    "ConfigMap": ("", "v1", "configmaps"),
    "Pod": ("", "v1", "pods"),
    "Node": ("", "v1", "nodes"),
    "Service": ("", "v1", "services"),
    "DaemonSet": ("apps", "v1", "daemonsets"),
    "Deployment": ("apps", "v1", "deployments"),
    "PodDisruptionBudget": ("policy", "v1", "poddisruptionbudgets"),
    "VoiceRelay": (names.GROUP, names.API_VERSION, "voicerelays"),
    "Transceiver": (names.GROUP, names.API_VERSION, "transceivers"),
    "TopologySlice": (names.GROUP, names.API_VERSION, "topologyslices"),
}


async def list_everything(api: KubeApi, store: FleetStore) -> None:
    """Read all that is watched once, before the first plan: a plan from half a fleet would make the other half twice."""
    for kind, labels in WATCHED.items():
        for body in await api.list(kind, labels):
            store.take(kind, body)


def build_registry(store: FleetStore, kubeconfig: str) -> kopf.OperatorRegistry:
    """Return handlers that feed the store."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        # kopf's own default imports the synchronous client, which costs more memory than the operator itself.
        if kubeconfig:
            return kopf.login_with_kubeconfig(**kwargs)
        return kopf.login_with_service_account(**kwargs)

    for kind, (group, version, plural) in _RESOURCES.items():
        _watch(registry, store, kind, group, version, plural)
    return registry


def _watch(
    registry: kopf.OperatorRegistry, store: FleetStore, kind: str, group: str, version: str, plural: str
) -> None:
    async def changed(event: kopf.RawEvent, **_: Any) -> None:
        body: dict[str, Any] = dict(event["object"])
        if event["type"] == "DELETED":
            store.forget(kind, body["metadata"]["name"], int(body["metadata"]["resourceVersion"]))
        else:
            store.take(kind, body)

    kopf.on.event(group or "", version, plural, registry=registry, id=f"watch-{kind.lower()}")(changed)


def watch_settings() -> kopf.OperatorSettings:
    """Return kopf's settings: it watches, and does nothing else."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.scanning.disabled = True  # our resources don't change their names while we run
    settings.queueing.worker_limit = None
    settings.watching.chunk_size = 500
    for kind, labels in WATCHED.items():
        if labels:
            group, _, plural = _RESOURCES[kind]
            settings.watching.label_selectors[group, plural] = labels
    return settings

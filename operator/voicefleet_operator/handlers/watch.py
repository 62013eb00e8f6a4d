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
    "HorizontalPodAutoscaler": ("autoscaling", "v2", "horizontalpodautoscalers"),
    "VoiceRelay": (names.GROUP, names.API_VERSION, "voicerelays"),
    "Transceiver": (names.GROUP, names.API_VERSION, "transceivers"),
    "TopologySlice": (names.GROUP, names.API_VERSION, "topologyslices"),
}


def foreign_fields(namespace: str) -> str:
    """Return the field selector of other namespaces' pods that may hold host ports."""
    return f"metadata.namespace!={namespace},status.phase!=Succeeded,status.phase!=Failed"


async def list_everything(api: KubeApi, store: FleetStore, *, foreign: bool = False) -> None:
    """Read all that is watched once, before the first plan: a plan from half a fleet would make the other half twice."""
    if foreign:
        async for page in api.pages("Pod", fields=foreign_fields(api.namespace), everywhere=True):
            for body in page:
                store.take_foreign(body)
    for kind, labels in WATCHED.items():
        for body in await api.list(kind, labels):
            store.take(kind, body)


def build_registry(store: FleetStore, kubeconfig: str) -> kopf.OperatorRegistry:
    """Return handlers that feed the store."""
    registry = _logged_in(kubeconfig)
    for kind, (group, version, plural) in _RESOURCES.items():
        _watch(registry, store, kind, group, version, plural)
    return registry


def build_foreign_registry(store: FleetStore, kubeconfig: str) -> kopf.OperatorRegistry:
    """Return handlers that tell the store of other namespaces' pods. kopf has one scope an operator: this is a second one."""
    registry = _logged_in(kubeconfig)

    async def changed(event: kopf.RawEvent, **_: Any) -> None:
        store.take_foreign(dict(event["object"]), gone=event["type"] == "DELETED")

    kopf.on.event("", "v1", "pods", registry=registry, id="watch-foreign-pod")(changed)
    return registry


def _logged_in(kubeconfig: str) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        # kopf's own default imports the synchronous client, which costs more memory than the operator itself.
        if kubeconfig:
            return kopf.login_with_kubeconfig(**kwargs)
        return kopf.login_with_service_account(**kwargs)

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


def foreign_watch_settings(namespace: str) -> kopf.OperatorSettings:
    """Return kopf's settings for the watch of other namespaces' pods."""
    settings = _only_watching()
    settings.watching.field_selectors["", "pods"] = foreign_fields(namespace)
    return settings


def watch_settings() -> kopf.OperatorSettings:
    """Return kopf's settings for what is ours."""
    settings = _only_watching()
    for kind, labels in WATCHED.items():
        if labels:
            group, _, plural = _RESOURCES[kind]
            settings.watching.label_selectors[group, plural] = labels
    return settings


def _only_watching() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.scanning.disabled = True  # our resources don't change their names while we run
    settings.queueing.worker_limit = None
    settings.watching.chunk_size = 500
    return settings

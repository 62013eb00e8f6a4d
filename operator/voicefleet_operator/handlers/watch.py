"""kopf's part: keep the store in step with the API server.

Handlers of raw events only: kopf then writes nothing to our objects (no finalizer, no annotation, no progress), and a
deletion never waits for an operator that is away.

Such handlers are not told of what vanished while nobody watched: between our first list and kopf's, and before each new
list that kopf has to make (410 Gone). `follow_lists` asks who is still there.
"""

import asyncio
import itertools
import logging
from collections.abc import Iterator
from typing import Any

import kopf

from voicefleet_contract import names
from voicefleet_operator.cluster.api import NAMES_ONLY, Counted, KubeApi, KubeError, collection_path, version_of
from voicefleet_operator.cluster.watching import Watches, watching_session
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


FOREIGN_POD = "ForeignPod"
_LISTS_EVERY_S = 1.0
_FAILED_LIST_S = 5.0


class _Backoffs:
    """Pauses between attempts of kopf's requests: it never gives up, or a minute of 500s would end the process."""

    def __iter__(self) -> Iterator[float]:
        return itertools.chain((0.5, 1.0, 2.0, 5.0), itertools.repeat(10.0))


def foreign_fields(namespace: str) -> str:
    """Return the field selector of other namespaces' pods that may hold host ports."""
    return f"metadata.namespace!={namespace},status.phase!=Succeeded,status.phase!=Failed"


async def list_everything(api: KubeApi, store: FleetStore, *, foreign: bool = False) -> None:
    """Read all that is watched once, before the first plan: a plan from half a fleet would make the other half twice."""
    if foreign:
        async for page, _ in api.pages("Pod", fields=foreign_fields(api.namespace), everywhere=True):
            for body in page:
                store.take_foreign(body)
    for kind, labels in WATCHED.items():
        async for page, _ in api.pages(kind, labels):
            for body in page:
                store.take(kind, body)


def watched_paths(namespace: str, *, foreign: bool) -> dict[str, str]:
    """Return URL path → kind of all that is watched."""
    paths = {collection_path(kind, namespace): kind for kind in WATCHED}
    return paths | ({collection_path("Pod"): FOREIGN_POD} if foreign else {})


async def _foreign_names(api: KubeApi) -> tuple[set[str], int]:
    found: set[str] = set()
    version = 0
    async for page, as_of in api.pages("Pod", fields=foreign_fields(api.namespace), everywhere=True, accept=NAMES_ONLY):
        found |= {f"{body['metadata']['namespace']}/{body['metadata']['name']}" for body in page}
        version = as_of
    return found, version


async def follow_lists(api: KubeApi, store: FleetStore, watches: Watches) -> None:
    """After each list that kopf makes, forget what is no longer there."""
    done: dict[str, int] = {}
    while True:
        pause_s = _LISTS_EVERY_S
        for kind, count in list(watches.lists.items()):
            if done.get(kind) == count:
                continue
            try:
                if kind == FOREIGN_POD:
                    names, version = await _foreign_names(api)
                else:
                    names, version = await api.names(kind, WATCHED[kind])
            except (KubeError, OSError, TimeoutError) as error:
                log.warning("%s not listed: %s", kind, error)
                pause_s = _FAILED_LIST_S
                continue
            gone = (
                store.forget_absent_foreign(names, version)
                if kind == FOREIGN_POD
                else store.forget_absent(kind, names, version)
            )
            if gone:
                log.info("%s: gone while nobody watched: %s", kind, ", ".join(sorted(gone)[:10]))
            done[kind] = count
        await asyncio.sleep(pause_s)


def build_registry(store: FleetStore, kubeconfig: str, watches: Watches, counted: Counted) -> kopf.OperatorRegistry:
    """Return handlers that feed the store, over connections that ``watches`` sees."""
    registry = _logged_in(kubeconfig, watches, counted)
    for kind, (group, version, plural) in _RESOURCES.items():
        _watch(registry, store, kind, group, version, plural)
    return registry


def build_foreign_registry(
    store: FleetStore, kubeconfig: str, watches: Watches, counted: Counted
) -> kopf.OperatorRegistry:
    """Return handlers that tell the store of other namespaces' pods. kopf has one scope an operator: this is a second one."""
    registry = _logged_in(kubeconfig, watches, counted)

    async def changed(event: kopf.RawEvent, **_: Any) -> None:
        store.take_foreign(dict(event["object"]), gone=event["type"] == "DELETED")

    kopf.on.event("", "v1", "pods", registry=registry, id="watch-foreign-pod")(changed)
    return registry


def _logged_in(kubeconfig: str, watches: Watches, counted: Counted) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**kwargs: Any) -> kopf.AiohttpSession | None:
        # kopf's own default imports the synchronous client, which costs more memory than the operator itself.
        found = kopf.login_with_kubeconfig(**kwargs) if kubeconfig else kopf.login_with_service_account(**kwargs)
        return None if found is None else watching_session(found, watches, counted)

    return registry


def _watch(
    registry: kopf.OperatorRegistry, store: FleetStore, kind: str, group: str, version: str, plural: str
) -> None:
    async def changed(event: kopf.RawEvent, **_: Any) -> None:
        body: dict[str, Any] = dict(event["object"])
        if event["type"] == "DELETED":
            store.forget(kind, body["metadata"]["name"], version_of(body))
        else:
            store.take(kind, body)

    kopf.on.event(group or "", version, plural, registry=registry, id=f"watch-{kind.lower()}")(changed)


def foreign_watch_settings(namespace: str, silence_s: float) -> kopf.OperatorSettings:
    """Return kopf's settings for the watch of other namespaces' pods."""
    settings = _only_watching(silence_s)
    settings.watching.field_selectors["", "pods"] = foreign_fields(namespace)
    return settings


def watch_settings(silence_s: float) -> kopf.OperatorSettings:
    """Return kopf's settings for what is ours."""
    settings = _only_watching(silence_s)
    for kind, labels in WATCHED.items():
        if labels:
            group, _, plural = _RESOURCES[kind]
            settings.watching.label_selectors[group, plural] = labels
    return settings


def _only_watching(silence_s: float) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.scanning.disabled = True  # our resources don't change their names while we run
    settings.queueing.worker_limit = None
    settings.watching.chunk_size = 500
    settings.watching.inactivity_timeout = silence_s
    settings.networking.error_backoffs = _Backoffs()
    return settings

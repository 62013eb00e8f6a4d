"""Carrying out a plan, in the order that makes a crash at any point harmless.

The ledger goes first, fenced by resourceVersion: if another operator wrote it, nothing else happens. Every write answers
with the object as it is now, and the observer takes it in at once: the next plan never acts on a cache that is behind
its own writes.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping

from voicefleet_contract import names
from voicefleet_contract.topology import TopologySlice
from voicefleet_operator.cluster.api import KubeApi, KubeError, Object
from voicefleet_operator.desired.ledger import Ledger, LedgerError, decode_shards, encode_shards
from voicefleet_operator.desired.objects import ANNOTATION_DRAINING, MANAGED_BY
from voicefleet_operator.desired.plan import Plan
from voicefleet_operator.desired.quarantine import NAME as QUARANTINE
from voicefleet_operator.desired.quarantine import decode_quarantine, encode_quarantine
from voicefleet_operator.desired.state import Place

log = logging.getLogger("voicefleet.operator")

LEDGER_LABEL = f"{names.GROUP}/ledger"
_OURS = {names.LABEL_PART_OF: "voicefleet", names.LABEL_MANAGED_BY: MANAGED_BY}
_API_VERSION = f"{names.GROUP}/{names.API_VERSION}"

Took = Callable[[str, Object], None]  # (kind, object as it is now)
Lost = Callable[[str, str], None]  # (kind, name) is gone


class LedgerStore:
    """The ledger in its ConfigMaps. Raises KubeError 409 when somebody else wrote: read again."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api
        self._objects: dict[int, Object] = {}

    async def read(self) -> Ledger:
        """Read all shards. Raises KubeError or LedgerError."""
        found = await self._api.list("ConfigMap", f"{LEDGER_LABEL}=slots")
        try:
            self._objects = {int(body["metadata"]["name"].rpartition("-")[2]): body for body in found}
        except ValueError as error:
            raise LedgerError(f"ConfigMap with label {LEDGER_LABEL}: its name has no number: {error}") from None
        return decode_shards(body.get("data") or {} for body in self._objects.values())

    async def write(self, ledger: Ledger) -> None:
        """Write the shards that changed. Raises KubeError."""
        for number, data in encode_shards(ledger).items():
            body = self._objects.get(number)
            if body is not None and body.get("data") == data:
                continue
            if body is None:
                name = f"voicefleet-slots-{number}"
                metadata = {"name": name, "labels": {**_OURS, LEDGER_LABEL: "slots"}}
                made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
                self._objects[number] = await self._api.create("ConfigMap", made)
            else:
                self._objects[number] = await self._api.replace("ConfigMap", {**body, "data": data})


async def read_quarantine(api: KubeApi) -> dict[Place, float]:
    """Read which port numbers nobody may have for now. Raises KubeError."""
    found = await api.get("ConfigMap", QUARANTINE)
    return decode_quarantine((found or {}).get("data") or {})


async def apply_plan(api: KubeApi, ledger: LedgerStore, plan: Plan, now: float, took: Took, lost: Lost) -> None:
    """Do what the plan says. Raises KubeError; what was done before it stays done."""
    if plan.ledger is not None:
        await ledger.write(plan.ledger)
    if plan.quarantine is not None:
        data = encode_quarantine(plan.quarantine)
        metadata = {"name": QUARANTINE, "labels": _OURS}
        await api.apply("ConfigMap", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    for manifest in plan.create_pods:
        took("Pod", await _create_pod(api, manifest))
    for fence in plan.fences:
        patch = {"metadata": {"uid": fence.uid, "annotations": {ANNOTATION_DRAINING: f"{now:.0f}"}}}
        await _if_there("Pod", fence.pod, lost, api.merge("Pod", fence.pod, patch), took)
        log.info("pod %s: drains", fence.pod)
    for delete in plan.deletes:
        log.info("pod %s: deleted: %s", delete.pod, delete.why)
        await api.delete("Pod", delete.pod, uid=delete.uid, grace_s=delete.grace_s)
    for mark in plan.marks:
        value = "true" if mark.idle else None  # None takes it away
        state: Object = {
            "uid": mark.uid,
            "labels": {names.LABEL_IDLE: value},
            "annotations": {names.ANNOTATION_SAFE_TO_EVICT: value or "false"},
        }
        await _if_there("Pod", mark.pod, lost, api.merge("Pod", mark.pod, {"metadata": state}), took)
    for manifest in plan.apply:
        took(manifest["kind"], await api.apply(manifest["kind"], manifest))
        log.info("%s %s: applied", manifest["kind"], manifest["metadata"]["name"])
    for kind, name in plan.prune:
        await api.delete(kind, name)
        lost(kind, name)
    for pool, replicas in plan.scales.items():
        size: Object = {"spec": {"replicas": replicas}}
        await _if_there("Transceiver", pool, lost, api.merge("Transceiver", pool, size), took)
        log.info("Transceiver %s: scaled to %d", pool, replicas)
    await _apply_slices(api, plan.slices, plan.stale_slices, took, lost)
    for change in plan.statuses:
        body = {
            "apiVersion": _API_VERSION,
            "kind": change.kind,
            "metadata": {"name": change.name},
            "status": change.status,
        }
        await _if_there(change.kind, change.name, lost, api.apply(change.kind, body, subresource="status"), took)


async def _create_pod(api: KubeApi, manifest: Object) -> Object:
    name = manifest["metadata"]["name"]
    try:
        made = await api.create("Pod", manifest)
    except KubeError as error:
        found = await api.get("Pod", name) if error.status == 409 else None
        if found is None:
            raise
        return found  # an answer that got lost: the pod is the one we asked for
    log.info("pod %s: created", name)
    return made


async def _apply_slices(
    api: KubeApi, slices: Mapping[str, TopologySlice], stale: tuple[str, ...], took: Took, lost: Lost
) -> None:
    for name, part in slices.items():
        body = {
            "apiVersion": _API_VERSION,
            "kind": "TopologySlice",
            "metadata": {"name": name, "labels": _OURS},
            "spec": part.model_dump(mode="json", exclude_none=True),
        }
        took("TopologySlice", await api.apply("TopologySlice", body))
    for name in stale:
        await api.delete("TopologySlice", name)
        lost("TopologySlice", name)


async def _if_there(kind: str, name: str, lost: Lost, request: Awaitable[Object], took: Took) -> None:
    try:
        took(kind, await request)
    except KubeError as error:
        if error.status not in (404, 409):
            raise
        lost(kind, name)

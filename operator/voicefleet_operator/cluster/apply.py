"""Carrying out a plan, in the order that makes a crash at any point harmless.

The topology goes first: it says what was observed, depends on nothing of the plan, and a lost member's callers wait for it.
Then the ledger, fenced by resourceVersion: if another operator wrote it, no pod is touched. Every write answers
with the object as it is now, and the observer takes it in at once: the next plan never acts on a cache that is behind
its own writes.

One object's trouble is not the fleet's. What the server refuses for its own sake (a quota, a policy, a webhook that is away,
an invalid field) is told to the resource that wanted it; what fails otherwise is planned again after a pause; the rest of the
plan is done in both cases. Only a server that does not answer, or asks for a pause, ends a pass.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from voicefleet_contract import names
from voicefleet_contract.hint import MAX_SLOT
from voicefleet_contract.outside import parse_integer
from voicefleet_contract.topology import TopologySlice
from voicefleet_operator.cluster.api import KubeApi, KubeError, Object
from voicefleet_operator.desired.ledger import Ledger, LedgerError, decode_shards, encode_shards
from voicefleet_operator.desired.objects import (
    ANNOTATION_DRAINING,
    ANNOTATION_GRAY,
    LABEL_FLEET,
    LABEL_FLEET_PORTS,
    MANAGED_BY,
)
from voicefleet_operator.desired.plan import Plan, StatusChange
from voicefleet_operator.desired.pool.gray import Judgement, encode_verdict
from voicefleet_operator.desired.pool.idle import Mark
from voicefleet_operator.desired.pool.quarantine import NAME as QUARANTINE
from voicefleet_operator.desired.pool.quarantine import decode_quarantine, encode_quarantine
from voicefleet_operator.desired.pool.steps import Delete, Fence
from voicefleet_operator.desired.state import Place

log = logging.getLogger("voicefleet.operator")

LEDGER_LABEL = f"{names.GROUP}/ledger"
_OURS = {names.LABEL_PART_OF: "voicefleet", names.LABEL_MANAGED_BY: MANAGED_BY}
_API_VERSION = f"{names.GROUP}/{names.API_VERSION}"

Took = Callable[[str, Object], None]  # (kind, object as it is now)
Lost = Callable[[str, str], None]  # (kind, name) is gone
_AT_ONCE = 16  # writes on their way at a time: the server's priority and fairness does the rest


class LedgerStore:
    """The ledger in its ConfigMaps. Raises KubeError 409 when somebody else wrote: read again."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api
        self._objects: dict[int, Object] = {}

    async def read(self) -> Ledger:
        """Read all shards. Raises KubeError or LedgerError."""
        found = await self._api.list("ConfigMap", f"{LEDGER_LABEL}=slots")
        try:
            self._objects = {
                parse_integer(body["metadata"]["name"].rpartition("-")[2], MAX_SLOT): body for body in found
            }
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


@dataclass
class Outcome:
    """What became of a plan. ``failed`` is the first error that a pause may mend; what it hit is still to be done."""

    refused: dict[tuple[str, str], str] = field(
        default_factory=dict
    )  # (kind, name) of who wanted it → the server's words
    failed: KubeError | None = None


async def apply_plan(api: KubeApi, ledger: LedgerStore, plan: Plan, now: float, took: Took, lost: Lost) -> Outcome:
    """Do what the plan says. Raises KubeError when ledger or quarantine were not written: then no pod was touched."""
    writes = _Writes(api, took, lost)
    # What is new goes out before what is stale goes away: readers put slices together as they come.
    await writes.all(writes.publish(name, part) for name, part in plan.slices.items())
    if writes.outcome.failed is None:
        await writes.all(writes.prune("TopologySlice", name) for name in plan.stale_slices)
    if writes.away:
        return writes.outcome
    if plan.ledger is not None:
        await ledger.write(plan.ledger)
    if plan.quarantine is not None:
        took("ConfigMap", await api.apply("ConfigMap", _quarantine_object(plan.quarantine)))
    await writes.all(writes.create_pod(manifest) for manifest in plan.create_pods)
    await writes.all(writes.fence(fence, now) for fence in plan.fences)
    await writes.all(writes.delete_pod(delete) for delete in plan.deletes)
    await writes.all(writes.mark(mark) for mark in plan.marks)
    await writes.all(writes.judge(judgement) for judgement in plan.judgements)
    await writes.all(writes.apply(manifest) for manifest in plan.apply)
    await writes.all(writes.prune(kind, name) for kind, name in plan.prune)
    await writes.all(writes.scale(pool, replicas) for pool, replicas in plan.scales.items())
    await writes.all(writes.status(change) for change in plan.statuses)
    return writes.outcome


def _quarantine_object(quarantine: Mapping[Place, float]) -> Object:
    metadata = {"name": QUARANTINE, "labels": {**_OURS, LABEL_FLEET: LABEL_FLEET_PORTS}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": encode_quarantine(quarantine)}


class _Writes:
    """The writes of one plan, some at a time."""

    def __init__(self, api: KubeApi, took: Took, lost: Lost) -> None:
        self._api, self._took, self._lost = api, took, lost
        self.outcome = Outcome()
        self.away = False

    async def all(self, writes: Iterable[Coroutine[Any, Any, None]]) -> None:
        """Carry out writes of one step; the next step begins when all are answered."""
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(write: Coroutine[Any, Any, None]) -> None:
            async with gate:
                if self.away:  # the rest would wait for the same server, one timeout after the other
                    write.close()
                    return
                try:
                    await write
                except KubeError as error:
                    self.outcome.failed = self.outcome.failed or error
                    self.away = self.away or error.is_away

        answers = await asyncio.gather(*(one(write) for write in writes), return_exceptions=True)
        for answer in answers:
            if answer is not None:
                raise answer

    async def create_pod(self, manifest: Object) -> None:
        name = manifest["metadata"]["name"]
        try:
            made = await self._api.create("Pod", manifest)
        except KubeError as error:
            if self._is_refused(manifest, error):
                return
            found = await self._api.get("Pod", name) if error.status == 409 else None
            if found is None:
                raise
            made = found  # an answer that got lost: the pod is the one we asked for
        self._took("Pod", made)
        log.info("pod %s: created", name)

    async def fence(self, fence: Fence, now: float) -> None:
        patch = {"metadata": {"uid": fence.uid, "annotations": {ANNOTATION_DRAINING: f"{now:.0f}"}}}
        await self._if_there("Pod", fence.pod, self._api.merge("Pod", fence.pod, patch))
        log.info("pod %s: drains", fence.pod)

    async def delete_pod(self, delete: Delete) -> None:
        log.info("pod %s: deleted: %s", delete.pod, delete.why)
        await self._api.delete("Pod", delete.pod, uid=delete.uid, grace_s=delete.grace_s)

    async def mark(self, mark: Mark) -> None:
        value = "true" if mark.idle else None  # None takes it away
        state: Object = {
            "uid": mark.uid,
            "labels": {names.LABEL_IDLE: value},
            "annotations": {names.ANNOTATION_SAFE_TO_EVICT: value or "false"},
        }
        await self._if_there("Pod", mark.pod, self._api.merge("Pod", mark.pod, {"metadata": state}))

    async def judge(self, judgement: Judgement) -> None:
        verdict = judgement.verdict
        text = None if verdict is None else encode_verdict(verdict)
        patch = {"metadata": {"uid": judgement.uid, "annotations": {ANNOTATION_GRAY: text}}}
        await self._if_there("Pod", judgement.pod, self._api.merge("Pod", judgement.pod, patch))
        if verdict is None:
            log.info("pod %s: proven, in placement as before", judgement.pod)
        else:
            log.warning("pod %s: %s: %s", judgement.pod, "out" if verdict.out else "on probation", verdict.why)

    async def apply(self, manifest: Object) -> None:
        try:
            made = await self._api.apply(manifest["kind"], manifest)
        except KubeError as error:
            if not self._is_refused(manifest, error):
                raise
            return
        self._took(manifest["kind"], made)
        log.info("%s %s: applied", manifest["kind"], manifest["metadata"]["name"])

    async def scale(self, pool: str, replicas: int) -> None:
        size: Object = {"spec": {"replicas": replicas}}
        await self._if_there("Transceiver", pool, self._api.merge("Transceiver", pool, size))
        log.info("Transceiver %s: scaled to %d", pool, replicas)

    async def prune(self, kind: str, name: str) -> None:
        await self._api.delete(kind, name)
        self._lost(kind, name)

    async def publish(self, name: str, part: TopologySlice) -> None:
        body = {
            "apiVersion": _API_VERSION,
            "kind": "TopologySlice",
            "metadata": {"name": name, "labels": _OURS},
            "spec": part.model_dump(mode="json", exclude_none=True),
        }
        self._took("TopologySlice", await self._api.apply("TopologySlice", body))

    async def status(self, change: StatusChange) -> None:
        body = {
            "apiVersion": _API_VERSION,
            "kind": change.kind,
            "metadata": {"name": change.name},
            "status": change.status,
        }
        await self._if_there(change.kind, change.name, self._api.apply(change.kind, body, subresource="status"))

    def _is_refused(self, manifest: Object, error: KubeError) -> bool:
        """Note a refusal for the resource that owns the object; its words name the resource and not the object, whose name
        has a generation in it: else each attempt would be news.
        """
        if not error.is_refusal:
            return False
        name, owner = manifest["metadata"]["name"], manifest["metadata"]["ownerReferences"][0]
        log.error("%s %s: %s", manifest["kind"], name, error)
        self.outcome.refused[owner["kind"], owner["name"]] = error.message.replace(name, owner["name"])
        return True

    async def _if_there(self, kind: str, name: str, request: Awaitable[Object]) -> None:
        """Take in the answer. A conflict says that it is not the object that was meant, or that others wrote too often
        meanwhile: which of them, the server knows. A resource is forgotten only when it says that there is none: a pool
        that is not known is out of the topology.
        """
        try:
            self._took(kind, await request)
        except KubeError as error:
            if error.status == 409:
                found = await self._api.get(kind, name)
                if found is not None:
                    self._took(kind, found)
                    raise
            elif not error.is_gone:
                raise
            self._lost(kind, name)

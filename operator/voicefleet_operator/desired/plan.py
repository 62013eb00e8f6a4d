"""The observed fleet → everything to do now, in the order to do it.

    topology → ledger → quarantine → pods → fences → deletes → marks → objects (relays, gateway) → replicas → status

A plan is made from one observation and thrown away after it; whatever of it failed is planned again. A fleet that is as
it should be gives an empty plan: `Plan.quiet`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from voicefleet_contract.topology import Pool, TopologySlice, join
from voicefleet_operator.desired.conditions import CONDITIONS, stamp
from voicefleet_operator.desired.gateway import gateway_objects
from voicefleet_operator.desired.ledger import Entry, Ledger
from voicefleet_operator.desired.objects import ANNOTATION_DIGEST
from voicefleet_operator.desired.pool.autoscaling import autoscaled, scales
from voicefleet_operator.desired.pool.disruption import budget_name, disruption_budget
from voicefleet_operator.desired.pool.drain import avoided_nodes
from voicefleet_operator.desired.pool.drain_status import REFRESH_S
from voicefleet_operator.desired.pool.gray import Judgement, judge
from voicefleet_operator.desired.pool.idle import Mark, idle_marks
from voicefleet_operator.desired.pool.pod import pool_template, transceiver_pod
from voicefleet_operator.desired.pool.ports import PortLedger
from voicefleet_operator.desired.pool.quarantine import extended
from voicefleet_operator.desired.pool.status import pool_status
from voicefleet_operator.desired.pool.steps import Delete, Fence, PoolSteps, pool_steps
from voicefleet_operator.desired.publish.topology import desired_slices
from voicefleet_operator.desired.publish.unrecognized import unread_status
from voicefleet_operator.desired.relay.conflicts import RelayConflict, held_relays, relay_conflicts
from voicefleet_operator.desired.relay.daemonset import relay_daemonset
from voicefleet_operator.desired.relay.status import relay_status
from voicefleet_operator.desired.state import Component, Fleet, Manifest, Place


@dataclass(frozen=True, slots=True)
class StatusChange:
    """A status to write."""

    kind: str
    name: str
    status: Manifest


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now. Objects of `prune` are ours and wanted no more."""

    ledger: Ledger | None = None
    quarantine: dict[Place, float] | None = None
    create_pods: tuple[Manifest, ...] = ()
    fences: tuple[Fence, ...] = ()
    deletes: tuple[Delete, ...] = ()
    marks: tuple[Mark, ...] = ()
    judgements: tuple[Judgement, ...] = ()
    apply: tuple[Manifest, ...] = ()
    prune: tuple[tuple[str, str], ...] = ()  # (kind, name)
    scales: dict[str, int] = field(default_factory=dict)  # pool → replicas that its autoscaling decided
    slices: dict[str, TopologySlice] = field(default_factory=dict)  # changed ones
    stale_slices: tuple[str, ...] = ()
    statuses: tuple[StatusChange, ...] = ()
    look_again_at: float | None = None

    @property
    def quiet(self) -> bool:
        """Nothing to do."""
        return not (
            self.ledger
            or self.quarantine is not None
            or self.create_pods
            or self.fences
            or self.deletes
            or self.marks
            or self.judgements
            or self.apply
            or self.prune
            or self.scales
            or self.slices
            or self.stale_slices
            or self.statuses
        )


def plan(observed: Fleet, now: float) -> Plan:
    """Return everything to do now."""
    fleet = autoscaled(observed, now)
    pools = [fleet.pools[name] for name in sorted(fleet.pools)]
    occupied = {pod.slot for pod in fleet.pods.values() if pod.component is Component.TRANSCEIVER}
    free_slots, ports = fleet.ledger.free_slots(occupied), PortLedger(fleet, now)
    templates = {pool.name: pool_template(fleet.config, pool) for pool in pools}
    steps: dict[str, PoolSteps] = {}
    changes = _abandoned_slots(fleet)
    for pool in pools:
        steps[pool.name] = pool_steps(fleet, pool, templates[pool.name], ports, free_slots, now)
        changes |= steps[pool.name].ledger

    taken = [place for pool in pools for place in steps[pool.name].quarantine]
    wanted_slices = desired_slices(fleet)
    wanted_objects = _objects(fleet)
    avoid = avoided_nodes(fleet)
    conflicts = relay_conflicts(fleet)
    judged = [judge(fleet, pool, fleet.media, now) for pool in pools]
    held = held_relays(fleet, _digests(wanted_objects), conflicts)
    return Plan(
        ledger=fleet.ledger.changed(changes) if changes else None,
        quarantine=extended(fleet.quarantine, taken, now) if taken else None,
        create_pods=tuple(
            transceiver_pod(fleet.config, fleet.namespace, pool, create, avoid)
            for pool in pools
            for create in steps[pool.name].creates
        ),
        fences=tuple(fence for pool in pools for fence in steps[pool.name].fences),
        deletes=tuple(delete for pool in pools for delete in steps[pool.name].deletes),
        marks=tuple(mark for pool in pools for mark in idle_marks(fleet, pool, now)),
        judgements=tuple(judgement for found, _ in judged for judgement in found),
        apply=tuple(
            manifest
            for manifest in wanted_objects
            if not _is_applied(fleet, manifest)
            and _owner(manifest)[1] not in held
            and not _is_refused(fleet, manifest, now)
        ),
        prune=_prune(fleet, wanted_objects),
        scales=scales(observed, fleet),
        slices={name: part for name, part in wanted_slices.items() if fleet.slices.get(name) != part},
        stale_slices=tuple(sorted(fleet.slices.keys() - wanted_slices.keys())),
        statuses=_statuses(fleet, wanted_slices, templates, steps, ports, conflicts, now),
        look_again_at=_next_look(fleet, steps, [at for _, at in judged if at is not None], now),
    )


def _next_look(fleet: Fleet, steps: dict[str, PoolSteps], returns: list[float], now: float) -> float | None:
    """Return the next time that matters: a step that is due, or numbers in status.drain that were too young to write."""
    times = [step.look_again_at for step in steps.values() if step.look_again_at is not None]
    times += returns
    times += [refusal.retry_at for refusal in fleet.refused.values() if refusal.retry_at > now]
    if any(pod.leaving and pod.component is Component.TRANSCEIVER for pod in fleet.pods.values()):
        times.append(now + REFRESH_S)
    return min(times, default=None)


def _abandoned_slots(fleet: Fleet) -> dict[int, Entry]:
    """Release the slots of pools that are no more."""
    gone = {name for name in fleet.ledger.pools() - fleet.pools.keys() if not fleet.is_unread("Transceiver", name)}
    return {
        slot: Entry("", entry.generation)
        for slot, entry in fleet.ledger.entries.items()
        if entry.pool and entry.pool in gone
    }


def _objects(fleet: Fleet) -> list[Manifest]:
    relays = [
        relay_daemonset(fleet.config, fleet.namespace, fleet.relays[name])
        for name in sorted(fleet.relays)
        if not (fleet.relays[name].deleting or fleet.relays[name].paused)
    ]
    budgets = [
        disruption_budget(fleet, fleet.pools[name]) for name in sorted(fleet.pools) if not fleet.pools[name].deleting
    ]
    return [*relays, *budgets, *gateway_objects(fleet)]


def _is_applied(fleet: Fleet, manifest: Manifest) -> bool:
    applied = fleet.applied.get((manifest["kind"], manifest["metadata"]["name"]))
    return applied is not None and applied.digest == manifest["metadata"]["annotations"][ANNOTATION_DIGEST]


def _owner(manifest: Manifest) -> tuple[str, str]:
    owner = manifest["metadata"]["ownerReferences"][0]
    return owner["kind"], owner["name"]


def _is_refused(fleet: Fleet, manifest: Manifest, now: float) -> bool:
    return fleet.refused_until(*_owner(manifest), now) is not None


def _digests(manifests: list[Manifest]) -> dict[str, str]:
    """Return DaemonSet → what it would be made from."""
    return {
        manifest["metadata"]["name"]: manifest["metadata"]["annotations"][ANNOTATION_DIGEST]
        for manifest in manifests
        if manifest["kind"] == "DaemonSet"
    }


def _prune(fleet: Fleet, wanted: list[Manifest]) -> tuple[tuple[str, str], ...]:
    """Return our objects that nobody wants. Relays go with their VoiceRelay: owner references do that."""
    keep = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in wanted}
    keep |= {("PodDisruptionBudget", budget_name(name)) for kind, name in fleet.unread if kind == "Transceiver"}
    return tuple(sorted(key for key in fleet.applied if key not in keep and key[0] != "DaemonSet"))


def _statuses(
    fleet: Fleet,
    slices: dict[str, TopologySlice],
    templates: dict[str, str],
    steps: dict[str, PoolSteps],
    ports: PortLedger,
    conflicts: Mapping[str, list[RelayConflict]],
    now: float,
) -> tuple[StatusChange, ...]:
    topology = join(slices.values())
    pools = {pool.name: pool for pool in topology.pools}
    found = []
    for relay in fleet.relays.values():
        status = relay_status(fleet, relay, topology.relays, conflicts.get(relay.name, []), now)
        if not relay.deleting and status != _comparable(relay.status, status):
            found.append(StatusChange("VoiceRelay", relay.name, status))
    for pool in fleet.pools.values():
        part = pools.get(pool.name, Pool(name=pool.name))
        status = pool_status(fleet, pool, part, templates[pool.name], steps[pool.name], ports, now)
        if not pool.deleting and status != _comparable(pool.status, status):
            found.append(StatusChange("Transceiver", pool.name, status))
    for (kind, name), unread in fleet.unread.items():
        said = unread_status(unread, stamp(now) or "", CONDITIONS)
        if said is not None:
            found.append(StatusChange(kind, name, said))
    return tuple(sorted(found, key=lambda change: (change.kind, change.name)))


def _comparable(observed: Mapping[str, Any], desired: Manifest) -> Manifest:
    """Return of an observed status what we write: other writers may add conditions of their own."""
    ours = desired.keys() | ({"drain"} & observed.keys())  # written at times only
    status = {key: observed.get(key) for key in ours}
    theirs = {c.get("type"): c for c in observed.get("conditions") or []}
    status["conditions"] = [theirs.get(condition["type"]) for condition in desired["conditions"]]
    return status

"""The observed fleet → a Transceiver's status: its numbers, and conditions that say why."""

from collections.abc import Iterable

from voicefleet_contract import names
from voicefleet_contract.topology import Pool
from voicefleet_operator.desired.conditions import (
    Condition,
    conditions_before,
    listed,
    merge_conditions,
    pod_trouble,
    stalled,
    stamp,
)
from voicefleet_operator.desired.objects import resource_requirements
from voicefleet_operator.desired.pool.autoscaling import rivals, wants_more_than_allowed
from voicefleet_operator.desired.pool.drain import wanted_replicas
from voicefleet_operator.desired.pool.drain_status import drain_problems, drain_status, waiting_to_drain
from voicefleet_operator.desired.pool.pod import CPU, MEMORY
from voicefleet_operator.desired.pool.ports import Obstacle, PortLedger, overlapping_pools
from voicefleet_operator.desired.pool.steps import PoolSteps
from voicefleet_operator.desired.state import (
    Component,
    Fleet,
    Manifest,
    Pod,
    PoolResource,
)

CRASH_LOOP_RESTARTS = 2


def pool_status(
    fleet: Fleet, resource: PoolResource, pool: Pool, template: str, steps: PoolSteps, ports: PortLedger, now: float
) -> Manifest:
    """Return a Transceiver's status. ``pool`` is its part of the topology to publish."""
    spec = resource.spec
    pods = fleet.pods_of(Component.TRANSCEIVER, resource.name)
    serving = [pod for pod in pods if not pod.leaving]
    slots = {pod.slot for pod in serving}
    ready_slots = {pod.slot for pod in serving if pod.ready}
    updated = {pod.slot for pod in serving if pod.ready and pod.template == template}
    draining = [pod for pod in pods if pod.leaving and not pod.finished]
    wanted = wanted_replicas(resource)
    moving = bool(steps.unsettled or steps.creates or steps.fences)
    stuck = pod_trouble(serving) or _crash_loop(serving, spec.rollout.min_ready, now)
    if stuck and any(pod.ready and pod.template != template for pod in serving):
        stuck += "; the old generation serves on, and no further slot is touched: apply the old spec to roll back"
    drain = drain_status(fleet, resource, draining, now)
    conditions = [
        _pool_ready(resource, len(ready_slots), stuck),
        _reconciling(steps, moving=moving and not resource.paused, updated=len(updated), replicas=wanted),
        stalled(fleet, "Transceiver", resource.name, stuck),
        _ports_allocated(fleet, resource, steps, ports, served=len(ready_slots), draining=len(draining)),
        _members_healthy(serving),
        _ring_converged(fleet, pool),
        _draining(fleet, resource, pods, drain),
        _autoscaling(fleet, resource),
    ]
    used = {pod.port for pod in pods if pod.port in spec.ports}
    return {
        "observedGeneration": resource.generation,
        "replicas": len(slots),
        "readyReplicas": len(ready_slots),
        "updatedReplicas": len(updated),
        "drainingReplicas": len(draining),
        "selector": f"{names.LABEL_COMPONENT}={Component.TRANSCEIVER.value},{names.LABEL_POOL}={resource.name}",
        "ports": f"{len(used)}/{spec.ports.size}",
        "ringEpoch": pool.ring_epoch,
        **({"drain": drain} if drain else {}),
        "conditions": merge_conditions(conditions_before(resource.status), conditions, resource.generation, now),
    }


def _pool_ready(resource: PoolResource, ready: int, stuck: str) -> Condition:
    replicas = wanted_replicas(resource)
    if resource.paused:
        text = f"annotation {names.GROUP}/paused: nothing is changed"
        return Condition("Ready", ready >= replicas, "Paused", text)
    if resource.drain is not None:
        text = f"annotation {names.ANNOTATION_DRAIN}: the pool takes no calls; remove it and the pool serves again"
        return Condition("Ready", False, "Drained", text)
    if ready >= replicas:
        return Condition("Ready", True, "Ready", f"{ready} transceivers take calls")
    return Condition("Ready", False, "TransceiversNotReady", f"{ready} of {replicas} are ready. {stuck}".strip())


def _reconciling(steps: PoolSteps, *, moving: bool, updated: int, replicas: int) -> Condition:
    if moving:
        text = f"{updated} of {replicas} slots have a ready pod of the newest spec"
        until = f"; ends at {stamp(steps.ends_at)} at the earliest" if steps.ends_at is not None else ""
        return Condition("Reconciling", True, "Progressing", text + until)
    return Condition("Reconciling", False, "Settled")


def _ports_allocated(
    fleet: Fleet, resource: PoolResource, steps: PoolSteps, ports: PortLedger, *, served: int, draining: int
) -> Condition:
    """False while a slot has no number that works; True, and who is in the way, when all do in spite of others."""
    mine, short = resource.spec.ports, bool(steps.without_port)
    obstacles = ports.obstacles(resource)
    in_the_way = listed(map(_in_the_way, obstacles))
    waits = served < wanted_replicas(resource) and any(item.until for item in obstacles)
    if obstacles and (short or steps.quarantine or waits):
        text = f"{in_the_way}; " + ("no other number is left: widen spec.ports" if short else "another number is taken")
        return Condition("PortsAllocated", False, "PortConflict", text)
    if short:
        waiting = f"{draining} draining pods keep theirs until they end" if draining else "none is draining"
        slots = listed(steps.without_port)
        text = f"no number left of {mine.min}-{mine.max} for slots {slots}; {waiting}; widen spec.ports"
        return Condition("PortsAllocated", False, "RangeExhausted", text)
    if shared := overlapping_pools(fleet.pools, resource):
        both = listed(f"{part.min}-{part.max} with Transceiver {name}" for name, part in shared)
        text = f"spec.ports of {resource.name} shares {both}: give each its own range; what runs stays"
        return Condition("PortsAllocated", False, "RangesOverlap", text)
    if obstacles:
        return Condition("PortsAllocated", True, "ConflictsAvoided", f"{in_the_way}; other numbers are used")
    return Condition("PortsAllocated", True, "Allocated", _room(resource))


def _in_the_way(obstacle: Obstacle) -> str:
    until = stamp(obstacle.until)
    return f"{obstacle} (tried again after {until})" if until else str(obstacle)


def _room(resource: PoolResource) -> str:
    """Say how many generations of each slot have numbers at once: a rollout on top of a rollout makes three."""
    most = resource.spec.autoscaling.max_replicas if resource.spec.autoscaling else resource.spec.replicas
    return f"room for {resource.spec.ports.size // most} generations of each slot" if most else ""


def _members_healthy(pods: list[Pod]) -> Condition:
    judged = [(pod, pod.verdict) for pod in pods if pod.verdict is not None]
    if not judged:
        return Condition("MembersHealthy", True, "NoneEjected")
    parts = [
        f"{pod.name}: {verdict.why}; {f'no new calls until {stamp(verdict.at)}' if verdict.out else 'on probation'}"
        for pod, verdict in judged[:5]
    ]
    more = f" and {len(judged) - 5} more" if len(judged) > 5 else ""
    reason = "MembersEjected" if any(verdict.out for _, verdict in judged) else "OnProbation"
    return Condition("MembersHealthy", False, reason, "; ".join(parts) + more)


def _ring_converged(fleet: Fleet, pool: Pool) -> Condition:
    """Processes that run are asked: one that is away reads the newest topology when it comes back."""
    if fleet.acknowledged is None:
        return Condition("RingConverged", None, "RegistryAway", "no registry to read acknowledgements from")
    asked = sorted(pod.name for pod in fleet.pods.values() if pod.ready and not pod.leaving)
    behind = [name for name in asked if fleet.acknowledged.get(name, {}).get(pool.name, -1) < pool.ring_epoch]
    if behind:
        return Condition("RingConverged", False, "Waiting", f"epoch {pool.ring_epoch} not yet seen by {listed(behind)}")
    text = f"every process works with epoch {pool.ring_epoch}"
    return Condition("RingConverged", True, "Converged", text)


def _draining(fleet: Fleet, resource: PoolResource, pods: list[Pod], drain: Manifest | None) -> Condition:
    """Say who leaves until when, who is to leave and still serves, and what the overlap costs. Numbers: status.drain."""
    problems = drain_problems(fleet, resource, pods)
    said = [f"not followed: {problem}" for problem in problems]
    waiting = waiting_to_drain(fleet, pods)
    if waiting:
        text = listed(f"{pod.name} ({why})" for pod, why in waiting)
        said.append(f"serve until their replacements are ready: {text}")
    if drain is not None:
        more = drain["morePods"]
        text = listed([pod["name"] for pod in drain["pods"]]) + (f" and {more} more" if more else "")
        until = f" until {drain['eta']} at the latest" if "eta" in drain else ""
        requests = resource_requirements(resource.spec.resources, CPU, MEMORY)["requests"]
        kept = f"each keeps its port and {requests['cpu']} CPU, {requests['memory']} memory requested"
        said.append(f"wait for calls: {text}{until}; {kept}")
    reasons = {"WaitingForCalls": drain, "WaitingForReplacements": waiting, "AnnotationInvalid": problems}
    reason = next((reason for reason, found in reasons.items() if found), "NoneDraining")
    return Condition("Draining", bool(drain or waiting), reason, "; ".join(said))


def _autoscaling(fleet: Fleet, resource: PoolResource) -> Condition:
    """Say who chooses the replicas. No load is in the message: it would be written every few seconds."""
    spec, others = resource.spec.autoscaling, rivals(fleet, resource)
    who = f"HorizontalPodAutoscaler {listed(others)}"
    if spec is None:
        return Condition(
            "Autoscaling", bool(others), "HorizontalPodAutoscaler" if others else "Disabled", who * bool(others)
        )
    if others:
        text = f"{who} targets this Transceiver and has the say; remove it, or spec.autoscaling"
        return Condition("Autoscaling", False, "HorizontalPodAutoscalerFound", text)
    if fleet.acknowledged is None:
        text = f"no registry to read load from: holds {resource.spec.replicas} replicas"
        return Condition("Autoscaling", None, "RegistryAway", text)
    limits = f"{spec.min_replicas} to {spec.max_replicas} replicas"
    if wants_more_than_allowed(spec, fleet.recommendations.get(resource.name, ())):
        return Condition("Autoscaling", True, "AtMaximum", f"{limits}: the load needs more; raise maxReplicas")
    return Condition("Autoscaling", True, "Active", limits)


def _crash_loop(pods: Iterable[Pod], min_ready_s: float, now: float) -> str:
    """Name a pod that starts and dies again and again, also in the moments in which it runs."""
    for pod in pods:
        if pod.restarts >= CRASH_LOOP_RESTARTS and not (pod.ready and now >= pod.ready_since + min_ready_s):
            return f"{pod.name}: CrashLoopBackOff: ends again and again"
    return ""

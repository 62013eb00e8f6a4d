"""How many transceivers a pool with spec.autoscaling has. Pure: load and time are arguments.

    heartbeats ──▶ needed now ──▶ remembered ──▶ up: the least within one window, down: the most within the other ──▶ replicas

Invariants
- Demand is every call of the pool, also on members that drain: when those end, their successors come to the others. So a
  scale-down never lowers the demand that it was decided on, and constant load means one size.
- Capacity is only what serves: neither members that drain nor those that are out of placement (gray).
- Never below what the calls of now fit into, never outside minReplicas and maxReplicas.
- What is not known holds: a registry that is away changes nothing; a member without a heartbeat counts as idle for growing
  and as full for shrinking. A restarted operator shrinks nothing before a whole window has passed.
- A HorizontalPodAutoscaler that targets the pool has the say, and this one has none.

Owns: the number. Does not own: who leaves when it shrinks (steps), reading the registry.
"""

from collections.abc import Iterable
from dataclasses import replace
from math import ceil

from voicefleet_contract.resources import Autoscaling
from voicefleet_operator.desired.state import Component, Fleet, PoolResource, Recommendation


def recommend(fleet: Fleet, pool: PoolResource, spec: Autoscaling, now: float) -> Recommendation:
    """Return what the load of now needs; while the registry is away, what there is."""
    if fleet.acknowledged is None:
        return Recommendation(now, pool.spec.replicas, pool.spec.replicas)
    pods = fleet.pods_of(Component.TRANSCEIVER, pool.name)
    known = [key for pod in pods if (key := (pod.slot, pod.generation)) in fleet.sessions]
    silent = sum(pod.ready and not pod.leaving and (pod.slot, pod.generation) not in fleet.sessions for pod in pods)
    sessions = sum(fleet.sessions[key] for key in known)
    setups_per_s = sum(fleet.setups_per_s.get(key, 0.0) for key in known)
    capacity = pool.spec.capacity.sessions
    needed = max(
        ceil(sessions * 100 / (capacity * spec.target_utilization)),
        ceil((sessions + spec.buffer_sessions) / capacity),
        ceil(setups_per_s / spec.setups_per_second) if spec.setups_per_second else 0,
    )
    needed += sum(pod.ejected and not pod.leaving for pod in pods)
    return Recommendation(now, needed, needed + silent)


def remember(fleet: Fleet, now: float) -> dict[str, tuple[Recommendation, ...]]:
    """Return the recommendations of all autoscaled pools with this moment's added and what no window sees left out."""
    kept: dict[str, tuple[Recommendation, ...]] = {}
    for name, pool in fleet.pools.items():
        spec = pool.spec.autoscaling
        if spec is None:
            continue
        # The size of now counts as a recommendation: the first window after a start has something to hold on to.
        before = fleet.recommendations.get(name) or (Recommendation(now, pool.spec.replicas, pool.spec.replicas),)
        said = (*before, recommend(fleet, pool, spec, now))
        oldest = now - max(spec.scale_up_stabilization, spec.scale_down_stabilization)
        kept[name] = tuple(one for one in said if one.at >= oldest)
    return kept


def decide(spec: Autoscaling, replicas: int, said: Iterable[Recommendation], now: float) -> int:
    """Return how many replicas there are to be, from what was recommended lately."""
    said = list(said)
    up = [r.least for r in said if r.at >= now - spec.scale_up_stabilization] or [r.least for r in said[-1:]]
    down = [r.most for r in said if r.at >= now - spec.scale_down_stabilization] or [r.most for r in said[-1:]]
    wanted = replicas
    if up and min(up) > replicas:
        wanted = min(up)
    elif down and max(down) < replicas:
        wanted = max(down)
    return min(max(wanted, spec.min_replicas), spec.max_replicas)


def autoscaled(fleet: Fleet, now: float) -> Fleet:
    """Return the fleet with each autoscaled pool's replicas as decided: what all other desired state is computed from."""
    pools: dict[str, PoolResource] = {}
    for name, pool in fleet.pools.items():
        spec = pool.spec.autoscaling
        if spec is None or rivals(fleet, pool) or pool.drain is not None or pool.paused or pool.deleting:
            continue
        replicas = decide(spec, pool.spec.replicas, fleet.recommendations.get(name, ()), now)
        if replicas != pool.spec.replicas:
            pools[name] = replace(pool, spec=pool.spec.model_copy(update={"replicas": replicas}))
    return replace(fleet, pools={**fleet.pools, **pools}) if pools else fleet


def scales(before: Fleet, after: Fleet) -> dict[str, int]:
    """Return the pools whose spec.replicas is to be written."""
    return {
        name: pool.spec.replicas
        for name, pool in sorted(after.pools.items())
        if pool.spec.replicas != before.pools[name].spec.replicas
    }


def rivals(fleet: Fleet, pool: PoolResource) -> list[str]:
    """Return the HorizontalPodAutoscalers that target the pool."""
    return sorted(name for name, target in fleet.horizontal_autoscalers.items() if target == pool.name)


def wants_more_than_allowed(spec: Autoscaling, said: Iterable[Recommendation]) -> bool:
    """Say whether the load of late needed more than maxReplicas."""
    return max((r.least for r in said), default=0) > spec.max_replicas

"""The observed fleet → numbers for a graph. Pure: computed when somebody asks, so a series ends with its object."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from voicefleet_contract.topology import join
from voicefleet_operator.desired.pool.quarantine import quarantined_ports
from voicefleet_operator.desired.state import Component, Fleet, Pod, PoolResource


class Sample(NamedTuple):
    """One number of a gauge."""

    name: str
    labels: dict[str, str]
    value: float


# name → what it says (all are gauges)
HELP = {
    "voicefleet_pool_replicas_wanted": "Transceivers that the spec asks for.",
    "voicefleet_pool_members": "Transceiver pods by state: starting, active, draining, ejected.",
    "voicefleet_pool_ports": "Port numbers of the pool's range by state: used, draining, quarantined, foreign, free.",
    "voicefleet_pool_sessions": "Calls of the pool, as heartbeats say (none while the registry is away).",
    "voicefleet_pool_capacity": "Calls that the pool's active members hold at most.",
    "voicefleet_pool_imbalance_ratio": "Calls of the busiest active member over the mean of all (1: even).",
    "voicefleet_pool_ring_epoch": "Version of the pool's ring.",
    "voicefleet_pool_draining_sessions": "Calls that draining members still hold, as they say.",
    "voicefleet_pool_drain_started_timestamp_seconds": "Since when the longest draining member drains.",
    "voicefleet_relays": "Relays in the topology by state.",
    "voicefleet_condition": "1: the condition is True, 0: False, -1: Unknown.",
}
_CONDITION = {"True": 1.0, "False": 0.0}


def fleet_gauges(fleet: Fleet, now: float) -> Iterator[Sample]:
    """Yield every number of the fleet."""
    published = join(fleet.slices.values()) if fleet.slices else None
    epochs = {pool.name: pool.ring_epoch for pool in published.pools} if published else {}
    for name in sorted(fleet.pools):
        yield from _pool_gauges(fleet, fleet.pools[name], epochs.get(name, 0), now)
    relays = Counter((relay.relay, relay.state.value) for relay in (published.relays if published else ()))
    for (relay, state), count in sorted(relays.items()):
        yield Sample("voicefleet_relays", {"relay": relay, "state": state}, count)
    statuses = {
        **{("VoiceRelay", name): one.status for name, one in fleet.relays.items()},
        **{("Transceiver", name): one.status for name, one in fleet.pools.items()},
        **{key: one.status for key, one in fleet.unread.items()},
    }
    for (kind, name), status in sorted(statuses.items()):
        for condition in status.get("conditions") or []:
            labels = {"kind": kind, "name": name, "condition": str(condition.get("type"))}
            yield Sample("voicefleet_condition", labels, _CONDITION.get(str(condition.get("status")), -1.0))


def _pool_gauges(fleet: Fleet, resource: PoolResource, epoch: int, now: float) -> Iterator[Sample]:
    pool = {"pool": resource.name}
    pods = [pod for pod in fleet.pods_of(Component.TRANSCEIVER, resource.name) if not pod.finished]
    states = Counter(map(_state, pods))
    active = [pod for pod in pods if _state(pod) == "active"]
    leaving = [pod for pod in pods if pod.leaving]
    yield Sample("voicefleet_pool_replicas_wanted", pool, resource.spec.replicas)
    for state in ("starting", "active", "draining", "ejected"):
        yield Sample("voicefleet_pool_members", {**pool, "state": state}, states[state])
    used = {pod.port for pod in pods if pod.port in resource.spec.ports}
    draining_ports = {pod.port for pod in leaving} & used
    shut = {port for port in quarantined_ports(fleet.quarantine, now) if port in resource.spec.ports} - used
    theirs = {port for pod in fleet.foreign.values() for port in pod.ports if port in resource.spec.ports} - used - shut
    for state, count in (
        ("used", len(used - draining_ports)),
        ("draining", len(draining_ports)),
        ("quarantined", len(shut)),
        ("foreign", len(theirs)),
        ("free", resource.spec.ports.size - len(used | shut | theirs)),
    ):
        yield Sample("voicefleet_pool_ports", {**pool, "state": state}, count)
    yield Sample("voicefleet_pool_capacity", pool, len(active) * resource.spec.capacity.sessions)
    yield Sample("voicefleet_pool_ring_epoch", pool, epoch)
    loads = [fleet.sessions.get((pod.slot, pod.generation)) for pod in active]
    known = [load for load in loads if load is not None]
    if known:
        yield Sample("voicefleet_pool_sessions", pool, sum(known))
        mean = sum(known) / len(known)
        yield Sample("voicefleet_pool_imbalance_ratio", pool, max(known) / mean if mean else 1.0)
    held = [fleet.drained[pod.uid].sessions for pod in leaving if pod.uid in fleet.drained]
    yield Sample("voicefleet_pool_draining_sessions", pool, sum(held))
    since = [pod.draining_since for pod in leaving if pod.draining_since is not None]
    if since:
        yield Sample("voicefleet_pool_drain_started_timestamp_seconds", pool, min(since))


def _state(pod: Pod) -> str:
    if pod.leaving:
        return "draining"
    if pod.ejected:
        return "ejected"
    return "active" if pod.ready else "starting"

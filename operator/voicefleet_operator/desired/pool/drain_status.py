"""What a Transceiver's status says of its drains: who leaves, how many calls are left, and until when.

The figures are the owners' own answers, so they stand while the registry is away. They are written at most every
`REFRESH_S`, however many pods drain and however many calls end: a drain costs etcd a bounded number of writes.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from voicefleet_operator.desired.conditions import stamp
from voicefleet_operator.desired.pool.drain import ends_at, why_asked
from voicefleet_operator.desired.state import Fleet, Manifest, Pod, PoolResource

REFRESH_S = 10.0
MOST_PODS = 16


def drain_status(fleet: Fleet, pool: PoolResource, pods: Collection[Pod], now: float) -> Manifest | None:
    """Return status.drain over the pool's draining ``pods``, those that will take longest first; None without any."""
    if not pods:
        return None
    latest_first = sorted(pods, key=lambda pod: (-(ends_at(fleet, pool, pod) or 0.0), pod.name))
    said = [answer for pod in pods if (answer := fleet.drained.get(pod.uid)) is not None]
    oldest = [answer.oldest_started_at for answer in said if answer.oldest_started_at is not None]
    ends = [at for pod in pods if (at := ends_at(fleet, pool, pod)) is not None]
    found = _without_nothing(
        {
            "sessions": sum(answer.sessions for answer in said),
            "unknown": len(pods) - len(said),
            "oldestSession": stamp(min(oldest, default=None)),
            "eta": stamp(max(ends, default=None)),
            "pods": [_pod(fleet, pool, pod) for pod in latest_first[:MOST_PODS]],
            "morePods": max(0, len(pods) - MOST_PODS),
        }
    )
    return _kept(pool.status.get("drain"), found, now)


def _pod(fleet: Fleet, pool: PoolResource, pod: Pod) -> Manifest:
    said = fleet.drained.get(pod.uid)
    return _without_nothing(
        {
            "name": pod.name,
            "node": pod.node or None,
            "reason": "deleted" if pod.deleting else why_asked(fleet, pod) or "not wanted",
            "sessions": None if said is None else said.sessions,
            "oldestSession": None if said is None else stamp(said.oldest_started_at),
            "eta": stamp(ends_at(fleet, pool, pod)),
        }
    )


def _kept(before: Any, found: Manifest, now: float) -> Manifest:
    """Return what was written before if it says the same, or is too young to be written again for numbers alone."""
    if isinstance(before, Mapping):
        at = before.get("observedAt", "")
        if {**found, "observedAt": at} == before:
            return dict(before)
        same_pods = _names(before.get("pods") or ()) == _names(found["pods"])
        if same_pods and at > (stamp(now - REFRESH_S) or ""):
            return dict(before)
    return {**found, "observedAt": stamp(now)}


def _names(pods: Iterable[Mapping[str, Any]]) -> set[str]:
    return {str(pod.get("name")) for pod in pods}


def waiting_to_drain(fleet: Fleet, pods: Iterable[Pod]) -> list[tuple[Pod, str]]:
    """Return those of a pool's pods that were asked to leave and still serve, and why each was asked."""
    return [(pod, why) for pod in pods if not pod.leaving and (why := why_asked(fleet, pod))]


def drain_problems(fleet: Fleet, pool: PoolResource, pods: Iterable[Pod]) -> list[str]:
    """Return drain annotations that say nothing that is known; they are not followed."""
    pods = list(pods)
    nodes = {pod.node: fleet.nodes[pod.node] for pod in pods if pod.node in fleet.nodes}
    found = [("Transceiver", pool.name, pool.drain_problem)]
    found += [("node", node.name, node.drain_problem) for _, node in sorted(nodes.items())]
    found += [("pod", pod.name, pod.drain_problem) for pod in pods]
    return [f"{kind} {name}: {problem}" for kind, name, problem in found if problem]


def _without_nothing(fields: Manifest) -> Manifest:
    return {key: value for key, value in fields.items() if value is not None}

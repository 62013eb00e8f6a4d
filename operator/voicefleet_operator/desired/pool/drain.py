"""Who is to leave, why, and how long its calls are waited for. The record of a drain is the fence, an annotation on the pod.

Somebody asks: an annotation on the pod, the node or the Transceiver, a cordon or a node autoscaler's taint. The pod then
goes on serving until its slot has another ready pod (a whole pool that was asked needs none), is fenced, and
its calls end by themselves. Taking the request back keeps a pod that is not fenced yet; a fenced one never comes back, its
replacement stays.

Terms: of pod, node and Transceiver the nearest that was asked says policy and deadline; what it leaves open spec.drain says.

Owns: who asked, the terms, the moment of the hang-up. Does not own: fencing and deleting (steps), hanging up (the
transceiver process, which is told how long to wait).
"""

from dataclasses import dataclass

from voicefleet_contract.resources import DrainPolicy
from voicefleet_operator.desired.state import Component, Drained, Fleet, Node, Pod, PoolResource

FENCE_SETTLES_S = 2.0  # gateways have the new ring by then
KILL_MARGIN_S = 5.0  # hang up so long before the kubelet kills: a killed process says no BYE
MOST_AVOIDED_NODES = 64  # a pod's affinity is no place for a thousand names


@dataclass(frozen=True, slots=True)
class Terms:
    """How a pod leaves."""

    policy: DrainPolicy
    deadline_s: float

    @property
    def patience_s(self) -> float:
        """How long after the fence calls are left alone."""
        return FENCE_SETTLES_S if self.policy is DrainPolicy.HANG_UP else self.deadline_s


def why_asked(fleet: Fleet, pod: Pod) -> str:
    """Return who asked this pod to leave; "" when nobody did."""
    if pod.drain is not None:
        return "annotated"
    return why_emptied(fleet.nodes.get(pod.node))


def why_emptied(node: Node | None) -> str:
    """Return who asked for a node to be emptied; "" when nobody did."""
    if node is None:
        return ""
    if node.drain is not None:
        return f"{node.name} is annotated"
    return f"{node.name} is {node.leaving}" if node.leaving else ""


def avoids_in_vain(fleet: Fleet, pod: Pod) -> bool:
    """Say whether a pod waits for a node and was made to avoid one that is not to be emptied any more."""
    known = (fleet.nodes[name] for name in pod.avoids if name in fleet.nodes)
    return not pod.node and any(not why_emptied(node) for node in known)


def wanted_replicas(pool: PoolResource) -> int:
    """Return how many transceivers serve: none of a pool that is asked to drain."""
    return 0 if pool.drain is not None else pool.spec.replicas


def terms(fleet: Fleet, pool: PoolResource, pod: Pod) -> Terms:
    """Return how this pod leaves."""
    node = fleet.nodes.get(pod.node)
    requests = [asked for asked in (pod.drain, node.drain if node else None, pool.drain) if asked is not None]
    policies = [asked.policy for asked in requests if asked.policy is not None]
    deadlines = [asked.deadline_s for asked in requests if asked.deadline_s is not None]
    return Terms(
        policies[0] if policies else pool.spec.drain.policy, deadlines[0] if deadlines else pool.spec.drain.deadline
    )


def hang_up_at(fleet: Fleet, pool: PoolResource, pod: Pod) -> float | None:
    """Return when the calls of a pod that leaves are hung up, in Unix seconds; None: it doesn't leave."""
    times = []
    if pod.draining_since is not None:
        times.append(pod.draining_since + terms(fleet, pool, pod).patience_s)
    if pod.gone_at is not None:  # somebody else deletes it: its calls have until the kubelet kills it
        hang_up = terms(fleet, pool, pod).policy is DrainPolicy.HANG_UP
        times.append(0.0 if hang_up else pod.gone_at - KILL_MARGIN_S)
    return min(times, default=None)


def ends_at(fleet: Fleet, pool: PoolResource, pod: Pod) -> float | None:
    """Return when a draining pod's last call has ended at the latest; None: nobody knows.

    Hung up at the deadline, or ended by its longest duration: whatever comes first for the call that started last.
    """
    times = [at for at in (hang_up_at(fleet, pool, pod),) if at is not None]
    said: Drained | None = fleet.drained.get(pod.uid)
    if said is not None and said.newest_started_at is not None:
        times.append(said.newest_started_at + pool.spec.session.max_duration)
    return min(times, default=None)


def draining_pods(fleet: Fleet) -> list[tuple[Pod, float]]:
    """Return every transceiver that is to be told to take no more calls, with the moment of its hang-up."""
    found = []
    for pod in fleet.pods.values():
        pool = fleet.pools.get(pod.resource)
        if pod.component is not Component.TRANSCEIVER or pool is None or not pod.running or pod.finished:
            continue
        at = hang_up_at(fleet, pool, pod)
        if at is not None:
            found.append((pod, at))
    return found


def avoided_nodes(fleet: Fleet) -> tuple[str, ...]:
    """Return nodes on which no new transceiver may start: it would be asked to leave at once.

    The scheduler knows of cordons, unless a pool tolerates them; so annotated nodes come first if there are too many.
    """
    leaving = [node for node in fleet.nodes.values() if why_emptied(node)]
    return tuple(n.name for n in sorted(leaving, key=lambda n: (bool(n.leaving), n.name))[:MOST_AVOIDED_NODES])

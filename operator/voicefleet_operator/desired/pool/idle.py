"""Which transceivers have been without a call for so long that node autoscalers and evictions may take them.

A mark is a label (the pool's budget leaves marked pods out) and the annotation that Cluster Autoscaler reads. It follows the
busy state slowly on purpose: set after `IDLE_AFTER_S` without a call, taken away at the first one. So a pod is written at
most twice in that time, however many calls come and go. A call that comes between mark and eviction is not lost: an eviction
is a SIGTERM, and the transceiver drains within its grace.

At most half of a pool's serving slots are marked, so no eviction of all that may be evicted leaves a pool without members.
While the registry is away marks stay as they are.
"""

from dataclasses import dataclass

from voicefleet_operator.desired.state import Component, Fleet, Pod, PoolResource

IDLE_AFTER_S = 600.0


@dataclass(frozen=True, slots=True)
class Mark:
    """A pod to mark as idle or as busy."""

    pod: str
    uid: str
    idle: bool


def idle_marks(fleet: Fleet, pool: PoolResource, now: float) -> tuple[Mark, ...]:
    """Return the marks to change."""
    if fleet.acknowledged is None or pool.paused or pool.deleting:
        return ()
    pods = [pod for pod in fleet.pods_of(Component.TRANSCEIVER, pool.name) if not pod.leaving]
    quiet = [pod for pod in pods if _is_quiet(fleet, pod, now)]
    # Those that are marked stay so before others become it; then the highest slots, which a scale-down takes first.
    chosen = sorted(quiet, key=lambda pod: (not pod.idle, -pod.slot, pod.name))
    idle = {pod.name for pod in chosen[: len({pod.slot for pod in pods if pod.ready}) // 2]}
    return tuple(Mark(pod.name, pod.uid, pod.name in idle) for pod in pods if pod.idle != (pod.name in idle))


def _is_quiet(fleet: Fleet, pod: Pod, now: float) -> bool:
    """Say whether a pod may be marked: long idle; or marked, and its owner says nothing that speaks against it."""
    key = (pod.slot, pod.generation)
    if key not in fleet.sessions:
        return pod.idle
    since = fleet.idle_since.get(key)
    return pod.ready and since is not None and (pod.idle or now - since >= IDLE_AFTER_S)

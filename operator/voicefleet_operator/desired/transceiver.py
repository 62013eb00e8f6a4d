"""Transceiver → the next steps that bring its pods there. Pure, level-triggered, one pass at a time.

Every slot that the pool holds has one pod that serves; everything else leaves. A pod's life:

    claim: the ledger moves ──▶ created ──▶ ready: in the ring ──▶ fenced: out of the ring ──▶ no sessions ──▶ deleted
    (slot, generation, port)    starting        active                 draining              or deadline

Invariants
- The ledger holds (slot, generation) before the pod exists, and never goes back: no pair names two pods.
- No port number is given twice while its pod exists; a replacement never waits for its predecessor's number.
- A pod that may hold sessions is fenced before it is deleted, and fenced only when its slot has another ready pod, or
  is not wanted, or the pod isn't ready itself, or the pool allows slots to be unavailable.
- Nothing is remembered here: a step that got lost is found again in the next observation.

Owns: which pods. Does not own: what is in them (transceiver_pod), how many move at once (rollout).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from voicefleet_contract.resources import DrainPolicy
from voicefleet_operator.desired.ledger import Entry, FreeSlots
from voicefleet_operator.desired.ports import choose_port
from voicefleet_operator.desired.rollout import Moves, SlotView, next_moves
from voicefleet_operator.desired.state import Component, Drained, Fleet, Pod, PoolResource

FAILED_POD_RETRY_S = 10.0  # a pod that ended by itself is replaced no faster than this
FENCE_SETTLES_S = 2.0  # gateways have the new ring by then
HANG_UP_GRACE_S = 5  # between SIGTERM and SIGKILL, for sessions that will not be waited for
EMPTY_GRACE_S = 30


@dataclass(frozen=True, slots=True)
class Create:
    """Make a pod; the ledger must hold its slot and generation first."""

    pool: str
    slot: int
    generation: int
    port: int


@dataclass(frozen=True, slots=True)
class Fence:
    """Take a pod out of the ring for good: it drains from now on."""

    pod: str
    uid: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a pod that has nothing to lose any more."""

    pod: str
    uid: str
    grace_s: int
    why: str


@dataclass(frozen=True, slots=True)
class PoolSteps:
    """What to do now, in this order: ledger, creates, fences, deletes. `look_again_at` is the next time that matters."""

    ledger: dict[int, Entry] = field(default_factory=dict)
    creates: tuple[Create, ...] = ()
    fences: tuple[Fence, ...] = ()
    deletes: tuple[Delete, ...] = ()
    without_port: tuple[int, ...] = ()  # slots that need a pod and got no port number
    look_again_at: float | None = None


def pool_steps(
    fleet: Fleet, pool: PoolResource, template: str, taken_ports: set[int], free_slots: FreeSlots, now: float
) -> PoolSteps:
    """Return a pool's next steps. ``taken_ports`` and ``free_slots`` are the fleet's; what is given out here is marked."""
    if pool.deleting or pool.paused:
        return PoolSteps()  # its pods go with it (owner references), or stay as they are
    pods = fleet.pods_of(Component.TRANSCEIVER, pool.name)
    held, ledger = _held_slots(fleet, pool, pods, free_slots)
    by_slot: dict[int, list[Pod]] = {slot: [] for slot in held}
    unwanted: list[Pod] = []
    for pod in pods:
        by_slot.get(pod.slot, unwanted).append(pod)

    fences = [pod for pod in unwanted if not pod.leaving]
    views: list[SlotView] = []
    to_create: list[int] = []
    later: list[float] = []
    retrying: set[int] = set()
    for slot, here in by_slot.items():
        live = [pod for pod in here if not pod.leaving]
        fresh = [pod for pod in live if pod.template == template and pod.port in pool.spec.ports]
        stale = [pod for pod in live if pod not in fresh]
        keep = max(fresh, key=lambda pod: (pod.ready, _age(fleet, pod)), default=None)
        fences += [pod for pod in fresh if pod is not keep]
        # A stale pod that isn't ready serves nobody: it need not wait for a replacement.
        fences += [pod for pod in stale if (keep is not None and keep.ready) or not pod.ready]
        views.append(
            SlotView(
                slot,
                starting=keep is not None and not keep.ready and any(pod.ready for pod in stale),
                ready=any(pod.ready for pod in live),
                stale=keep is None and bool(stale),
            )
        )
        if not live:
            retry_at = max((pod.created_at + FAILED_POD_RETRY_S for pod in here if pod.finished), default=now)
            if retry_at <= now:
                to_create.append(slot)
            else:
                later.append(retry_at)
                retrying.add(slot)
    moves: Moves = next_moves(views, pool.spec.rollout)
    fences += [pod for slot in moves.drain for pod in by_slot[slot] if not pod.leaving and pod not in fences]

    creates: list[Create] = []
    without_port: list[int] = []
    for slot in (*sorted(to_create), *moves.surge):
        generation = fleet.ledger.next_generation(slot)
        port = choose_port(pool.spec.ports, taken_ports, slot, generation)
        if port is None:
            without_port.append(slot)
            continue
        taken_ports.add(port)
        ledger[slot] = Entry(pool.name, generation)
        creates.append(Create(pool.name, slot, generation, port))

    deletes: list[Delete] = []
    for pod in pods:
        if not pod.leaving or pod.deleting:
            continue
        if pod.finished and pod.slot in retrying:
            continue  # it stands for its slot until the retry
        why = _reason_to_delete(fleet, pool, pod, now)
        if why is not None:
            forced = why in ("deadline", "hang up")
            deletes.append(Delete(pod.name, pod.uid, HANG_UP_GRACE_S if forced else EMPTY_GRACE_S, why))
        elif pod.draining_since is not None:
            later.append(pod.draining_since + _patience_s(pool))
    return PoolSteps(
        ledger=ledger,
        creates=tuple(creates),
        fences=tuple(Fence(pod.name, pod.uid) for pod in sorted(fences, key=lambda pod: pod.name)),
        deletes=tuple(deletes),
        without_port=tuple(without_port),
        look_again_at=min(later, default=None),
    )


def _held_slots(
    fleet: Fleet, pool: PoolResource, pods: Iterable[Pod], free: FreeSlots
) -> tuple[list[int], dict[int, Entry]]:
    """Return the slots that the pool holds after scaling, and the ledger entries that this changes."""
    held = fleet.ledger.held_by(pool.name)
    surplus = len(held) - pool.spec.replicas
    if surplus > 0:
        serving = {pod.slot: pod for pod in pods if not pod.leaving}

        def worth(slot: int) -> tuple[bool, int, int]:
            pod = serving.get(slot)
            load = fleet.sessions.get((slot, pod.generation), 0) if pod else 0
            return (pod is not None and pod.ready, load, -slot)  # of equals the highest slot leaves first

        leaving = sorted(held, key=worth)[:surplus]
        released = {slot: Entry("", fleet.ledger.entries[slot].generation) for slot in leaving}
        return [slot for slot in held if slot not in released], released
    # Slots whose pods still drain come back first: the ring then looks as it did.
    draining = sorted({pod.slot for pod in pods} - set(held))
    new = [free.take(*draining) for _ in range(-surplus)]
    entries = fleet.ledger.entries
    return sorted([*held, *new]), {
        slot: Entry(pool.name, entries[slot].generation if slot in entries else 0) for slot in new
    }


def _age(fleet: Fleet, pod: Pod) -> int:
    """Order generations of one slot, newest highest, also where the number wrapped."""
    newest = fleet.ledger.entries.get(pod.slot, Entry("", pod.generation)).generation
    return -((newest - pod.generation) % (1 << 16))


def _reason_to_delete(fleet: Fleet, pool: PoolResource, pod: Pod, now: float) -> str | None:
    if pod.finished:
        return "finished"
    if not pod.running:
        return "not running"
    said: Drained | None = fleet.drained.get(pod.uid)
    if said is not None and said.state == "draining" and said.sessions == 0:
        return "no sessions"  # it said itself that it takes no more: nothing can have come in between
    if pod.draining_since is None or now < pod.draining_since + _patience_s(pool):
        return None
    return "deadline" if pool.spec.drain.policy is not DrainPolicy.HANG_UP else "hang up"


def _patience_s(pool: PoolResource) -> float:
    return FENCE_SETTLES_S if pool.spec.drain.policy is DrainPolicy.HANG_UP else pool.spec.drain.deadline

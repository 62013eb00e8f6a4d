"""Transceiver → the next steps that bring its pods there. Pure, level-triggered, one pass at a time.

Every slot that the pool holds has one pod that serves; everything else leaves. A pod's life:

    claim: the ledger moves ──▶ created ──▶ ready: in the ring ──▶ fenced: out of the ring ──▶ no sessions ──▶ deleted
    (slot, generation, port)    starting        active                 draining              or deadline

Invariants
- The ledger holds (slot, generation) before the pod exists, and never goes back: no pair names two pods.
- No port number is given twice while its pod exists; a replacement never waits for its predecessor's number.
- A pod that cannot have its number (ports) leaves, its number goes into quarantine first, and its slot gets another.
- A pod that may hold sessions is fenced before it is deleted, and fenced only when its slot has another ready pod, or
  is not wanted, or the pod isn't ready itself, or the pool allows slots to be unavailable.
- A pod that is asked to leave is replaced as one of an old spec is; a fenced pod never serves again.
- Nothing is remembered here: a step that got lost is found again in the next observation.

Owns: which pods. Does not own: what is in them (pod), which slots move (rollout), port numbers (ports), who is
asked to leave and how long calls are waited for (drain).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf

from voicefleet_operator.desired.ledger import Entry, FreeSlots
from voicefleet_operator.desired.pool.drain import avoids_in_vain, hang_up_at, wanted_replicas, why_asked
from voicefleet_operator.desired.pool.ports import PortLedger
from voicefleet_operator.desired.pool.quarantine import QUARANTINE_S
from voicefleet_operator.desired.pool.rollout import ends_at, look_at_slot, next_moves
from voicefleet_operator.desired.state import Component, Drained, Fleet, Place, Pod, PoolResource, PortRefusal

FAILED_POD_RETRY_S = 10.0  # a pod that ended by itself is replaced no faster than this
HANG_UP_TAKES_S = 30.0  # a transceiver hangs up by itself when it is time; one that still holds calls then is deleted
CREATES_PER_PASS = 500  # a pool of thousands is made in passes: what happens meanwhile is seen in between
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
    """What to do now, in this order. `look_again_at` is the next time that matters."""

    ledger: dict[int, Entry] = field(default_factory=dict)
    quarantine: tuple[Place, ...] = ()
    creates: tuple[Create, ...] = ()
    fences: tuple[Fence, ...] = ()
    deletes: tuple[Delete, ...] = ()
    without_port: tuple[int, ...] = ()  # slots that need a pod and got no port number
    unsettled: tuple[int, ...] = ()  # slots that are not as wanted yet, or whose old generation still stands by
    ends_at: float | None = None  # of what moves: the earliest time
    look_again_at: float | None = None


def pool_steps(
    fleet: Fleet, pool: PoolResource, template: str, ports: PortLedger, free_slots: FreeSlots, now: float
) -> PoolSteps:
    """Return a pool's next steps. ``ports`` and ``free_slots`` are the fleet's; what is given out here is marked."""
    if pool.deleting or pool.paused:
        return PoolSteps()  # its pods go with it (owner references), or stay as they are
    # Who is there, slot by slot?
    pods = fleet.pods_of(Component.TRANSCEIVER, pool.name)
    held, ledger = _held_slots(fleet, pool, pods, free_slots)
    shut, misplaced = _without_their_port(pool, pods, ports, now)
    live: dict[int, list[Pod]] = {slot: [] for slot in held}
    unwanted: list[Pod] = []
    for pod in sorted(pods, key=lambda pod: _age(fleet, pod), reverse=True):
        if not pod.leaving and pod not in misplaced:
            live.get(pod.slot, unwanted).append(pod)

    # What moves, and who takes no more calls for it?
    stay = {pod.name for pod in pods if _may_stay(fleet, pool, pod, template)}
    views = [look_at_slot(slot, here, stay, pool.spec.rollout, now) for slot, here in live.items()]
    moves = next_moves(views, pool.spec.rollout)
    fences = {pod.name: pod for pod in (*misplaced, *unwanted)}
    for view in views:
        leaving = live[view.slot] if view.slot in moves.drain else view.needless()
        fences |= {pod.name: pod for pod in leaving}

    # What is made, and what has nothing left to wait for?
    retries = _retries(pods, [slot for slot, here in live.items() if not here], now)
    empty = sorted(slot for slot, here in live.items() if not here and slot not in retries)
    wanted = [*empty, *moves.surge]
    held_until = fleet.refused_until("Transceiver", pool.name, now)
    again = [now] if len(wanted) > CREATES_PER_PASS else []
    if held_until is not None and wanted:  # each attempt claims, and burns, a generation
        wanted, again = [], [held_until]
    creates, without_port = _creates(fleet, pool, wanted[:CREATES_PER_PASS], ports)
    deletes, later = _deletes(fleet, pool, [pod for pod in pods if pod.slot not in retries or not pod.finished], now)
    proofs = [view.proven_at for view in views if view.proven_at is not None]
    times = [*later, *retries.values(), *proofs, *again]
    return PoolSteps(
        ledger=ledger | {create.slot: Entry(pool.name, create.generation) for create in creates},
        quarantine=shut,
        creates=tuple(creates),
        fences=tuple(Fence(pod.name, pod.uid) for _, pod in sorted(fences.items())),
        deletes=tuple(deletes),
        without_port=tuple(without_port),
        unsettled=tuple(sorted(view.slot for view in views if not view.settled)),
        ends_at=ends_at(views, pool.spec.rollout),
        look_again_at=min(times, default=None),
    )


def _without_their_port(
    pool: PoolResource, pods: Iterable[Pod], ports: PortLedger, now: float
) -> tuple[tuple[Place, ...], list[Pod]]:
    """Return the places where numbers were found taken, and the pods that leave for it.

    As many stay as there is no other number for: their holders may go away.
    """
    refused = [pod for pod in pods if pod.port_refused is not None and not pod.ready and not pod.leaving]
    if not refused:
        return (), []
    places = [Place(pod.node if pod.port_refused is PortRefusal.NODE else "", pod.port) for pod in refused]
    for place in places:
        ports.shut(place, now + QUARANTINE_S)
    others = ports.spare(pool)
    return tuple(places[:others]), refused[:others]


def _retries(pods: Iterable[Pod], empty: Iterable[int], now: float) -> dict[int, float]:
    """Return the slots whose last pod ended by itself just now, and when another may try. That pod stands for its slot."""
    at = dict.fromkeys(empty, 0.0)
    for pod in pods:
        if pod.finished and pod.slot in at:
            at[pod.slot] = max(at[pod.slot], pod.created_at + FAILED_POD_RETRY_S)
    return {slot: time for slot, time in at.items() if time > now}


def _creates(
    fleet: Fleet, pool: PoolResource, slots: Iterable[int], ports: PortLedger
) -> tuple[list[Create], list[int]]:
    """Return the pods to make, and the slots for which there is no port number."""
    creates: list[Create] = []
    without_port: list[int] = []
    for slot in slots:
        generation = fleet.ledger.next_generation(slot)
        port = ports.choose(pool, slot, generation)
        if port is None:
            without_port.append(slot)
        else:
            creates.append(Create(pool.name, slot, generation, port))
    return creates, without_port


def _deletes(fleet: Fleet, pool: PoolResource, pods: Iterable[Pod], now: float) -> tuple[list[Delete], list[float]]:
    """Return the pods that have nothing to lose any more, and when the patience with others ends."""
    deletes: list[Delete] = []
    later: list[float] = []
    for pod in pods:
        if not pod.leaving or pod.deleting:
            continue
        why = _reason_to_delete(fleet, pool, pod, now)
        if why is not None:
            grace_s = HANG_UP_GRACE_S if why == "deadline" else EMPTY_GRACE_S
            deletes.append(Delete(pod.name, pod.uid, grace_s, why))
        elif (at := hang_up_at(fleet, pool, pod)) is not None:
            later.append(at + HANG_UP_TAKES_S)
    return deletes, later


def _held_slots(
    fleet: Fleet, pool: PoolResource, pods: Iterable[Pod], free: FreeSlots
) -> tuple[list[int], dict[int, Entry]]:
    """Return the slots that the pool holds after scaling, and the ledger entries that this changes."""
    held = fleet.ledger.held_by(pool.name)
    surplus = len(held) - wanted_replicas(pool)
    if surplus > 0:
        serving = {pod.slot: pod for pod in pods if not pod.leaving}

        def worth(slot: int) -> tuple[bool, float, int]:
            pod = serving.get(slot)
            load = fleet.sessions.get((slot, pod.generation), inf) if pod else 0  # unknown is not empty
            stays = pod is not None and pod.ready and not pod.ejected and not why_asked(fleet, pod)
            return (stays, load, -slot)  # of equals the highest slot leaves first

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


def _may_stay(fleet: Fleet, pool: PoolResource, pod: Pod, template: str) -> bool:
    as_specified = pod.template == template and pod.port in pool.spec.ports
    return as_specified and not why_asked(fleet, pod) and not avoids_in_vain(fleet, pod)


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
    at = hang_up_at(fleet, pool, pod)
    return "deadline" if at is not None and now >= at + HANG_UP_TAKES_S else None

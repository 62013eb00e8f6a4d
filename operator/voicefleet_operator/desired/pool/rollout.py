"""How many slots of a pool may move at once when its template changes.

A slot moves by starting a new generation beside the old one (surge), or, without room for that, by draining the old one
first (unavailable). Old generations that drain count for nothing here: an hour-long call must not hold up a rollout.

A new generation is **proven** when it has been ready for `minReady` without a break: until then it takes calls, but its slot
is on the move, and the old generation stands by. So an image that does not start, or starts and dies, stops the rollout
after `maxSurge` slots, with every slot served.

Owns: which slots move. Does not own: what is done to their pods (steps).
"""

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from math import ceil

from voicefleet_contract.resources import Rollout
from voicefleet_operator.desired.state import Pod


@dataclass(frozen=True, slots=True)
class SlotView:
    """A slot as a rollout sees it, of its pods that do not leave."""

    slot: int
    stale: tuple[Pod, ...]  # to be replaced: of an older template, outside of the range of ports, asked to leave
    fresh: Pod | None  # the one that is to stay
    superfluous: tuple[Pod, ...]  # as new, but one is enough
    proven: bool  # the fresh one is
    proven_at: float | None  # when it will be, if it stays ready

    @property
    def ready(self) -> bool:
        """Some member takes calls."""
        return any(pod.ready for pod in (*self.stale, *((self.fresh,) if self.fresh else ())))

    @property
    def available(self) -> bool:
        """Some member takes calls that has shown that it can."""
        return self.proven or any(pod.ready for pod in self.stale)

    @property
    def moving(self) -> bool:
        """A new generation is there that has shown nothing yet."""
        return self.fresh is not None and not self.proven

    @property
    def waiting(self) -> bool:
        """It has yet to move."""
        return self.fresh is None and bool(self.stale)

    @property
    def settled(self) -> bool:
        """It is as wanted, and nothing of an older spec is left that takes calls."""
        return self.fresh is not None and self.fresh.ready and not self.stale

    def needless(self) -> list[Pod]:
        """Return the pods that the slot can do without now.

        An old one stays until the new one is proven, even if it is not ready for the moment (it may hold calls, and come
        back); unless another old one serves, or its process never ran.
        """
        another = any(pod.ready for pod in self.stale)
        old = [pod for pod in self.stale if self.proven or not pod.ran or (another and not pod.ready)]
        return [*self.superfluous, *old]


def look_at_slot(
    slot: int, newest_first: Sequence[Pod], may_stay: Container[str], limits: Rollout, now: float
) -> SlotView:
    """Sort a slot's live pods by whether they may stay. Of several that may the ready, then the newest does."""
    fresh = [pod for pod in newest_first if pod.name in may_stay]
    keep = next((pod for pod in fresh if pod.ready), fresh[0] if fresh else None)
    proven_at = None if keep is None or not keep.ready else keep.ready_since + limits.min_ready
    proven = proven_at is not None and now >= proven_at
    return SlotView(
        slot=slot,
        stale=tuple(pod for pod in newest_first if pod not in fresh),
        fresh=keep,
        superfluous=tuple(pod for pod in fresh if pod is not keep),
        proven=proven,
        proven_at=None if proven else proven_at,
    )


def ends_at(slots: Iterable[SlotView], limits: Rollout) -> float | None:
    """Return when a rollout ends at the earliest; None while nothing of it is ready, or nothing moves.

    From the proofs that are under way, whose time is known, and one more for each wave of slots that wait. It moves when
    a slot does, and not with the clock: a status that says it is not written for nothing.
    """
    views = list(slots)
    proofs = [view.proven_at for view in views if view.proven_at is not None]
    if not proofs:
        return None
    waves = ceil(sum(view.waiting for view in views) / max(1, limits.max_surge, limits.max_unavailable))
    return max(proofs) + waves * limits.min_ready


@dataclass(frozen=True, slots=True)
class Moves:
    """Slots that start a new generation now, and slots whose old one drains now."""

    surge: tuple[int, ...]
    drain: tuple[int, ...]


def next_moves(slots: Iterable[SlotView], limits: Rollout) -> Moves:
    """Return which slots move now: first those that serve nobody, then the lowest.

    Slots that serve nobody have nothing to lose and all move, once some slot has proven the template; before that they
    keep to the limits: what is not ready for a moment must not be given up for an image that never gets there.
    """
    views = sorted(slots, key=lambda view: view.slot)
    idle = [view.slot for view in views if view.waiting and not view.ready]
    serving = [view.slot for view in views if view.waiting and view.ready]
    surge = max(0, limits.max_surge - sum(view.moving for view in views))
    if any(view.proven for view in views):
        surge += len(idle)
    # An idle slot is unavailable already: draining it first takes nothing from anybody.
    under_way = sum(not view.available and not view.waiting for view in views)
    drain_idle = max(0, limits.max_unavailable - under_way)
    drain_serving = max(0, drain_idle - len(idle))
    surging = (*idle, *serving)[:surge]
    left_idle = [slot for slot in idle if slot not in surging][:drain_idle]
    left_serving = [slot for slot in serving if slot not in surging][:drain_serving]
    return Moves(tuple(surging), (*left_idle, *left_serving))

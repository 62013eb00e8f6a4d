"""How many slots of a pool may move at once when its template changes.

A slot moves by starting a new generation beside the old one (surge), or, without room for that, by draining the old one
first (unavailable). Old generations that drain count for nothing here: an hour-long call must not hold up a rollout.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from voicefleet_contract.resources import Rollout


@dataclass(frozen=True, slots=True)
class SlotView:
    """A slot as a rollout sees it: is a new generation starting, is any member ready, must it move at all."""

    slot: int
    starting: bool
    ready: bool
    stale: bool


@dataclass(frozen=True, slots=True)
class Moves:
    """Slots that start a new generation now, and slots whose old one drains now."""

    surge: tuple[int, ...]
    drain: tuple[int, ...]


def next_moves(slots: Iterable[SlotView], limits: Rollout) -> Moves:
    """Return which stale slots move now, lowest first.

    A new generation that never gets ready keeps its place in the surge: so a bad image stops after `max_surge` slots,
    and every slot is still served by its old generation.
    """
    views = sorted(slots, key=lambda view: view.slot)
    waiting = [view.slot for view in views if view.stale and view.ready and not view.starting]
    surge = max(0, limits.max_surge - sum(view.starting for view in views))
    unavailable = max(0, limits.max_unavailable - sum(not view.ready for view in views))
    return Moves(tuple(waiting[:surge]), tuple(waiting[surge : surge + unavailable]))

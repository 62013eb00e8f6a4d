"""The consistent-hash ring of a pool: which member is asked first for a new call, and which next.

Every gateway computes the same ring from the same members, in any order. Removing a member moves only its keys; adding
one moves keys only to it (each member's points depend on nothing but its slot and its weight); more weight is more points,
so it moves keys only to the member whose weight grew.

The ring alone spreads calls unevenly (points fall where they fall). So a gateway asks a member to take a call only while it
holds fewer than `load_bound`; one that holds more refuses, and the walk goes on. That bound is checked by the member, with
its own count: no gateway need be right about the load of others, and many of them cannot herd onto one.

Owns: the order of members for a key, and the bound. Does not own: whether a member takes the call, what a gateway knows of
loads (core.loads), nor sessions: a session stays with its owner whatever the ring becomes.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from math import ceil

WEIGHT = 100  # of a member like the others
MAX_WEIGHT = 1000
POINTS_PER_WEIGHT = 64 / WEIGHT
LOAD_FACTOR = 1.25  # a member takes no new call beyond so many times its share of the pool's calls
LOAD_SLACK = 4  # and so many more: at a handful of calls, evenness is not worth a second question
_POINTS_PER_DIGEST = 8  # a 64-byte BLAKE2b digest is eight 64-bit points
_MEMBER, _KEY = b"vf-member", b"vf-key"


class Ring:
    """An immutable ring over slots. ``epoch`` counts the ring's versions; it does not change the order."""

    def __init__(self, slots: Iterable[int] | Mapping[int, int], epoch: int = 0) -> None:
        """Take slots, or slot → weight; a weight of 0 stands in no ring."""
        weights = slots if isinstance(slots, Mapping) else dict.fromkeys(slots, WEIGHT)
        self.epoch = epoch
        self.weights = {slot: weight for slot, weight in weights.items() if weight > 0}
        # A tie of two members' points (2⁻⁶⁴) falls to the lower slot: sorting pairs decides it.
        ring = sorted((point, slot) for slot, weight in self.weights.items() for point in _points(slot, weight))
        self._points = [point for point, _ in ring]
        self._slots = [slot for _, slot in ring]

    @property
    def slots(self) -> frozenset[int]:
        """The slots in it."""
        return frozenset(self.weights)

    def owners(self, key: bytes) -> Iterator[int]:
        """Yield each slot once, nearest first."""
        if not self._points:
            return
        digest = hashlib.blake2b(key, digest_size=8, person=_KEY).digest()
        start = bisect_right(self._points, int.from_bytes(digest, "big"))
        seen: set[int] = set()
        for step in range(len(self._slots)):
            slot = self._slots[(start + step) % len(self._slots)]
            if slot not in seen:
                seen.add(slot)
                yield slot
                if len(seen) == len(self.weights):
                    return


def load_bound(weight: int, calls: int, total_weight: int) -> int:
    """Return how many calls a member may hold and still be given one more, in a pool that holds ``calls`` with it."""
    return ceil(LOAD_FACTOR * calls * weight / total_weight) + LOAD_SLACK


def imbalance(loads: Iterable[tuple[int, int]]) -> float:
    """Return the highest load over the mean, both by weight, of (calls, weight) pairs; 1 is even, and so is nothing."""
    known = [(calls, weight) for calls, weight in loads if weight > 0]
    calls, weights = sum(calls for calls, _ in known), sum(weight for _, weight in known)
    if not calls:
        return 1.0
    return max(calls / weight for calls, weight in known) * weights / calls


def _points(slot: int, weight: int) -> Iterator[int]:
    left = max(1, round(weight * POINTS_PER_WEIGHT))
    block = 0
    while left > 0:
        digest = hashlib.blake2b(b"%d/%d" % (slot, block), digest_size=64, person=_MEMBER).digest()
        for start in range(0, 8 * min(left, _POINTS_PER_DIGEST), 8):
            yield int.from_bytes(digest[start : start + 8], "big")
        left -= _POINTS_PER_DIGEST
        block += 1

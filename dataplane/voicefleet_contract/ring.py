"""The consistent-hash ring of a pool: which member is asked first for a new call, and which next.

Every gateway computes the same ring from the same members, in any order. Removing a member moves only its keys; adding
one moves keys only to it (each member's points depend on nothing but its slot).

Owns: the order of members for a key. Does not own: whether a member takes the call (it may refuse; walk on), nor
sessions: a session stays with its owner whatever the ring becomes.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator

POINTS_PER_MEMBER = 64
_POINTS_PER_DIGEST = 8  # a 64-byte BLAKE2b digest is eight 64-bit points
_MEMBER, _KEY = b"vf-member", b"vf-key"


class Ring:
    """An immutable ring over slots. ``epoch`` counts the ring's versions; it does not change the order."""

    def __init__(self, slots: Iterable[int], epoch: int = 0) -> None:
        self.epoch = epoch
        self.slots = frozenset(slots)
        # A tie of two members' points (2⁻⁶⁴) falls to the lower slot: sorting pairs decides it.
        ring = sorted((point, slot) for slot in self.slots for point in _points(slot))
        self._points = [point for point, _ in ring]
        self._slots = [slot for _, slot in ring]

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
                if len(seen) == len(self.slots):
                    return


def _points(slot: int) -> Iterator[int]:
    for block in range(POINTS_PER_MEMBER // _POINTS_PER_DIGEST):
        digest = hashlib.blake2b(b"%d/%d" % (slot, block), digest_size=64, person=_MEMBER).digest()
        for start in range(0, 64, 8):
            yield int.from_bytes(digest[start : start + 8], "big")

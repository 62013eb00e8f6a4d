"""Numbers that never wrap, and sets of them as ranges.

TSNs and stream sequence numbers wrap on the wire (RFC 9260 section 1.6). Inside they are plain integers that grow: each is
unwrapped once, near a number that is known, and order is `<`.
"""

from bisect import bisect_left, bisect_right

TSN_MASK = 0xFFFFFFFF
SSN_MASK = 0xFFFF


def unwrap_tsn(wire: int, near: int) -> int:
    """Return the integer that is ``wire`` modulo 2^32 and lies within 2^31 of ``near``."""
    return near + ((wire - near + 0x80000000) & TSN_MASK) - 0x80000000


def unwrap_ssn(wire: int, near: int) -> int:
    """Return the integer that is ``wire`` modulo 2^16 and lies within 2^15 of ``near``."""
    return near + ((wire - near + 0x8000) & SSN_MASK) - 0x8000


class Ranges:
    """A set of integers as ascending ranges that neither overlap nor touch.

    Adding costs a binary search and what it merges; each range is merged away once.
    """

    __slots__ = ("firsts", "lasts")

    def __init__(self) -> None:
        self.firsts: list[int] = []
        self.lasts: list[int] = []

    def __len__(self) -> int:
        return len(self.firsts)

    def __contains__(self, number: int) -> bool:
        at = bisect_left(self.lasts, number)
        return at < len(self.firsts) and self.firsts[at] <= number

    def touches(self, number: int) -> bool:
        """Say whether adding a number that is not in the set makes no further range."""
        at = bisect_left(self.lasts, number - 1)
        return at < len(self.firsts) and self.firsts[at] <= number + 1

    def add(self, first: int, last: int) -> list[tuple[int, int]]:
        """Add first..last; gives the parts of it that were not in the set."""
        begin = bisect_left(self.lasts, first - 1)
        end = bisect_right(self.firsts, last + 1)
        new, at = [], first
        for index in range(begin, end):
            if at < self.firsts[index]:
                new.append((at, self.firsts[index] - 1))
            at = max(at, self.lasts[index] + 1)
        if at <= last:
            new.append((at, last))
        if not new:
            return new
        if begin < end:
            first, last = min(first, self.firsts[begin]), max(last, self.lasts[end - 1])
        self.firsts[begin:end] = [first]
        self.lasts[begin:end] = [last]
        return new

    def forget_to(self, last: int) -> None:
        """Take every number up to ``last`` out."""
        gone = bisect_right(self.lasts, last)
        if gone:
            del self.firsts[:gone], self.lasts[:gone]
        if self.firsts and self.firsts[0] <= last:
            self.firsts[0] = last + 1

    def clear(self) -> None:
        """Take all out."""
        self.firsts.clear()
        self.lasts.clear()

    def export(self) -> list[list[int]]:
        """Return the ranges, each as [first, last]."""
        return [list(pair) for pair in zip(self.firsts, self.lasts, strict=True)]

    @classmethod
    def restore(cls, state: list[list[int]]) -> "Ranges":
        """Make the set of an export."""
        made = cls()
        made.firsts = [pair[0] for pair in state]
        made.lasts = [pair[1] for pair in state]
        return made

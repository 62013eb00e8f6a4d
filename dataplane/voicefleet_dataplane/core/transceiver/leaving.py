"""When a transceiver that leaves hangs up which call: none before a moment, then one after the other.

A gap between two hang-ups keeps a few hundred clients from calling again in the same instant; the last one comes at most
`HANG_UPS_TAKE_S` after the first. Oldest calls go first.

Owns: the moments. Does not own: refusing new calls (admission), ending a call (session).
"""

from collections.abc import Collection

HANG_UPS_TAKE_S = 10.0
LONGEST_GAP_S = 0.1
_NEVER = float("inf")


class Leaving:
    """The newest order counts; repeating one neither hurries nor holds up the hang-ups under way."""

    __slots__ = ("_gap_s", "_resting_until", "hang_up_at")

    def __init__(self) -> None:
        self.hang_up_at = _NEVER
        self._resting_until = 0.0
        self._gap_s: float | None = None

    def order(self, hang_up_at: float) -> None:
        """Leave calls alone until then."""
        self.hang_up_at = hang_up_at

    def deadline(self) -> float:
        """When the next call is hung up."""
        return max(self.hang_up_at, self._resting_until)

    def is_due(self, calls: Collection[object], now: float) -> bool:
        """Say whether one of the calls is hung up now; saying yes starts the gap."""
        if not calls or now < self.deadline():
            return False
        if self._gap_s is None:
            self._gap_s = min(LONGEST_GAP_S, HANG_UPS_TAKE_S / len(calls))
        self._resting_until = now + self._gap_s
        return True

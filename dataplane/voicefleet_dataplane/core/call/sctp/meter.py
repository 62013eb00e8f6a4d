"""What an association costs, counted in steps, and how many of them it may take.

A step is one turn of a loop in this package: a chunk, a gap block, a chunk that is acknowledged, a fragment that is put away.
Steps are the same on every machine, so tests count them; on the packet loop they stand for CPU, of which a call may take its
share and no more. Packets past that are dropped, as by a network that is full, and the peer's congestion control slows down.
"""

# What a packet costs before its chunks are looked at, in steps: it has been decrypted, and its checksum is taken.
PACKET_STEPS = 8
# Of one association: many times what the messages of a call need, which have a bound of their own (core/call/budgets.py).
STEPS_PER_S = 150_000
STEPS_AT_ONCE = 40_000


class Meter:
    """Counts `steps`; whoever loops adds to it."""

    __slots__ = ("_allowed", "_at", "_counted", "steps")

    def __init__(self) -> None:
        self.steps = 0
        self._allowed = float(STEPS_AT_ONCE)
        self._counted = 0
        self._at = 0.0

    def may_go_on(self, now: float) -> bool:
        """Say whether a packet can be afforded now. One that began is finished, and paid for by those that come after it."""
        earned = (now - self._at) * STEPS_PER_S
        spent = self.steps - self._counted
        self._allowed = min(self._allowed - spent + earned, float(STEPS_AT_ONCE))
        self._at, self._counted = now, self.steps
        return self._allowed > 0

    def export(self) -> list[float]:
        """Return what is left of its share; times are as they are here."""
        return [self.steps, self._allowed, self._counted, self._at]

    def restore(self, state: list[float], shift_s: float) -> None:
        """Go on from an export whose clock was ``shift_s`` behind ours."""
        self.steps, self._allowed, self._counted = int(state[0]), state[1], int(state[2])
        self._at = state[3] + shift_s

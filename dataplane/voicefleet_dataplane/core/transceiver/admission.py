"""Whether a transceiver takes one more call, and what to tell the gateway when it does not.

Pure arithmetic over counts. Does not own the counts or the clock.
"""

from dataclasses import dataclass

from voicefleet_contract.http_api import RefusalReason
from voicefleet_contract.topology import MemberState

# Calls that have been answered and not connected yet. A flood of offers whose clients never come must leave room for
# those that do; they are gone after the setup limit.
_PENDING_FLOOR = 16
_PENDING_SHARE = 4


@dataclass(frozen=True, slots=True)
class NoRoom:
    """Refused, and when to ask again."""

    reason: RefusalReason
    message: str
    retry_after_s: int


def decide_admission(
    state: MemberState, *, sessions: int, pending: int, capacity: int, below: int | None = None
) -> NoRoom | None:
    """None: there is room. ``below`` is the share that the gateway means for this member."""
    if state is MemberState.STARTING:
        return NoRoom(RefusalReason.STARTING, "this transceiver is starting", 1)
    if state is not MemberState.ACTIVE:
        return NoRoom(RefusalReason.DRAINING, "this transceiver is draining and takes no new calls", 5)
    if sessions >= capacity:
        return NoRoom(RefusalReason.FULL, f"this transceiver holds its {capacity} calls", 5)
    if pending >= max(_PENDING_FLOOR, capacity // _PENDING_SHARE):
        return NoRoom(RefusalReason.OVERLOADED, f"{pending} calls are being set up already", 1)
    if below is not None and sessions >= below:
        return NoRoom(RefusalReason.BUSY, f"this transceiver holds {sessions} calls, its share is below {below}", 1)
    return None

"""Ring epochs and weights: the version of the set of members that take new calls, and each one's share of them."""

from collections.abc import Iterable

from voicefleet_contract.ring import MAX_WEIGHT, WEIGHT
from voicefleet_contract.topology import Member, MemberState


def active_weights(members: Iterable[Member]) -> dict[int, int]:
    """Return slot → weight of what stands in the ring; of two generations of a slot the newer one counts."""
    ordered = sorted((m for m in members if m.state is MemberState.ACTIVE), key=lambda member: member.generation)
    return {member.slot: member.weight for member in ordered}


def next_epoch(published: Iterable[Member], published_epoch: int, status_epoch: int, members: Iterable[Member]) -> int:
    """Return the epoch of a ring: one more than ever said when its slots or weights differ from those published.

    ``status_epoch`` stands in the Transceiver's status: an epoch never goes back, even if all slices were deleted.
    """
    known = max(published_epoch, status_epoch)
    return known if active_weights(published) == active_weights(members) and published_epoch == known else known + 1


def weight_of(capacity: int, newest_capacity: int) -> int:
    """Return a member's weight: its capacity beside that of the newest spec, in percent. Unknown (0) is like the newest."""
    if not capacity:
        return WEIGHT
    return min(MAX_WEIGHT, max(1, round(WEIGHT * capacity / newest_capacity)))

"""Ring epochs: the version of the set of members that take new calls."""

from collections.abc import Iterable

from voicefleet_contract.topology import Member, MemberState


def active_slots(members: Iterable[Member]) -> frozenset[int]:
    """Return the slots that stand in the ring."""
    return frozenset(member.slot for member in members if member.state is MemberState.ACTIVE)


def next_epoch(published: Iterable[Member], published_epoch: int, status_epoch: int, members: Iterable[Member]) -> int:
    """Return the epoch of a ring: one more than ever said when its slots differ from those published.

    ``status_epoch`` stands in the Transceiver's status: an epoch never goes back, even if all slices were deleted.
    """
    known = max(published_epoch, status_epoch)
    return known if active_slots(published) == active_slots(members) and published_epoch == known else known + 1

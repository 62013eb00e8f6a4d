"""What a gateway knows of the loads of a pool's members: what they said when it last asked them for something.

Every answer to an offer, a yes or a no, tells how many sessions the member holds. That is old at once, and nothing is
decided by it but a bound (contract.ring) which the member checks against its own count: wrong news cost a question more, or
let the bound be a little loose, and no news mean no bound. So gateways need no registry and no word from each other.

Owns: the news, how long they count, and the bounds that follow. Does not own: who is asked (shell.owner_walk).
"""

from collections.abc import Iterable

from voicefleet_contract.ring import imbalance, load_bound
from voicefleet_contract.topology import Member

HEARD_FOR_S = 30.0


class Loads:
    """News of one pool's members, by slot and generation."""

    def __init__(self) -> None:
        self._heard: dict[tuple[int, int], tuple[int, float]] = {}  # (sessions, when)

    def hear(self, member: Member, sessions: int, now: float) -> None:
        """Take in what a member said."""
        self._heard[member.slot, member.generation] = (sessions, now)

    def bounds(self, members: Iterable[Member], now: float) -> dict[int, int]:
        """Return slot → the number of sessions at which it refuses one more, for a pool with one call more than heard of.

        Empty while fewer than two members were heard of: one says nothing about its share.
        """
        asked = list(members)
        known = self._known(asked, now)
        if len(known) < 2:
            return {}
        calls = sum(sessions for sessions, _ in known) + 1
        weight = sum(weight for _, weight in known)
        return {member.slot: load_bound(member.weight, calls, weight) for member in asked}

    def imbalance(self, members: Iterable[Member], now: float) -> float:
        """Return the highest load over the mean, by weight, of the members heard of."""
        return imbalance(self._known(list(members), now))

    def _known(self, members: list[Member], now: float) -> list[tuple[int, int]]:
        """Return (sessions, weight) of the members heard of lately, and forget who is no member any more."""
        present = {(member.slot, member.generation): member for member in members}
        self._heard = {key: heard for key, heard in self._heard.items() if key in present}
        return [
            (sessions, present[key].weight)
            for key, (sessions, at) in self._heard.items()
            if now - at <= HEARD_FOR_S and present[key].weight > 0
        ]

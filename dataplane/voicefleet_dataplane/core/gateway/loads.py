"""What a gateway knows of the loads of a pool's members: what they said when it last asked them for something.

Every answer to an offer, a yes or a no, tells how many sessions the member holds. That is old at once, and nothing is
decided by it but a bound (contract.ring) which the member checks against its own count: wrong news cost a question more, or
let the bound be a little loose, and no news mean no bound. So gateways need no registry and no word from each other.

Owns: the news, how long they count, and the bounds that follow; constant work a call, for pools of any size. Does not own:
who is asked (shell.owner_walk).
"""

from typing import NamedTuple

from voicefleet_contract.ring import imbalance, load_bound
from voicefleet_contract.topology import Member

HEARD_FOR_S = 120.0  # a member that left counts for so long after its last word


class _Word(NamedTuple):
    sessions: int
    weight: int
    at: float


class Loads:
    """News of one pool's members, by slot and generation, the oldest first."""

    def __init__(self) -> None:
        self._heard: dict[tuple[int, int], _Word] = {}
        self._sessions = self._weight = 0

    def hear(self, member: Member, sessions: int, now: float) -> None:
        """Take in what a member said."""
        key = (member.slot, member.generation)
        self._drop(key)
        self._heard[key] = _Word(sessions, member.weight, now)
        self._sessions += sessions
        self._weight += member.weight

    def bound(self, member: Member, now: float) -> int | None:
        """Return the number of sessions at which a member is to refuse one more: its share of those heard of, and this one.

        None while fewer than two members were heard of: one says nothing about its share.
        """
        self._forget(now)
        if len(self._heard) < 2 or not self._weight:
            return None
        return load_bound(member.weight, self._sessions + 1, self._weight)

    def imbalance(self, now: float) -> float:
        """Return the highest load over the mean, by weight, of the members heard of."""
        self._forget(now)
        return imbalance((word.sessions, word.weight) for word in self._heard.values())

    def _forget(self, now: float) -> None:
        while self._heard:
            key = next(iter(self._heard))
            if now - self._heard[key].at <= HEARD_FOR_S:
                return
            self._drop(key)

    def _drop(self, key: tuple[int, int]) -> None:
        word = self._heard.pop(key, None)
        if word is not None:
            self._sessions -= word.sessions
            self._weight -= word.weight

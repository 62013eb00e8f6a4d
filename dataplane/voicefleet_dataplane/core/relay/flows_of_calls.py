"""The flows of each call at a relay, by its ufrag: a bounded number, of which the longest silent one gives way.

So one valid caller who spoofs many addresses cannot fill the table for others, and a client that changes its address often is always let in.
Nearly every call has one flow: it costs an entry of a dictionary and no more.
"""

from typing import Generic, Protocol, TypeVar

from voicefleet_contract.addresses import Address

# A client with several networks checks from a few addresses at a time; an owner keeps eight paths of a session.
MAX_FLOWS_PER_UFRAG = 16


class OfCall(Protocol):
    """What of a flow matters here."""

    client: Address
    ufrag: bytes
    alive_at: float


F = TypeVar("F", bound=OfCall)


class FlowsOfCalls(Generic[F]):
    """Flows by ufrag; those whose call is not known have the empty one, and nobody asks for their room."""

    def __init__(self) -> None:
        self._first: dict[bytes, F] = {}
        self._others: dict[bytes, dict[Address, F]] = {}

    def add(self, flow: F) -> None:
        """It is a call's from now on."""
        if self._first.setdefault(flow.ufrag, flow) is not flow:
            self._others.setdefault(flow.ufrag, {})[flow.client] = flow

    def remove(self, flow: F) -> None:
        """It is nobody's, or another's."""
        others = self._others.get(flow.ufrag, {})
        if self._first[flow.ufrag] is not flow:
            del others[flow.client]
        elif others:
            self._first[flow.ufrag] = others.pop(next(iter(others)))
        else:
            del self._first[flow.ufrag]
        if not others:
            self._others.pop(flow.ufrag, None)

    def surplus(self, ufrag: bytes) -> F | None:
        """Return the flow that has to go before this call gets another one."""
        others = self._others.get(ufrag)
        if others is None or 1 + len(others) < MAX_FLOWS_PER_UFRAG:
            return None
        return min((self._first[ufrag], *others.values()), key=lambda flow: flow.alive_at)

    def total(self) -> int:
        """Count them all."""
        return len(self._first) + sum(map(len, self._others.values()))

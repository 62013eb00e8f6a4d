"""A flow: client address → owner, as one relay holds it; and the table that forgets flows in time.

A flow lives on evidence: an authentic check, or a packet from its owner. Media from the client keeps nothing alive, so who
can spoof an address but has no call can neither make a flow nor prolong one. Both kinds of evidence pass through this
process even where media does not (STUN stays in user space beside a kernel path), so liveness needs no packet counters.

Room is bounded twice: by the table's size, and by a number of flows per ufrag, so that one valid caller who spoofs many
addresses cannot fill the table for all others. A live flow is never evicted for a new one.

Owns: a flow's fields, room, and expiry. Does not own: who may bind a flow (core/relay.py).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from voicefleet_contract.addresses import Address
from voicefleet_contract.drops import DropReason

# A client with several networks checks from a few addresses at a time; an owner keeps eight paths of a session.
MAX_FLOWS_PER_UFRAG = 16


@dataclass(slots=True)
class Guest:
    """Another owner that authentic checks from a bound tuple named.

    Its answers may go out, but never more bytes than came in for it, and media of the tuple stays with the flow's owner.
    """

    owner: tuple[int, int]
    owner_address: Address
    credit_bytes: int


@dataclass(slots=True)
class Flow:
    """One client address and the member that owns it. Times are the caller's clock, in seconds."""

    client: Address
    owner: tuple[int, int]  # slot, generation
    owner_address: Address
    header: bytes  # SPP, built once: in front of every datagram of this flow, in both directions
    ufrag: bytes
    password: bytes  # of the ufrag; empty after a change of keys: the next check is verified from its hint
    alive_at: float
    packets_in: int = 0
    packets_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    guest: Guest | None = None


class FlowTable:
    """Flows by client address and by SPP header. A flow is forgotten ``idle_s`` after its last evidence of life.

    A change of ``ufrag`` goes through `rename`, everything else may be written to a flow directly.
    """

    def __init__(self, max_flows: int, idle_s: float) -> None:
        self.max_flows = max_flows
        self.idle_s = idle_s
        self.by_client: dict[Address, Flow] = {}
        self.by_header: dict[bytes, Flow] = {}
        self._of_ufrag: dict[bytes, int] = {}
        # A flow is looked at once per idle period, not once per sweep: a million flows cost 33,000 looks a second.
        self._due: dict[int, list[Flow]] = {}

    def __len__(self) -> int:
        return len(self.by_client)

    def __iter__(self) -> Iterator[Flow]:
        return iter(self.by_client.values())

    def owners(self) -> set[tuple[tuple[int, int], Address]]:
        """Return each owner that holds a flow, and where it is."""
        return {(flow.owner, flow.owner_address) for flow in self.by_client.values()}

    def is_live(self, flow: Flow, now: float) -> bool:
        """Say whether there was evidence of life within the idle time."""
        return now - flow.alive_at < self.idle_s

    def refusal(self, ufrag: bytes) -> DropReason | None:
        """Return why there is no room for a flow of this ufrag; None when there is."""
        if self._of_ufrag.get(ufrag, 0) >= MAX_FLOWS_PER_UFRAG:
            return DropReason.ICE_TOO_MANY_TUPLES
        return DropReason.FLOW_TABLE_FULL if len(self.by_client) >= self.max_flows else None

    def add(self, flow: Flow) -> None:
        """Hold a flow from now on."""
        self.by_client[flow.client] = flow
        self.by_header[flow.header] = flow
        self._of_ufrag[flow.ufrag] = self._of_ufrag.get(flow.ufrag, 0) + 1
        self._look_again(flow)

    def rename(self, flow: Flow, ufrag: bytes) -> None:
        """Note that another call of the same owner uses the flow now."""
        self._discount(flow.ufrag)
        flow.ufrag = ufrag
        self._of_ufrag[ufrag] = self._of_ufrag.get(ufrag, 0) + 1

    def forget(self, flow: Flow) -> None:
        """Hold it no longer."""
        del self.by_client[flow.client]
        del self.by_header[flow.header]
        self._discount(flow.ufrag)

    def deadline(self) -> float | None:
        """When `expire` has something to look at; None while there is no flow."""
        return min(self._due) if self._due else None

    def expire(self, now: float) -> int:
        """Forget the flows whose time has come; gives how many."""
        forgotten = 0
        for second in sorted(second for second in self._due if second <= now):
            for flow in self._due.pop(second):
                if self.by_client.get(flow.client) is not flow:
                    continue
                if self.is_live(flow, now):
                    self._look_again(flow)
                else:
                    self.forget(flow)
                    forgotten += 1
        return forgotten

    def _look_again(self, flow: Flow) -> None:
        self._due.setdefault(int(flow.alive_at + self.idle_s) + 1, []).append(flow)

    def _discount(self, ufrag: bytes) -> None:
        left = self._of_ufrag[ufrag] - 1
        if left:
            self._of_ufrag[ufrag] = left
        else:
            del self._of_ufrag[ufrag]

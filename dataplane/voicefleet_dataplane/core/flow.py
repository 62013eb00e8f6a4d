"""A flow: client address → owner, as one relay holds it; and the table that forgets flows in time.

A flow lives on evidence that cannot be spoofed from outside: an authentic check, or a packet from its owner. Media from
the client keeps nothing alive, so who spoofs a client's address can neither hold a flow nor prolong one.

Owns: a flow's fields, and expiry. Does not own: who may bind a flow (core/relay.py).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from voicefleet_contract.addresses import Address


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
    """Flows by client address and by SPP header. A flow is forgotten ``idle_s`` after its last evidence of life."""

    def __init__(self, max_flows: int, idle_s: float) -> None:
        self.max_flows = max_flows
        self.idle_s = idle_s
        self.by_client: dict[Address, Flow] = {}
        self.by_header: dict[bytes, Flow] = {}
        # A flow is looked at once per idle period, not once per sweep: a million flows cost 33,000 looks a second.
        self._due: dict[int, list[Flow]] = {}

    def __len__(self) -> int:
        return len(self.by_client)

    def __iter__(self) -> Iterator[Flow]:
        return iter(list(self.by_client.values()))

    @property
    def full(self) -> bool:
        """No room for another flow. A live one is never evicted for a new one."""
        return len(self.by_client) >= self.max_flows

    def add(self, flow: Flow) -> None:
        """Hold a flow from now on."""
        self.by_client[flow.client] = flow
        self.by_header[flow.header] = flow
        self._look_again(flow)

    def forget(self, flow: Flow) -> None:
        """Hold it no longer."""
        del self.by_client[flow.client]
        del self.by_header[flow.header]

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
                if flow.alive_at + self.idle_s <= now:
                    self.forget(flow)
                    forgotten += 1
                else:
                    self._look_again(flow)
        return forgotten

    def _look_again(self, flow: Flow) -> None:
        self._due.setdefault(int(flow.alive_at + self.idle_s) + 1, []).append(flow)

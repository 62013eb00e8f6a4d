"""A flow: client address → owner, as one relay holds it; and the table that forgets flows in time.

A flow lives on evidence: an authentic check, or a packet from its owner. Media from the client keeps nothing alive,
so who can spoof an address but has no call can neither make a flow nor prolong one. Checks, answers and DTLS pass
through this process always; media of a flow that the kernel carries (`bare`) does not, and what it proves is known up
to the last time that the kernel was asked: such a flow is judged as of then (`evidence_until`), so it may live a
sweep longer, never shorter.

An owner's last words shorten what is left of a flow (`patience_s`, docs/adr/0037): a refusal that verifies to GOODBYE_S, a DTLS
alert, which verifies nothing, to ALERT_S. Whatever else the owner says takes that back.

Room is bounded twice: by the table's size, and by a number of flows per ufrag (core/relay/flows_of_calls.py). A live flow is never
evicted for a new one but of its own call.

Owns: a flow's fields, room, expiry, and which flows the cache should hear of. Does not own: who may bind a flow
(core/relay/relay.py).
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from voicefleet_contract.addresses import Address
from voicefleet_dataplane.core.relay.flows_of_calls import FlowsOfCalls

# After the owner's refusal: time for what is still on its way. The tuple is then free, which a NAT that gives it to the
# next call at once needs.
GOODBYE_S = 2.0
# After an alert: longer than consent checks are apart (RFC 7675 section 5.1: 6 s at most). The answer to the next one takes
# the alert back if the call lives, or is a refusal that verifies.
ALERT_S = 7.0
# A guest's first checks are its own; then the flow's owner gets one, and one in each of its own contests (core/call/paths.py).
GUEST_ALONE_S, GUEST_TOLD_EVERY_S = 0.3, 3.0
# How often the flow cache hears of a flow again. A million flows are 8,300 writes a second.
CACHE_REFRESH_S = 120.0
_LOOKS_AT_ONCE = 20_000  # about 12 ms; twice a second they keep up with a million flows

_K = TypeVar("_K")


@dataclass(slots=True)
class Guest:
    """Another owner that authentic checks from a bound tuple named.

    Its answers may go out, but never more bytes than came in for it, and media of the tuple stays with the flow's owner. That one gets a
    check of the guest's now and then, in the guest's stead: so it learns that it should ask its client (core/call/paths.py).
    """

    owner: tuple[int, int]
    owner_address: Address
    credit_bytes: int
    told_next_at: float  # when the flow's owner gets one


@dataclass(slots=True)
class Candidate:
    """Another call of a flow's owner that an authentic check named: the flow is its own once the owner has said so."""

    ufrag: bytes
    password: bytes
    transaction_id: bytes  # of its last check


@dataclass(slots=True)
class Flow:
    """One client address and the member that owns it. Times are the caller's clock, in seconds."""

    client: Address
    owner: tuple[int, int]  # slot, generation
    owner_address: Address
    header: bytes  # SPP, built once: in front of every datagram of this flow, in both directions
    ufrag: bytes  # empty: whose call it is nobody has proved to this process yet (adopted, restored)
    password: bytes  # of the ufrag; empty after a change of keys: the next check is verified from its hint
    alive_at: float
    public: str = ""  # our host that the client sends to, where a relay that listens on all knows it
    # How long it lives after its last evidence, where that is less than the idle time: its owner's last word ended the call,
    # or the flow was restored and its owner has not said a word yet.
    patience_s: float | None = None
    checks_due: float = 0.0  # when its failed checks are paid for (core/relay/own_checks.py)
    candidates: list[Candidate] | None = None
    packets_in: int = 0
    packets_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    guest: Guest | None = None
    bare: Address | None = (
        None  # where its media comes from at the owner, if the kernel carries it (core/relay/bypass.py)
    )
    awaits_owner: bool = False  # `bare` is announced, and no answer came yet
    alias: bytes | None = None  # another header that its owner answers under: a transceiver of before
    looks: int = 0  # how often it was found alive
    name: bytes = b""  # the client's address as the public socket spells it, once `FlowTable.name` noted it


class FlowTable:
    """Flows by client address and by SPP header. A flow is forgotten ``idle_s`` after its last evidence of life.

    A held flow's client, owner and header never change, its ufrag through `rename` only; the rest may be written directly.
    """

    def __init__(self, max_flows: int, idle_s: float, released: Callable[[Flow], None] = lambda _: None) -> None:
        """``released`` is told of each flow with `bare` that is forgotten."""
        self.max_flows = max_flows
        self.idle_s = idle_s
        self.evidence_until = float("inf")
        self._released = released
        self.by_client: dict[Address, Flow] = {}
        self.by_header: dict[bytes, Flow] = {}
        self.by_name: dict[
            bytes, Flow
        ] = {}  # those of `by_client` whose client's sockaddr is known (core/relay/batches.py)
        self._of_ufrag: FlowsOfCalls[Flow] = FlowsOfCalls()
        self._of_owner: Counter[tuple[tuple[int, int], Address]] = Counter()
        # A flow is looked at once per idle period, not once per sweep: a million flows cost 33,000 looks a second.
        self._due: dict[int, list[Flow]] = {}
        # Flows that the flow cache should hear of; None: nobody writes one.
        self.unwritten: deque[Flow] | None = None
        self._looks_per_write = max(1, round(CACHE_REFRESH_S / idle_s)) if idle_s else 1

    def __len__(self) -> int:
        return len(self.by_client)

    def __iter__(self) -> Iterator[Flow]:
        return iter(self.by_client.values())

    def owners(self) -> Iterable[tuple[tuple[int, int], Address]]:
        """Return each owner that holds a flow, and where it is."""
        return self._of_owner

    def is_live(self, flow: Flow, now: float) -> bool:
        """Say whether there was evidence of life within the idle time, or after a goodbye a much shorter one."""
        if flow.bare is not None:
            now = min(now, self.evidence_until)
        return now - flow.alive_at < (self.idle_s if flow.patience_s is None else flow.patience_s)

    def any_live(self, now: float) -> bool:
        """Say whether anybody would miss this table."""
        return any(self.is_live(flow, now) for flow in self)

    @property
    def full(self) -> bool:
        """Say whether there is no room for another flow."""
        return len(self.by_client) >= self.max_flows

    def make_room(self, ufrag: bytes) -> bool:
        """Forget a call's longest silent flow if it has as many as it may; True if there was one to forget."""
        surplus = self._of_ufrag.surplus(ufrag)
        if surplus is not None:
            self.forget(surplus)
        return surplus is not None

    def add(self, flow: Flow) -> None:
        """Hold a flow from now on."""
        self.by_client[flow.client] = flow
        self.by_header[flow.header] = flow
        self._of_ufrag.add(flow)
        self._of_owner[flow.owner, flow.owner_address] += 1
        self._look_again(flow, flow.alive_at)
        if self.unwritten is not None:
            self.unwritten.append(flow)

    def give_alias(self, flow: Flow, header: bytes) -> None:
        """Take its owner's packets under another header, too."""
        flow.alias = header
        self.by_header[header] = flow

    def name(self, flow: Flow, name: bytes) -> None:
        """Note how the public socket spells the client of a held flow."""
        if flow.name:
            del self.by_name[flow.name]
        flow.name = name
        self.by_name[name] = flow

    def rename(self, flow: Flow, ufrag: bytes) -> None:
        """Note that another call of the same owner uses the flow now."""
        self._of_ufrag.remove(flow)
        flow.ufrag = ufrag
        self._of_ufrag.add(flow)

    def forget(self, flow: Flow) -> None:
        """Hold it no longer."""
        del self.by_client[flow.client]
        del self.by_header[flow.header]
        if flow.name:
            del self.by_name[flow.name]
        if flow.alias is not None:
            self.by_header.pop(flow.alias, None)
        if flow.bare is not None:
            self._released(flow)
        self._of_ufrag.remove(flow)
        _discount(self._of_owner, (flow.owner, flow.owner_address))

    def deadline(self) -> float | None:
        """When `expire` has something to look at; None while there is no flow."""
        return min(self._due) if self._due else None

    def expire(self, now: float) -> int:
        """Forget flows whose time has come; gives how many. Looks at so many at most that no packet waits for it."""
        forgotten = looks = 0
        for second in sorted(second for second in self._due if second <= now):
            flows = self._due[second]
            while flows and looks < _LOOKS_AT_ONCE:
                looks += 1
                flow = flows.pop()
                if self.by_client.get(flow.client) is not flow:
                    continue
                if self.is_live(flow, now):
                    self._look_again(flow, now)
                    flow.looks += 1
                    if self.unwritten is not None and flow.looks % self._looks_per_write == 0:
                        self.unwritten.append(flow)
                else:
                    self.forget(flow)
                    forgotten += 1
            if not flows:
                del self._due[second]
        return forgotten

    def _look_again(self, flow: Flow, now: float) -> None:
        self._due.setdefault(max(int(flow.alive_at + self.idle_s), int(now)) + 1, []).append(flow)


def _discount(counter: Counter[_K], key: _K) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]

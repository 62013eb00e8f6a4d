"""Recovery: flows that other relays, or an earlier life of this one, held. The relay's side of the flow cache. Sans-IO.

::

    media of no flow ─▶ lookups.hold ─▶ (shell: one MGET) ─▶ answered ─▶ a flow; announced to its owner; what was held follows
    flows: new, and each now and then ─▶ records ─▶ (shell: one write for many)

An answer is believed as far as it is authentic, names a member of the topology in its present generation, and nobody
has bound the client meanwhile. The flow that comes of it is on trial (core/relay/relay.py, rule 6).

An announcement is the second outlet of a relay, kept apart from the packet path (docs/adr/0016): one for each
restored flow, to a member of the topology, never to the outside.

Owns: what an answer is worth, announcements, and what the cache hears. Does not own: the bounds on questions
(core/relay/lookups.py), Redis (shell/relay/flow_cache.py).
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from voicefleet_contract.addresses import Address
from voicefleet_contract.announcement import Addressee, encode_announcement
from voicefleet_contract.cached_flow import CachedFlowError, cached_flow_name, decode_cached_flow, encode_cached_flow
from voicefleet_contract.drops import DropReason
from voicefleet_contract.spp import encode_spp
from voicefleet_contract.topology import MemberState
from voicefleet_dataplane.core.relay.flow import GOODBYE_S, Flow
from voicefleet_dataplane.core.relay.lookups import Held, LookupOutcome, Lookups
from voicefleet_dataplane.core.relay.relay import Forward, Relay


@dataclass(slots=True)
class Recovered:
    """What may go out after the cache has answered: announcements and packets to owners, packets to clients."""

    inward: list[Forward] = field(default_factory=list)
    outward: list[Forward] = field(default_factory=list)


class Recovery:
    """The flow cache of one relay, which from now on holds and asks instead of dropping at once."""

    def __init__(self, relay: Relay, lookups: Lookups | None = None) -> None:
        self.lookups = relay.lookups = Lookups() if lookups is None else lookups
        self.announced = 0
        self._relay = relay
        self._unwritten = relay.flows.unwritten = deque[Flow](relay.flows)

    def names(self, clients: Iterable[Address]) -> list[str]:
        """Return the names under which the cache holds clients."""
        topology, keys = self._relay.topology, self._relay.keys
        assert topology is not None, "without a topology nothing is held, so nothing is asked"
        return [cached_flow_name(client, topology.cluster, keys) for client in clients]

    def answered(
        self, clients: Sequence[Address], records: Iterable[bytes | None], now: float, unix_ms: int
    ) -> Recovered:
        """Take the cache's answers to the questions of ``lookups``; send what comes back."""
        out = Recovered()
        for client, record in zip(clients, records, strict=True):
            if client in self._relay.flows.by_client:
                outcome = LookupOutcome.BOUND_MEANWHILE
            else:
                outcome = self._restore(client, record, out, now, unix_ms)
            self._release(client, self.lookups.take_held(client, outcome, now), out, now)
        return out

    def unanswered(self, clients: Iterable[Address], now: float) -> None:
        """Give questions up that the cache did not answer, and drop what was held for them."""
        for client in clients:
            self._drop(self.lookups.take_held(client, LookupOutcome.FAILED, now))

    def records(self, most: int) -> list[tuple[str, bytes]]:
        """Return what the cache should hear now: (name, record) of flows that are new, and now and then of each."""
        topology, keys, held = self._relay.topology, self._relay.keys, self._relay.flows.by_client
        found: list[tuple[str, bytes]] = []
        while self._unwritten and len(found) < most and topology is not None:
            flow = self._unwritten.popleft()
            if held.get(flow.client) is flow and flow.patience_s is None:  # on trial, or over: not worth remembering
                name = cached_flow_name(flow.client, topology.cluster, keys)
                found.append((name, encode_cached_flow(flow.client, flow.owner, topology.cluster, keys)))
        return found

    def forget_records(self) -> None:
        """Keep nothing for a cache that is away."""
        self._unwritten.clear()

    def remember_all(self) -> None:
        """Tell the cache of every flow again, as if each were new: it may have come back empty."""
        self._unwritten.extend(self._relay.flows)

    def _restore(
        self, client: Address, record: bytes | None, out: Recovered, now: float, unix_ms: int
    ) -> LookupOutcome:
        relay, topology = self._relay, self._relay.topology
        if record is None or topology is None:
            return LookupOutcome.UNKNOWN
        try:
            slot, generation = decode_cached_flow(record, client, topology.cluster, relay.keys)
        except CachedFlowError:
            return LookupOutcome.NOT_AUTHENTIC
        member = topology.member(slot, generation)
        if member is None or member.state is MemberState.GONE:
            return LookupOutcome.OWNER_GONE
        if relay.flows.full:
            return LookupOutcome.NO_ROOM
        header = encode_spp(client, relay.inner)
        owner, address = relay.place_of(member)
        relay.flows.add(Flow(client, owner, address, header, b"", b"", now, patience_s=GOODBYE_S))
        to = Addressee(topology.cluster, slot, generation)
        out.inward.append((encode_announcement(header, to, unix_ms, relay.keys), address))
        self.announced += 1
        return LookupOutcome.RESTORED

    def _release(self, client: Address, held: Held, out: Recovered, now: float) -> None:
        """Let the relay judge what was held, as if it came now; of a client that is still unknown it is dropped."""
        if client not in self._relay.flows.by_client:
            self._drop(held)
            return
        for packet in held.inward:
            verdict = self._relay.receive_outside(packet, client, now)
            if isinstance(verdict, tuple):
                out.inward.append(verdict)
        header = encode_spp(client, self._relay.inner)
        for packet, owner in held.outward:
            verdict = self._relay.receive_inside(header + packet, owner, now)
            if isinstance(verdict, tuple):
                out.outward.append(verdict)

    def _drop(self, held: Held) -> None:
        self._relay.drops[DropReason.FLOW_UNKNOWN] += held.packets

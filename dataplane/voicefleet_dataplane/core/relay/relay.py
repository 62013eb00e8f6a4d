"""The relay: which datagram goes where, and which one nowhere.

::

                 outside                                   inside
    client ──── STUN check ────▶ hint → owner; tag and  ── SPP + check ──▶ owner
                                 MESSAGE-INTEGRITY; binds the flow
    client ──── DTLS, RTP … ───▶ the flow's owner       ── SPP + … ──────▶ owner
             (an answer to a check of the owner's, too)
    client ◀─── … ────────────── the flow in the header ◀─ SPP + … ─────── owner

It reads the ufrag of STUN checks and ends no protocol: no ICE, no DTLS, no codec. All it knows of a call is its flow,
and the next check builds that anew, or the flow cache sooner, so a relay may be killed in mid-call. Of everything
else it reads the first byte, and of owners' answers to checks whose call they are of (core/relay/owner_words.py).

The rules, each of which has a test by its name in tests/unit/test_relay.py:

1. **Every check is routed by its own hint**, after the hint's tag (a filter) and MESSAGE-INTEGRITY under the password derived
   from the hint (proof) verify. Who sends many that fail is not looked at any more (core/relay/check_limits.py). Nothing outside this
   process is asked: only media of a flow that is not here asks the cache (core/relay/lookups.py), and what that says gives way to
   the first check.
2. **Media follows the flow, and a live flow is not rebound.** A valid caller of owner B who spoofs the address of a client
   of owner A gets a check through to B and nothing else: the tuple's media stays with A until A ended the call, under the password of
   the call that the flow is known to be of, or the flow is idle. Meanwhile B is a `Guest`: its STUN answers go out, at most as many bytes as came in for it. Were they kept back, a
   client that really has two calls on one tuple would never be told; were more let out, B could talk to a stranger. One in three seconds
   of B's checks goes to A instead, who asks its client whether it is there still, and ends the call if nobody is.
3. **Outside, only to flows that we hold, only from their owner.** Whoever spoofs a member reaches no stranger.
4. **A flow lives on evidence** (core/relay/flow.py), room is bounded, and a live flow is never evicted for a new one of another call.
5. **A relay originates nothing.** One datagram in is at most one datagram out, and outside it is never longer. The one
   exception goes inside: a restored flow is announced to its owner, once, under a MAC.
6. **A restored flow is on trial** until its owner has said a word: it gives way to a check as a flow does whose owner refused
   it. So a cache that is wrong costs no more than an empty one.
7. **A dropped datagram moves exactly one counter** and gets silence.

Media may go past it through the kernel (core/relay/bypass.py), which repeats what was decided here for a bound flow: the
rules hold there for the same reasons. Checks and DTLS always come by here.

What this does not stop: a valid caller who guesses a tuple that a victim will use only later can bind it first and
hold it with more checks, for as long as its own call lasts. The victim's checks are answered all the while, its media
goes to the wrong owner, which drops it: that call fails and nothing is heard. A NAT's next port has to be guessed for
each victim.

Owns: flows and these rules. Does not own: whom a ufrag names (core/relay/named_owner.py), sockets, clocks, where topology
and keys come from (shell/relay/process.py).
"""

from dataclasses import dataclass

from voicefleet_contract.addresses import Address
from voicefleet_contract.drops import DropReason
from voicefleet_contract.keys import KeyRing
from voicefleet_contract.spp import HEADER_BYTES, LARGEST_DATAGRAM_BYTES, SppError, decode_spp, encode_spp
from voicefleet_contract.topology import Member, MemberState, TopologyIndex
from voicefleet_dataplane.core.relay.bypass import Bypass
from voicefleet_dataplane.core.relay.check_limits import CheckLimits
from voicefleet_dataplane.core.relay.flow import GUEST_ALONE_S, GUEST_TOLD_EVERY_S, Flow, FlowTable, Guest
from voicefleet_dataplane.core.relay.lookups import Lookups
from voicefleet_dataplane.core.relay.named_owner import named_owner
from voicefleet_dataplane.core.relay.own_checks import give_own_check_back, is_of, take_own_check
from voicefleet_dataplane.core.relay.owner_words import hear, note_candidate
from voicefleet_dataplane.wire.demux import Kind, classify
from voicefleet_dataplane.wire.dtls_record import ALERT
from voicefleet_dataplane.wire.stun import StunError, is_response, parse_binding_request, verify_integrity

Forward = tuple[bytes, Address]  # the datagram and where to; a plain tuple, since one is made per packet
Verdict = Forward | DropReason | None  # None: held until the flow cache has answered, and counted then


@dataclass(slots=True)
class Traffic:
    """What was forwarded in one direction: clients' datagrams, without SPP."""

    packets: int = 0
    bytes: int = 0


class Relay:
    """Feed datagrams and time in; send what comes back. Verdicts are returned, not queued (docs/adr/0007)."""

    def __init__(
        self, inner: Address, keys: KeyRing, *, max_flows: int, idle_s: float, limits: CheckLimits | None = None
    ) -> None:
        self.inner = inner  # our address on the inner network: what SPP headers name
        self.flows = FlowTable(max_flows, idle_s, self._released)
        self.bypass: Bypass | None = None
        self.drops = dict.fromkeys(DropReason, 0)
        self.inward, self.outward = Traffic(), Traffic()
        self.flows_bound = 0
        self.flows_expired = 0
        self.lookups: Lookups | None = None  # set by core/relay/recovery.py where there is a flow cache
        self._limits = limits or CheckLimits()  # none
        self._keys = keys
        self._topology: TopologyIndex | None = None
        self._places: dict[tuple[int, int], tuple[tuple[int, int], Address]] = {}

    # ---- packets

    def receive_outside(self, data: bytes, client: Address, now: float, public: str = "") -> Verdict:
        """Take a datagram from the public socket; ``public`` is our host that it came to, if that is one of several.

        A DropReason has been counted already.
        """
        verdict = self._from_client(data, client, now, public)
        if isinstance(verdict, tuple):
            self.inward.packets += 1
            self.inward.bytes += len(data)
        elif verdict is not None:
            self.drops[verdict] += 1
        return verdict

    def receive_inside(self, data: bytes, source: Address, now: float) -> Verdict:
        """Take a datagram from the inner socket. A DropReason has been counted already."""
        verdict = self._from_owner(data, source, now)
        if isinstance(verdict, tuple):
            self.outward.packets += 1
            self.outward.bytes += len(verdict[0])
        elif verdict is not None:
            self.drops[verdict] += 1
        return verdict

    def _from_client(self, data: bytes, client: Address, now: float, public: str) -> Verdict:
        if not data:
            return DropReason.EMPTY
        if len(data) > LARGEST_DATAGRAM_BYTES:
            return DropReason.TOO_LONG
        kind = classify(data)
        if kind is Kind.STUN and not is_response(data):
            return self._check(data, client, now, public)
        if kind is Kind.UNKNOWN or kind is Kind.SPP:
            return DropReason.UNKNOWN_KIND
        flow = self.flows.by_client.get(client)
        if flow is None:
            if kind is Kind.STUN:
                return DropReason.STUN_NOT_REQUEST
            if self.lookups is None or self._topology is None:
                return DropReason.FLOW_UNKNOWN
            return self.lookups.hold(client, data, None, now)
        flow.packets_in += 1
        flow.bytes_in += len(data)
        return flow.header + data, flow.owner_address

    def _from_owner(self, data: bytes, source: Address, now: float) -> Verdict:
        flow = self.flows.by_header.get(data[:HEADER_BYTES])
        if flow is None or flow.owner_address != source:
            return self._from_other_than_owner(data, source, flow, now)
        payload = data[HEADER_BYTES:]
        if not payload:
            return DropReason.EMPTY
        if payload[0] > ALERT:  # media; what may decide something has a lower first byte
            flow.alive_at, flow.patience_s = now, None
        elif hear(self.flows, flow, payload, now) and flow.awaits_owner and self.bypass is not None:
            # An answer under our own address: the owner has understood where bare media comes from.
            flow.awaits_owner = False
            self.bypass.open(flow)
        flow.packets_out += 1
        flow.bytes_out += len(payload)
        return payload, flow.client

    # ---- checks: the only packets that decide anything

    def _check(self, data: bytes, client: Address, now: float, public: str) -> Forward | DropReason:
        flow = self.flows.by_client.get(client)
        # What says that it is a check of the flow's own call is let past the limits: calls live on it.
        own = flow is not None and is_of(flow, data) and take_own_check(flow, now)
        if not own:
            refusal = self._limits.admit_check(client, now)
            if refusal is not None:
                return refusal
        try:
            request = parse_binding_request(data)
        except StunError as error:
            return error.reason
        if flow is not None and flow.password and request.server_ufrag == flow.ufrag:
            member, password = None, flow.password
        else:
            owner = named_owner(request.server_ufrag, self._topology, self._keys)
            if isinstance(owner, DropReason):
                return owner
            member, password = owner
        if not verify_integrity(request, password):
            return DropReason.STUN_BAD_INTEGRITY
        if own and flow is not None:
            give_own_check_back(flow)
        else:
            self._limits.check_was_authentic(client)
        if flow is not None and (member is None or flow.owner == (member.slot, member.generation)):
            if request.server_ufrag == flow.ufrag:
                flow.password = password
                if flow.patience_s is None:
                    flow.alive_at = now
                return self._forward_check(flow, data, public)
            if self.flows.is_live(flow, now):
                note_candidate(flow, request.server_ufrag, password, request.transaction_id)
                return self._forward_check(flow, data, public)
        assert member is not None  # else the check would be of the flow's own call
        if flow is not None and self.flows.is_live(flow, now):
            return self._forward_guest(flow, member, data, now)
        bound = self._hold(flow, client, member, request.server_ufrag, password, now)
        return bound if isinstance(bound, DropReason) else self._forward_check(bound, data, public)

    def _hold(
        self, before: Flow | None, client: Address, member: Member, ufrag: bytes, password: bytes, now: float
    ) -> Flow | DropReason:
        """Return a new flow to the member that an authentic check named."""
        refusal = DropReason.FLOW_TABLE_FULL if self.flows.full else self._limits.admit_flow(client, now)
        if refusal is not None:
            return refusal
        if before is not None:
            self.flows.forget(before)
        self.flows_expired += self.flows.make_room(ufrag)
        return self._bind(client, member, ufrag, password, now)

    def _bind(self, client: Address, member: Member, ufrag: bytes, password: bytes, now: float) -> Flow:
        owner, address = self.place_of(member)
        flow = Flow(client, owner, address, encode_spp(client, self.inner), ufrag, password, now)
        self.flows.add(flow)
        self.flows_bound += 1
        return flow

    def place_of(self, member: Member) -> tuple[tuple[int, int], Address]:
        """Return a flow's owner and where it is: one pair of objects for all flows of an owner."""
        key = member.slot, member.generation
        return self._places.setdefault(key, (key, member.as_address()))

    def _forward_check(self, flow: Flow, data: bytes, public: str) -> Forward:
        flow.packets_in += 1
        flow.bytes_in += len(data)
        if flow.public != public:
            self._stop_bypass(flow)  # its rules have the other address on them
            flow.public = public
        if self.bypass is None or flow.alias is not None:
            return flow.header + data, flow.owner_address
        if flow.bare is None:
            flow.bare = self.bypass.announce(flow)
            flow.awaits_owner = flow.bare is not None
        header = flow.header if flow.bare is None else encode_spp(flow.client, flow.bare)
        return header + data, flow.owner_address

    def _forward_guest(self, flow: Flow, member: Member, data: bytes, now: float) -> Forward:
        owner, guest = (member.slot, member.generation), flow.guest
        if guest is None or guest.owner != owner:
            guest = flow.guest = Guest(owner, member.as_address(), 0, now + GUEST_ALONE_S)
        if now >= guest.told_next_at:
            guest.told_next_at = now + GUEST_TOLD_EVERY_S
            return flow.header + data, flow.owner_address
        guest.credit_bytes += len(data)
        return flow.header + data, guest.owner_address

    # ---- the inner side, off the straight path

    def _from_other_than_owner(self, data: bytes, source: Address, flow: Flow | None, now: float) -> Verdict:
        if self._topology is None or self._topology.member_at(source) is None:
            return DropReason.SPP_FROM_STRANGER
        if flow is None:
            try:
                client, relay = decode_spp(data)
            except SppError:
                return DropReason.SPP_MALFORMED
            if relay != self.inner:
                announced = self.flows.by_client.get(client)
                if announced is not None and announced.bare == relay and announced.owner_address == source:
                    return self._keep_headers(announced, data, source, now)
                return DropReason.SPP_WRONG_RELAY
            payload = data[HEADER_BYTES:]
            if self.lookups is None or not payload:
                return DropReason.FLOW_UNKNOWN
            return self.lookups.hold(client, payload, source, now)
        payload = data[HEADER_BYTES:]
        guest = flow.guest
        if guest is None or guest.owner_address != source or classify(payload) is not Kind.STUN:
            return DropReason.FLOW_OF_ANOTHER_OWNER
        if len(payload) > guest.credit_bytes:
            return DropReason.FLOW_OF_ANOTHER_OWNER
        guest.credit_bytes -= len(payload)
        return payload, flow.client

    def _keep_headers(self, flow: Flow, data: bytes, source: Address, now: float) -> Verdict:
        """An answer under the header that we announced with: its owner is of before, or has that port from another relay."""
        self._stop_bypass(flow)
        self.flows.give_alias(flow, data[:HEADER_BYTES])
        return self._from_owner(data, source, now)

    def _stop_bypass(self, flow: Flow) -> None:
        if flow.bare is not None:
            self._released(flow)
            flow.bare, flow.awaits_owner = None, False

    def _released(self, flow: Flow) -> None:
        if self.bypass is not None:
            self.bypass.close(flow)

    # ---- what the kernel did meanwhile

    def adopt(
        self,
        client: Address,
        owner: tuple[int, int],
        owner_address: Address,
        bare: Address,
        now: float,
        *,
        awaits_owner: bool,
    ) -> Flow | None:
        """Hold a flow that a predecessor bound; None when there is no room.

        Whose call it is we shall know at its next check, which is verified from its hint. It lives on one idle time.
        """
        if client in self.flows.by_client or self.flows.full:
            return None
        flow = Flow(client, owner, owner_address, encode_spp(client, self.inner), b"", b"", now)
        flow.bare, flow.awaits_owner = bare, awaits_owner
        self.flows.add(flow)
        return flow

    def account(self, flow: Flow, packets: int, size_bytes: int, last_at: float, *, inward: bool) -> None:
        """Note what the kernel carried for a flow since the last time, and when it last did."""
        traffic = self.inward if inward else self.outward
        traffic.packets += packets
        traffic.bytes += size_bytes
        if inward:
            flow.packets_in += packets
            flow.bytes_in += size_bytes
            return
        flow.packets_out += packets
        flow.bytes_out += size_bytes
        if last_at > flow.alive_at:
            flow.alive_at, flow.patience_s = last_at, None  # it had more to say

    # ---- what changes under the packets

    def set_topology(self, topology: TopologyIndex) -> None:
        """Work from another topology: flows whose owner is not at its address any more are forgotten at once."""
        self._topology = topology
        self._places.clear()
        gone = set()
        for owner, address in self.flows.owners():  # few owners, many flows
            member = topology.member(*owner)
            if member is None or member.state is MemberState.GONE or member.as_address() != address:
                gone.add((owner, address))
        for flow in list(self.flows) if gone else ():
            if (flow.owner, flow.owner_address) in gone:
                self.flows.forget(flow)

    def set_keys(self, keys: KeyRing) -> None:
        """Verify with other keys: flows stay, and the next check of each must verify under them."""
        self._keys = keys
        for flow in self.flows:
            flow.password, flow.candidates = b"", None

    @property
    def keys(self) -> KeyRing:
        """The keys in use."""
        return self._keys

    @property
    def topology(self) -> TopologyIndex | None:
        """The topology in use."""
        return self._topology

    # ---- time

    def deadline(self) -> float | None:
        """When `advance` has something to do; None while there is no flow."""
        return self.flows.deadline()

    def advance(self, now: float) -> None:
        """Forget flows whose time has come."""
        self.flows_expired += self.flows.expire(now)

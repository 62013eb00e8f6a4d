"""Media, checks, answers of an honest, empty, late or lying cache, topologies and time, in any order.

What must hold whatever happens: one verdict for each packet, one owner for a flow that is alive, nothing outside without a
flow, announcements inside only and one for each restored flow, and memory within its bounds.
"""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.unit.test_relay import ALICE, INNER, KEYS, MALLORY, OTHER_KEYS, OWNER_A, OWNER_B, RTP, check, topology, ufrag
from voicefleet_contract.addresses import Address
from voicefleet_contract.cached_flow import encode_cached_flow
from voicefleet_contract.drops import DropReason
from voicefleet_contract.spp import HEADER_BYTES, encode_spp
from voicefleet_contract.topology import MemberState
from voicefleet_dataplane.core.relay import lookups as bounds
from voicefleet_dataplane.core.relay.lookups import Lookups
from voicefleet_dataplane.core.relay.recovery import Recovery
from voicefleet_dataplane.core.relay.relay import Relay

CLUSTER = 9
MAX_FLOWS = 2
CLIENTS = [ALICE, Address("2001:db8::1", 1), MALLORY]
OWNERS = {OWNER_A: (1, 1), OWNER_B: (2, 7)}

clients = st.sampled_from(CLIENTS)
owners = st.sampled_from(list(OWNERS))


def a_check(owner: Address) -> bytes:
    slot, generation = OWNERS[owner]
    return check(ufrag(slot=slot, generation=generation))


class RelayWithCache(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.relay = Relay(INNER, KEYS, max_flows=MAX_FLOWS, idle_s=30.0)
        self.relay.set_topology(topology())
        self.recovery = Recovery(self.relay, Lookups(per_s=5, burst=3))
        self.now, self.came, self.went, self.announced = 0.0, 0, 0, 0
        self.asked: list[Address] = []
        self.cache: dict[Address, bytes] = {}
        self.proven: dict[Address, tuple[Address, float]] = {}  # client → who must own it, and until when

    def verdict(self, verdict: object) -> None:
        self.came += 1
        if isinstance(verdict, tuple):
            self.went += 1
        self.asked += self.recovery.lookups.take_questions(1)

    def note_owner_spoke(self, client: Address, owner: Address) -> None:
        self.proven[client] = (owner, self.now + self.relay.flows.idle_s)

    @rule(client=clients)
    def media_comes(self, client: Address) -> None:
        verdict = self.relay.receive_outside(RTP, client, self.now)
        if isinstance(verdict, tuple):
            assert verdict[1] in OWNERS
        self.verdict(verdict)

    @rule(client=clients, owner=owners)
    def a_check_comes(self, client: Address, owner: Address) -> None:
        verdict = self.relay.receive_outside(a_check(owner), client, self.now)
        if isinstance(verdict, tuple):
            known, until = self.proven.get(client, (owner, 0.0))
            holder = self.relay.flows.by_client[client].owner_address
            assert verdict[1] in {
                owner,
                holder,
            }  # each check by its own hint, or to the holder: its address is contested
            assert holder == known or self.now >= until  # a live flow is not rebound
            flow = self.relay.flows.by_client[client]
            if holder == owner and flow.ufrag and flow.patience_s is None:  # its own call's
                self.note_owner_spoke(client, owner)
        self.verdict(verdict)

    @rule(client=clients, owner=owners)
    def an_owner_speaks(self, client: Address, owner: Address) -> None:
        flow = self.relay.flows.by_client.get(client)
        verdict = self.relay.receive_inside(encode_spp(client, INNER) + RTP, owner, self.now)
        if isinstance(verdict, tuple):
            assert flow is not None
            assert flow.owner_address == owner
            assert verdict == (RTP, client)
            self.note_owner_spoke(client, owner)
        self.verdict(verdict)

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def the_cache_answers(self, data: st.DataObject) -> None:
        asked, self.asked = self.asked, []
        records = [data.draw(self.records(client)) for client in asked]
        before = {client: flow.owner for client, flow in self.relay.flows.by_client.items()}
        out = self.recovery.answered(asked, records, self.now, 1)
        restored = self.relay.flows.by_client.keys() - before.keys()
        announcements = [datagram for datagram, _ in out.inward if datagram[HEADER_BYTES] == 0x56]
        assert len(announcements) == len(restored)
        for datagram, to in out.inward:
            assert to in OWNERS
            assert datagram[:HEADER_BYTES] in self.relay.flows.by_header
        for datagram, to in out.outward:
            assert self.relay.flows.by_client[to].packets_out  # a flow, and of the owner that sent it
            assert datagram == RTP
            self.note_owner_spoke(to, self.relay.flows.by_client[to].owner_address)
        assert {client: self.relay.flows.by_client[client].owner for client in before} == before
        self.went += len(out.inward) - len(announcements) + len(out.outward)
        self.announced += len(announcements)

    def records(self, client: Address) -> st.SearchStrategy[bytes | None]:
        lies = [
            encode_cached_flow(client, (1, 1), CLUSTER, OTHER_KEYS),
            encode_cached_flow(client, (1, 2), CLUSTER, KEYS),
            encode_cached_flow(CLIENTS[0], (1, 1), CLUSTER, KEYS),
        ]
        honest = [encode_cached_flow(client, owner, CLUSTER, KEYS) for owner in OWNERS.values()]
        return st.sampled_from([self.cache.get(client), None, *honest, *lies, b"", b"?" * 16])

    @precondition(lambda self: self.asked)
    @rule()
    def the_cache_is_away(self) -> None:
        asked, self.asked = self.asked, []
        self.recovery.unanswered(asked, self.now)

    @rule()
    def the_cache_is_written(self) -> None:
        held = list(self.relay.flows)
        records = self.recovery.records(100)
        assert len(records) <= len(held)
        self.cache |= {
            f.client: encode_cached_flow(f.client, f.owner, CLUSTER, KEYS) for f in held if f.patience_s is None
        }

    @rule(pause=st.sampled_from([0.001, 1.5, 31.0]))
    def time_passes(self, pause: float) -> None:
        self.now += pause
        self.relay.advance(self.now)

    @rule(state=st.sampled_from([MemberState.ACTIVE, MemberState.GONE]))
    def the_topology_changes(self, state: MemberState) -> None:
        self.relay.set_topology(topology(state))
        if state is MemberState.GONE:
            self.proven = {client: said for client, said in self.proven.items() if said[0] != OWNER_A}

    @invariant()
    def a_flow_whose_owner_has_spoken_keeps_its_owner(self) -> None:
        for client, (owner, until) in self.proven.items():
            flow = self.relay.flows.by_client.get(client)
            if self.now < until and flow is not None:
                assert flow.owner_address == owner

    @invariant()
    def every_packet_went_or_waits_or_moved_one_counter(self) -> None:
        waiting = sum(held.packets for held in self.recovery.lookups._pending.values())
        assert self.came == self.went + waiting + sum(self.relay.drops.values())
        assert self.went == self.relay.inward.packets + self.relay.outward.packets

    @invariant()
    def memory_is_bounded(self) -> None:
        lookups = self.recovery.lookups
        assert len(self.relay.flows) <= MAX_FLOWS
        assert len(lookups) <= bounds.MOST_PENDING
        assert set(self.asked) == lookups._pending.keys()
        assert lookups._held == sum(held.packets for held in lookups._pending.values())
        assert all(held.packets <= 2 * bounds.HELD_A_WAY for held in lookups._pending.values())
        assert self.recovery.announced == self.announced
        assert DropReason.SEND_FAILED in self.relay.drops


TestRelayWithCache = RelayWithCache.TestCase


@given(st.lists(st.tuples(clients, st.floats(0, 0.2)), max_size=60))
def test_questions_never_exceed_their_rate(history: list[tuple[Address, float]]) -> None:
    relay, now, asked = Relay(INNER, KEYS, max_flows=MAX_FLOWS, idle_s=30.0), 0.0, 0
    relay.set_topology(topology())
    recovery = Recovery(relay, Lookups(per_s=4, burst=2))
    for client, pause in history:
        now += pause
        relay.receive_outside(RTP, client, now)
        questions = recovery.lookups.take_questions(10)
        recovery.answered(questions, [None] * len(questions), now - 10.0, 1)  # so long ago that nobody is remembered
        asked += len(questions)
    assert asked <= 2 + 4 * now + 1e-6

"""Which rules a flow has, and how what they carried comes into the books: over a fast path that is a dictionary."""

import pytest

from tests.unit.test_relay import ALICE, INNER, OWNER_A, a_relay, check, ufrag
from voicefleet_contract.addresses import Address
from voicefleet_dataplane.core.relay.bypass import FlowPorts
from voicefleet_dataplane.fastpath.engine import NullFastPath
from voicefleet_dataplane.fastpath.maps import Carried, Ends, How
from voicefleet_dataplane.fastpath.netlink import Way
from voicefleet_dataplane.shell.relay import kernel_path as relay_kernel_path
from voicefleet_dataplane.shell.relay.kernel_path import KernelPath

PUBLIC = Address("192.0.2.1", 3478)
PORTS = range(20_000, 20_100)


class Kernel(NullFastPath):
    """Rules, and what they have carried."""

    def __init__(self, local=()):
        super().__init__("a test")
        self.held = {}
        self.local = local
        self.batch = 2

    def way(self, host):
        return Way(host in self.local, 1, PUBLIC.host)

    def put(self, rule):
        self.held[rule.seen.encode()] = [rule, Carried(0, 0, 0)]

    def drop(self, rule):
        return self.held.pop(rule.seen.encode())[1]

    def rules(self):
        return [tuple(one) for one in self.held.values()]

    def carried(self):
        entries = [(key, carried) for key, (_, carried) in self.held.items()]
        for at in range(0, len(entries), self.batch):
            yield entries[at : at + self.batch]

    def carry(self, how_many, *, to, at=1.0):
        """Let every rule that leads there carry so many more packets of 100 bytes."""
        for one in self.held.values():
            if one[0].to.destination == to:
                packets = one[1].packets + how_many
                one[1] = Carried(packets, 100 * packets, int(at * 1e9))


def bind(relay, client, nonce=1):
    relay.receive_outside(check(ufrag(nonce=nonce)), client, 0.0)
    return relay.flows.by_client[client]


def a_path(public=PUBLIC, **kernel):
    relay, engine = a_relay(), Kernel(**kernel)
    relay.bypass = KernelPath(relay, engine, public, FlowPorts(PORTS))
    return relay, engine, relay.bypass


def test_a_flow_has_a_rule_each_way_and_none_when_it_is_gone():
    relay, engine, path = a_path()
    flow = bind(relay, ALICE)
    path.open(flow)
    bare = Address(INNER.host, PORTS.start)
    assert [(rule.seen, rule.to, rule.how) for rule, _ in engine.rules()] == [
        (Ends(flow.owner_address, bare), Ends(PUBLIC, ALICE), How.FORWARD),
        (Ends(ALICE, PUBLIC), Ends(bare, flow.owner_address), How.FORWARD),
    ]
    assert len(path) == 2
    relay.flows.forget(flow)
    assert (engine.rules(), len(path)) == ([], 0)


def test_rules_have_the_address_that_the_client_sends_to_and_follow_it():
    relay, engine, path = a_path(public=Address("0.0.0.0", PUBLIC.port))
    for host in ("192.0.2.77", "192.0.2.78"):
        relay.receive_outside(check(), ALICE, 0.0, host)
        flow = relay.flows.by_client[ALICE]
        path.open(flow)
        outward, inward = (rule for rule, _ in engine.rules())
        assert outward.to == Ends(Address(host, PUBLIC.port), ALICE)
        assert inward.seen == Ends(ALICE, Address(host, PUBLIC.port))
    relay.receive_outside(check(), ALICE, 0.0, host)
    assert [rule for rule, _ in engine.rules()] == [outward, inward]  # nothing has changed
    relay.flows.forget(flow)
    assert engine.rules() == []


def test_an_owner_on_this_node_is_delivered_to():
    relay, engine, path = a_path(local=(OWNER_A.host,))
    path.open(bind(relay, ALICE))
    assert [rule.how for rule, _ in engine.rules()] == [How.RETURN, How.DELIVER]


@pytest.mark.parametrize("port", [ALICE.port, PUBLIC.port])
async def test_what_rules_carried_is_accounted_for_once_each_way(port):
    relay, engine, path = a_path()
    client = ALICE._replace(port=port)
    flow = bind(relay, client)
    path.open(flow)
    before = flow.packets_in, flow.packets_out
    engine.carry(5, to=flow.owner_address)
    engine.carry(3, to=client, at=50.0)
    for now in (100.0, 200.0):
        await path.tend(now)
    assert (flow.packets_in - before[0], flow.packets_out - before[1]) == (5, 3)
    assert (relay.outward.packets, relay.outward.bytes, flow.alive_at) == (3, 300, 50.0)
    engine.carry(2, to=client)
    relay.flows.forget(flow)
    assert relay.outward.packets == 5


async def test_a_sweep_that_takes_long_goes_on_at_the_next_call_and_proves_what_was_at_its_beginning(monkeypatch):
    monkeypatch.setattr(relay_kernel_path, "_SWEEP_AT_ONCE_S", -1.0)
    relay, engine, path = a_path()
    flows = [bind(relay, ALICE._replace(port=1_000 + number), number) for number in range(6)]
    for flow in flows:
        engine.carry(1, to=flow.client)
    await path.tend(100.0)
    assert (relay.outward.packets, relay.flows.evidence_until) == (2, float("inf"))
    late = bind(relay, ALICE)
    for now in (100.5, 101.0):
        await path.tend(now)
    assert relay.outward.packets == 6
    await path.tend(101.5)
    assert relay.flows.evidence_until == 100.0
    engine.carry(1, to=late.client)
    await path.tend(102.0)
    assert relay.outward.packets == 6  # not yet due
    for now in (105.0, 105.5, 106.0, 106.5, 107.0):
        await path.tend(now)
    assert relay.outward.packets == 7
    assert relay.flows.evidence_until == 105.0


def test_a_successor_knows_the_flow_again_and_counts_on():
    relay, engine, path = a_path()
    flow = bind(relay, ALICE)
    path.open(flow)
    engine.carry(4, to=ALICE)
    after = a_relay()
    after.bypass = successor = KernelPath(after, engine, PUBLIC, FlowPorts(PORTS))
    assert successor.adopt(0.0) == 1
    [adopted] = after.flows
    assert (adopted.client, adopted.bare, adopted.awaits_owner) == (ALICE, flow.bare, False)
    engine.carry(2, to=ALICE)
    after.flows.forget(adopted)
    assert after.outward.packets == 2
    assert engine.rules() == []

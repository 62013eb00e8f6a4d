"""A batch gives what its datagrams would have given one by one: the same bytes to the same places, the same counters."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from tests.property.test_relay_property import events
from tests.unit.test_relay import ALICE, INNER, MALLORY, OWNER_A, OWNER_B, RTP, a_relay, check, topology, ufrag
from voicefleet_contract.addresses import Address
from voicefleet_contract.drops import DropReason
from voicefleet_contract.spp import HEADER_BYTES, encode_spp
from voicefleet_contract.topology import MemberState
from voicefleet_dataplane.core.relay.batches import NAME_BYTES, SLOT_BYTES, Batch, Inward, Outward
from voicefleet_dataplane.core.relay.relay import Relay
from voicefleet_dataplane.wire.pktinfo import CONTROL_BYTES
from voicefleet_dataplane.wire.sockaddr import IPV4_FAMILY, IPV6_FAMILY, build_sockaddr, parse_sockaddr, sockaddr_bytes
from voicefleet_dataplane.wire.stun import FORBIDDEN, build_binding_error

COUNT = 8


@dataclass
class Memory:
    """A batch as the kernel would fill and empty it."""

    batch: Batch
    read_at: int
    send_from: int

    def fill(self, datagrams, family):
        for index, (data, source) in enumerate(datagrams):
            start, name = index * SLOT_BYTES + self.read_at, build_sockaddr(source, family)
            self.batch.slots[start : start + len(data)] = data
            self.batch.names[index * NAME_BYTES : index * NAME_BYTES + len(name)] = name
        return [len(data) for data, _ in datagrams]

    def sent(self, index, family):
        start = index * SLOT_BYTES + self.send_from
        name = index * NAME_BYTES
        return (
            bytes(self.batch.slots[start : start + self.batch.lengths[index]]),
            parse_sockaddr(bytes(self.batch.targets[name : name + sockaddr_bytes(family)])),
        )


def memory(read_at, send_from):
    sizes = SLOT_BYTES, NAME_BYTES, NAME_BYTES, CONTROL_BYTES, CONTROL_BYTES
    slots, names, targets, arrivals, departures = (memoryview(bytearray(COUNT * size)) for size in sizes)
    lengths = memoryview(bytearray(COUNT * 4)).cast("I")
    return Memory(Batch(slots, names, targets, lengths, arrivals, departures), read_at, send_from)


class Batched:
    def __init__(self, relay: Relay, public: int, inner: int) -> None:
        self.relay, self.public, self.inner_family = relay, public, inner
        self.inward, self.outward = memory(HEADER_BYTES, 0), memory(0, HEADER_BYTES)
        self._inward = Inward(relay, self.inward.batch, public, inner)
        self._outward = Outward(relay, self.outward.batch, inner, public)

    def run(self, outside, datagrams, now):
        """Return for each datagram what was sent, or None."""
        direction, room, family, target = (
            (self._inward, self.inward, self.public, self.inner_family)
            if outside
            else (self._outward, self.outward, self.inner_family, self.public)
        )
        nothing = direction.run(room.fill(datagrams, family), now)
        return [None if index in nothing else room.sent(index, target) for index in range(len(datagrams))]


# Mostly what belongs together, so that flows are made and used; the rest is in `events`.
headers = st.sampled_from([encode_spp(client, INNER) for client in (ALICE, MALLORY)])
REFUSAL = build_binding_error(b"t" * 12, FORBIDDEN, b"k")
tails = st.sampled_from([RTP, b"", b"\x15\xfe\xfd" + bytes(20), check(), REFUSAL, REFUSAL[:1], b"\xff"])
plausible = st.tuples(
    st.just(True),
    st.one_of(
        st.sampled_from([check(), check(ufrag(slot=2, generation=7)), RTP]),
        tails,
        st.tuples(headers, tails).map(b"".join),
    ),
    st.sampled_from([ALICE, MALLORY, OWNER_A, OWNER_B]),
    st.just(0.0),
)
batches = st.lists(st.one_of(plausible, plausible, events), min_size=1, max_size=COUNT)


def fits(address: Address, family: int) -> bool:
    return family == IPV6_FAMILY or ":" not in address.host


def same(one: Relay, other: Relay) -> None:
    assert one.drops == other.drops
    assert (one.inward, one.outward) == (other.inward, other.outward)
    flows = [{flow.client: (flow.owner, flow.alive_at, flow.patience_s, flow.ufrag, flow.packets_in, flow.packets_out, flow.bytes_in,
                            flow.bytes_out) for flow in relay.flows} for relay in (one, other)]  # fmt: skip
    assert flows[0] == flows[1]
    assert set(other.flows.by_name) == {flow.name for flow in other.flows if flow.name}


@given(
    st.lists(st.tuples(st.booleans(), batches, st.floats(0, 20)), max_size=12),
    st.sampled_from([IPV4_FAMILY, IPV6_FAMILY]),
    st.sampled_from([IPV4_FAMILY, IPV6_FAMILY]),
)
def test_a_batch_is_its_datagrams_one_by_one(history, public, inner):
    single, now = a_relay(max_flows=2), 0.0
    batched = Batched(a_relay(max_flows=2), public, inner)
    for outside, batch, pause in history:
        now += pause
        single.advance(now)
        batched.relay.advance(now)
        datagrams = [(data, source) for _, data, source, _ in batch if fits(source, public if outside else inner)]
        receive = single.receive_outside if outside else single.receive_inside
        verdicts = [receive(data, source, now) for data, source in datagrams]
        expected = [verdict if isinstance(verdict, tuple) else None for verdict in verdicts]
        assert batched.run(outside, datagrams, now) == expected
        same(single, batched.relay)


def test_media_stops_with_its_flow_whoever_took_it_away():
    batched = Batched(a_relay(), IPV4_FAMILY, IPV4_FAMILY)
    assert batched.run(True, [(check(), MALLORY), (RTP, MALLORY)], 0.0)[1] is not None
    batched.relay.set_topology(topology(MemberState.GONE))
    assert batched.run(True, [(RTP, MALLORY)], 0.1) == [None]
    assert batched.relay.flows.by_name == {}


def test_media_of_a_bound_flow_asks_the_relay_nothing(monkeypatch):
    batched = Batched(a_relay(), IPV4_FAMILY, IPV4_FAMILY)
    batched.run(True, [(check(), MALLORY)], 0.0)
    monkeypatch.delattr(Relay, "receive_outside")
    monkeypatch.delattr(Relay, "receive_inside")
    header = encode_spp(MALLORY, INNER)
    assert batched.run(True, [(RTP, MALLORY)], 0.1) == [(header + RTP, OWNER_A)]
    assert batched.run(False, [(header + RTP, OWNER_A)], 0.1) == [(RTP, MALLORY)]


def test_a_header_with_nothing_behind_it_is_an_empty_datagram():
    batched = Batched(a_relay(), IPV4_FAMILY, IPV4_FAMILY)
    batched.run(True, [(check(), MALLORY)], 0.0)
    assert batched.run(False, [(encode_spp(MALLORY, INNER), OWNER_A)], 0.1) == [None]
    assert batched.relay.drops[DropReason.EMPTY] == 1

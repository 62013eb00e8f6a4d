"""Whatever arrives, in whatever order: one counter per drop, no byte to a stranger, never more out than in."""

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_relay import ALICE, INNER, MALLORY, OWNER_A, OWNER_B, RTP, a_relay, check, topology, ufrag
from voicefleet_contract.addresses import Address
from voicefleet_contract.spp import HEADER_BYTES, encode_spp

CLIENTS = [ALICE, MALLORY, Address("2001:db8::1", 1)]
packets = st.one_of(
    st.binary(max_size=120),
    st.sampled_from([check(), check(ufrag(slot=2, generation=7)), check(password="no"), RTP]),
    st.binary(max_size=60).map(lambda tail: check()[:20] + tail),
    st.sampled_from(CLIENTS).map(lambda client: encode_spp(client, INNER) + RTP),
)
events = st.tuples(st.booleans(), packets, st.sampled_from([*CLIENTS, OWNER_A, OWNER_B]), st.floats(0, 20))


@given(st.lists(events, max_size=40))
def test_every_datagram_is_forwarded_once_or_counted_once(history: list[tuple[bool, bytes, Address, float]]) -> None:
    relay, now, dropped = a_relay(max_flows=2), 0.0, 0
    came_in: set[Address] = set()
    for outside, data, source, pause in history:
        now += pause
        relay.advance(now)
        verdict = relay.receive_outside(data, source, now) if outside else relay.receive_inside(data, source, now)
        if not isinstance(verdict, tuple):
            dropped += 1
        elif outside:
            came_in.add(source)
            assert verdict[0][HEADER_BYTES:] == data
            assert topology().member_at(verdict[1]) is not None  # only to members
        else:
            assert verdict[1] in came_in  # only to who sent an authentic check
            assert len(verdict[0]) < len(data)
            assert source in (OWNER_A, OWNER_B)
        assert len(relay.flows) <= 2
        assert len(relay.flows.by_header) == len(relay.flows)
        assert relay.flows._of_ufrag.total() == relay.flows._of_owner.total() == len(relay.flows)
    assert sum(relay.drops.values()) == dropped
    assert relay.inward.packets + relay.outward.packets + dropped == len(history)

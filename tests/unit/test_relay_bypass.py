"""What the relay's core asks of the kernel path, and when: for flows that a check bound, and in once the owner understood."""

import pytest

from tests.unit.test_relay import (
    ALICE,
    DTLS,
    IDLE_S,
    INNER,
    KEYS,
    MALLORY,
    OWNER_A,
    OWNER_B,
    RTP,
    a_relay,
    bound,
    check,
    moved,
    topology,
    ufrag,
)
from voicefleet_contract.addresses import Address
from voicefleet_contract.drops import DropReason
from voicefleet_contract.hint import ice_pwd
from voicefleet_contract.spp import HEADER_BYTES, decode_spp, encode_spp
from voicefleet_contract.topology import MemberState
from voicefleet_dataplane.core.relay.bypass import FlowPorts
from voicefleet_dataplane.core.relay.flow import ALERT_S
from voicefleet_dataplane.wire.stun import FORBIDDEN, build_binding_error, build_binding_success

PORT = Address(INNER.host, 40_001)
ANSWER = build_binding_success(b"t" * 12, ALICE, b"k")
REFUSAL = build_binding_error(b"t" * 12, FORBIDDEN, ice_pwd(ufrag(), 1, KEYS).encode())


class Kernel:
    """A kernel path that says what it was asked for."""

    def __init__(self, *ports):
        self.ports = list(ports)
        self.asked = []

    def announce(self, flow):
        self.asked.append(("announce", flow.client))
        return self.ports.pop(0) if self.ports else None

    def open(self, flow):
        self.asked.append(("open", flow.client))

    def close(self, flow):
        self.asked.append(("close", flow.client))


@pytest.fixture
def kernel():
    return Kernel(PORT, PORT._replace(port=40_002))


@pytest.fixture
def relay(kernel):
    relay = a_relay()
    relay.bypass = kernel
    return relay


def test_a_check_that_binds_announces_where_bare_media_will_come_from(relay, kernel):
    datagram, to = relay.receive_outside(check(), ALICE, 0.0)
    assert (decode_spp(datagram), to) == ((ALICE, PORT), OWNER_A)
    assert kernel.asked == [("announce", ALICE)]


def test_an_answer_under_our_own_address_opens_the_way_in_once(relay, kernel):
    bound(relay)
    for now in (0.1, 0.2):
        assert relay.receive_inside(encode_spp(ALICE, INNER) + ANSWER, OWNER_A, now) == (ANSWER, ALICE)
    assert kernel.asked == [("announce", ALICE), ("open", ALICE)]
    datagram, _ = relay.receive_outside(check(transaction=b"u" * 12), ALICE, 2.5)
    assert decode_spp(datagram) == (ALICE, PORT)
    assert len(kernel.asked) == 2


def test_only_the_owner_of_the_flow_and_only_an_answer_opens_it(relay, kernel):
    bound(relay)
    header = encode_spp(ALICE, INNER)
    relay.receive_inside(header + ANSWER, OWNER_B, 0.1)
    relay.receive_inside(header + ANSWER, MALLORY, 0.1)
    relay.receive_inside(header + RTP, OWNER_A, 0.1)
    relay.receive_inside(header + DTLS, OWNER_A, 0.1)
    assert kernel.asked == [("announce", ALICE)]


def test_an_answer_under_the_header_that_came_closes_it_for_good(relay, kernel):
    bound(relay)
    echoed = encode_spp(ALICE, PORT)
    assert relay.receive_inside(echoed + ANSWER, OWNER_A, 0.1) == (ANSWER, ALICE)
    assert kernel.asked == [("announce", ALICE), ("close", ALICE)]
    assert relay.receive_inside(echoed + RTP, OWNER_A, 0.2) == (RTP, ALICE)  # as it does until the next check
    datagram, _ = relay.receive_outside(check(transaction=b"u" * 12), ALICE, 2.5)
    assert decode_spp(datagram) == (ALICE, INNER)
    assert relay.receive_inside(encode_spp(ALICE, INNER) + ANSWER, OWNER_A, 2.6) == (ANSWER, ALICE)
    assert len(kernel.asked) == 2
    assert moved(relay) == {}


def test_a_refusal_opens_no_way_in(relay, kernel):
    """Of a call that is over; the next call of this client may have one."""
    bound(relay)
    assert relay.receive_inside(encode_spp(ALICE, INNER) + REFUSAL, OWNER_A, 0.1) == (REFUSAL, ALICE)
    assert kernel.asked == [("announce", ALICE)]
    relay.receive_inside(encode_spp(ALICE, INNER) + ANSWER, OWNER_A, 0.2)
    assert kernel.asked == [("announce", ALICE), ("open", ALICE)]


def test_a_header_that_nobody_announced_reaches_nobody(relay):
    bound(relay)
    for source, header in ((OWNER_A, encode_spp(ALICE, PORT._replace(port=1))), (OWNER_B, encode_spp(ALICE, PORT))):
        assert relay.receive_inside(header + ANSWER, source, 0.1) is DropReason.SPP_WRONG_RELAY


def test_a_check_that_is_not_authentic_announces_nothing(relay, kernel):
    relay.receive_outside(check(password="wrong"), ALICE, 0.0)
    assert kernel.asked == []


def test_a_guest_gets_no_way_past_the_process(relay, kernel):
    bound(relay)
    datagram, to = relay.receive_outside(check(ufrag(slot=2, generation=7)), ALICE, 0.1)
    assert (decode_spp(datagram), to) == ((ALICE, INNER), OWNER_B)
    assert kernel.asked == [("announce", ALICE)]


@pytest.mark.parametrize("how", ["idle", "goodbye", "gone"])
def test_a_flow_that_is_forgotten_is_closed(relay, kernel, how):
    bound(relay)
    relay.flows.evidence_until = 0.0
    if how == "idle":
        relay.flows.evidence_until = 100.0
        relay.advance(2 * IDLE_S)
    elif how == "goodbye":
        relay.receive_inside(encode_spp(ALICE, INNER) + b"\x15\xfe\xfd" + bytes(20), OWNER_A, 0.1)
        relay.flows.evidence_until = 10.0
        relay.receive_outside(check(ufrag(slot=2, generation=7)), ALICE, 9.0)
    else:
        relay.set_topology(topology(MemberState.GONE))
    assert ("close", ALICE) in kernel.asked


def test_a_flow_that_the_kernel_cannot_take_asks_again_with_its_next_check(relay, kernel):
    kernel.ports.clear()
    bound(relay)
    kernel.ports.append(PORT)
    datagram, _ = relay.receive_outside(check(transaction=b"u" * 12), ALICE, 2.5)
    assert decode_spp(datagram) == (ALICE, PORT)


# ---- liveness: what the kernel carried counts as if it had come by


def test_a_flow_is_judged_by_what_is_known_of_it(relay):
    bound(relay)
    relay.flows.evidence_until = IDLE_S - 1
    relay.advance(2 * IDLE_S)
    assert len(relay.flows) == 1
    relay.flows.evidence_until = 2 * IDLE_S + 1
    relay.advance(2 * IDLE_S + 2)
    assert len(relay.flows) == 0


def test_media_of_the_owner_in_the_kernel_keeps_a_flow_and_media_of_the_client_does_not(relay):
    bound(relay)
    bound(relay, MALLORY)
    relay.account(relay.flows.by_client[ALICE], 5, 500, 20.0, inward=False)
    relay.account(relay.flows.by_client[MALLORY], 5, 500, 20.0, inward=True)
    relay.flows.evidence_until = 40.0
    relay.advance(40.0)
    assert list(relay.flows.by_client) == [ALICE]
    flow = relay.flows.by_client[ALICE]
    assert (flow.packets_out, flow.bytes_out) == (5, 500)


def test_an_alert_frees_the_tuple_unless_the_owner_sent_on_in_the_kernel(relay):
    bound(relay)
    flow = relay.flows.by_client[ALICE]
    relay.receive_inside(encode_spp(ALICE, INNER) + b"\x15\xfe\xfd" + bytes(20), OWNER_A, 1.0)
    relay.account(flow, 1, 100, 0.9, inward=False)
    assert flow.patience_s == ALERT_S
    relay.account(flow, 1, 100, 1.5, inward=False)
    assert flow.patience_s is None


def test_an_adopted_flow_forwards_at_once_and_is_verified_at_its_next_check(relay, kernel):
    flow = relay.adopt(ALICE, (1, 1), OWNER_A, PORT, 0.0, awaits_owner=False)
    assert relay.receive_outside(DTLS, ALICE, 0.1) == (encode_spp(ALICE, INNER) + DTLS, OWNER_A)
    assert relay.receive_outside(check(password="wrong"), ALICE, 0.2) is DropReason.STUN_BAD_INTEGRITY
    datagram, to = relay.receive_outside(check(), ALICE, 0.3)
    assert (decode_spp(datagram), datagram[HEADER_BYTES:], to) == ((ALICE, PORT), check(), OWNER_A)
    assert flow.ufrag == b""  # anybody with a call of this owner could have sent that
    answer = build_binding_success(b"t" * 12, ALICE, ice_pwd(ufrag(), 1, KEYS).encode())
    relay.receive_inside(encode_spp(ALICE, INNER) + answer, OWNER_A, 0.4)
    assert flow.ufrag == ufrag().encode()
    assert kernel.asked == []


def test_an_adopted_flow_of_an_owner_that_left_meanwhile_is_closed_with_the_first_topology(relay, kernel):
    relay.adopt(ALICE, (1, 9), OWNER_A, PORT, 0.0, awaits_owner=False)
    relay.set_topology(topology())
    assert kernel.asked == [("close", ALICE)]


def test_no_more_flows_are_adopted_than_there_is_room_for(kernel):
    relay = a_relay(max_flows=1)
    assert relay.adopt(ALICE, (1, 1), OWNER_A, PORT, 0.0, awaits_owner=False) is not None
    assert relay.adopt(MALLORY, (1, 1), OWNER_A, PORT, 0.0, awaits_owner=False) is None


# ---- flow ports


def test_an_owners_ports_are_given_out_in_turn_and_given_back_ones_last():
    ports = FlowPorts(range(10, 13))
    assert [ports.take(OWNER_A) for _ in range(3)] == [10, 11, 12]
    assert ports.take(OWNER_A) is None
    assert ports.take(OWNER_B) == 10
    ports.give_back(OWNER_A, 11)
    ports.give_back(OWNER_A, 10)
    assert [ports.take(OWNER_A), ports.take(OWNER_A)] == [10, 11]


def test_a_port_that_was_just_given_back_rests():
    ports = FlowPorts(range(10, 13))
    ports.claim(OWNER_A, 11)
    assert ports.take(OWNER_A) == 10
    ports.give_back(OWNER_A, 10)
    assert ports.take(OWNER_A) == 12


def test_relays_of_one_node_begin_at_different_ports():
    assert FlowPorts(range(10, 20), 13).take(OWNER_A) == 13

"""The relay's rules, one by one, against a virtual clock. Addresses are documentation prefixes."""

import pytest

from voicefleet_contract.addresses import Address
from voicefleet_contract.drops import DropReason
from voicefleet_contract.hint import Hint, encode_hint, ice_pwd
from voicefleet_contract.keys import KeyRing
from voicefleet_contract.spp import HEADER_BYTES, decode_spp, encode_spp
from voicefleet_contract.topology import Member, MemberState, Pool, Topology, TopologyIndex
from voicefleet_dataplane.core.relay.flow import ALERT_S, GOODBYE_S
from voicefleet_dataplane.core.relay.flows_of_calls import MAX_FLOWS_PER_UFRAG
from voicefleet_dataplane.core.relay.relay import Relay
from voicefleet_dataplane.wire.stun import (
    FORBIDDEN,
    build_binding_error,
    build_binding_request,
    build_binding_success,
)

KEYS = KeyRing({1: b"k" * 32}, signing=1)
OTHER_KEYS = KeyRing({1: b"x" * 32}, signing=1)
INNER = Address("10.0.0.1", 3479)
ALICE, MALLORY = Address("198.51.100.1", 40000), Address("203.0.113.66", 666)
OWNER_A, OWNER_B = Address("10.0.0.10", 20000), Address("10.0.0.11", 20001)
B = Member(slot=2, generation=7, address=OWNER_B.host, port=OWNER_B.port)
RTP = b"\x80\x6f" + bytes(160)
DTLS = b"\x16\xfe\xfd" + bytes(60)
IDLE_S = 30.0


def topology(state_a: MemberState = MemberState.ACTIVE) -> TopologyIndex:
    members = (
        Member(slot=1, generation=1, address=OWNER_A.host, port=OWNER_A.port, state=state_a),
        B,
    )
    return TopologyIndex(Topology(cluster=9, pools=(Pool(name="agents", members=members),)))


def ufrag(slot: int = 1, generation: int = 1, nonce: int = 5, cluster: int = 9, keys: KeyRing = KEYS) -> str:
    return encode_hint(Hint(1, cluster, slot, generation, nonce), keys)


def check(name: str | None = None, password: str | None = None, transaction: bytes = b"t" * 12) -> bytes:
    name = ufrag() if name is None else name
    key = ice_pwd(name, 1, KEYS) if password is None else password
    return build_binding_request(transaction, f"{name}:cccc", key.encode())


def a_relay(max_flows: int = 100) -> Relay:
    relay = Relay(INNER, KEYS, max_flows=max_flows, idle_s=IDLE_S)
    relay.set_topology(topology())
    return relay


@pytest.fixture
def relay() -> Relay:
    return a_relay()


def moved(relay: Relay) -> dict[DropReason, int]:
    return {reason: count for reason, count in relay.drops.items() if count}


def bound(relay: Relay, client: Address = ALICE, now: float = 0.0, name: str | None = None) -> Relay:
    assert isinstance(relay.receive_outside(check(name), client, now), tuple)
    return relay


# ---- the straight path


def test_a_check_goes_to_the_owner_that_its_hint_names_behind_a_header_with_the_true_client(relay: Relay) -> None:
    packet = check()
    datagram, destination = relay.receive_outside(packet, ALICE, 0.0)
    assert destination == OWNER_A
    assert decode_spp(datagram) == (ALICE, INNER)
    assert datagram[HEADER_BYTES:] == packet


@pytest.mark.parametrize("packet", [RTP, DTLS, b"\x80\xc8" + bytes(40)])
def test_what_is_not_stun_follows_the_flow(relay: Relay, packet: bytes) -> None:
    bound(relay)
    assert relay.receive_outside(packet, ALICE, 0.1) == (encode_spp(ALICE, INNER) + packet, OWNER_A)
    assert relay.receive_inside(encode_spp(ALICE, INNER) + packet, OWNER_A, 0.2) == (packet, ALICE)
    assert moved(relay) == {}


def test_ipv6_clients_are_carried_too(relay: Relay) -> None:
    client = Address("2001:db8::7", 5000)
    bound(relay, client)
    assert relay.receive_inside(encode_spp(client, INNER) + RTP, OWNER_A, 0.1) == (RTP, client)


def test_an_answer_to_a_check_of_the_owners_follows_the_flow_and_proves_nothing(relay: Relay) -> None:
    answer = build_binding_success(b"t" * 12, INNER, b"the client's own")
    assert relay.receive_outside(answer, ALICE, 0.0) is DropReason.STUN_NOT_REQUEST
    bound(relay)
    asked = encode_spp(ALICE, INNER) + build_binding_request(b"t" * 12, "them:us", b"the client's own")
    assert relay.receive_inside(asked, OWNER_A, 0.1) == (asked[HEADER_BYTES:], ALICE)
    assert relay.receive_outside(answer, ALICE, IDLE_S) == (encode_spp(ALICE, INNER) + answer, OWNER_A)
    assert not relay.flows.is_live(relay.flows.by_client[ALICE], 0.1 + IDLE_S)


# ---- rule 1: authentic checks only, each by its own hint


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"", DropReason.EMPTY),
        (b"\x80" + bytes(1500), DropReason.TOO_LONG),
        (b"\xff" * 40, DropReason.UNKNOWN_KIND),
        (encode_spp(ALICE, INNER) + RTP, DropReason.UNKNOWN_KIND),
        (b"\x00\x01" + bytes(18), DropReason.STUN_MALFORMED),
        (build_binding_success(b"t" * 12, ALICE, b"k"), DropReason.STUN_NOT_REQUEST),
        (check("short"), DropReason.HINT_MALFORMED),
        (check("A" * 24), DropReason.HINT_VERSION),
        (check(ufrag()[:-1] + ("A" if ufrag()[-1] != "A" else "B")), DropReason.HINT_TAG),
        (check(ufrag(keys=OTHER_KEYS)), DropReason.HINT_TAG),
        (check(encode_hint(Hint(2, 9, 1, 1, 1), KeyRing({2: b"k" * 32}, 2)), "p"), DropReason.HINT_KEY_EPOCH),
        (check(password="wrong"), DropReason.STUN_BAD_INTEGRITY),
        (build_binding_request(b"t" * 12, f"{ufrag()}:cccc", None), DropReason.STUN_BAD_INTEGRITY),
        (check(ufrag(cluster=10)), DropReason.HINT_OTHER_CLUSTER),
        (check(ufrag(slot=3)), DropReason.OWNER_UNKNOWN),
        (check(ufrag(generation=2)), DropReason.OWNER_UNKNOWN),
        (RTP, DropReason.FLOW_UNKNOWN),
        (DTLS, DropReason.FLOW_UNKNOWN),
    ],
)
def test_silence_and_one_counter_for(relay: Relay, packet: bytes, reason: DropReason) -> None:
    assert relay.receive_outside(packet, MALLORY, 0.0) is reason
    assert moved(relay) == {reason: 1}
    assert len(relay.flows) == 0


def test_a_consent_check_of_a_bound_flow_must_verify_too(relay: Relay) -> None:
    bound(relay)
    assert relay.receive_outside(check(password="wrong"), ALICE, 1.0) is DropReason.STUN_BAD_INTEGRITY
    assert isinstance(relay.receive_outside(check(), ALICE, 1.0), tuple)


# ---- rule 2: a live flow is not rebound


def test_a_valid_check_from_a_live_victims_tuple_takes_nothing_over(relay: Relay) -> None:
    bound(relay)
    spoofed = check(ufrag(slot=2, generation=7))
    assert relay.receive_outside(spoofed, ALICE, 1.0)[1] == OWNER_B  # the check itself, by its own hint
    assert relay.receive_outside(RTP, ALICE, 1.1)[1] == OWNER_A  # and nothing else
    assert relay.receive_inside(encode_spp(ALICE, INNER) + RTP, OWNER_B, 1.2) is DropReason.FLOW_OF_ANOTHER_OWNER
    assert relay.receive_inside(encode_spp(ALICE, INNER) + RTP, OWNER_A, 1.2) == (RTP, ALICE)


def test_a_guest_answers_checks_with_no_more_bytes_than_came_for_it(relay: Relay) -> None:
    bound(relay)
    spoofed = check(ufrag(slot=2, generation=7))
    answer = encode_spp(ALICE, INNER) + build_binding_success(b"t" * 12, ALICE, b"k")
    relay.receive_outside(spoofed, ALICE, 1.0)
    sent = 0
    while isinstance(verdict := relay.receive_inside(answer, OWNER_B, 1.1), tuple):
        sent += len(verdict[0])
    assert verdict is DropReason.FLOW_OF_ANOTHER_OWNER
    assert 0 < sent <= len(spoofed)


def test_a_guest_may_answer_checks_and_say_nothing_else(relay: Relay) -> None:
    bound(relay)
    relay.receive_outside(check(ufrag(slot=2, generation=7)), ALICE, 1.0)
    for packet in (DTLS, RTP, b""):
        answer = encode_spp(ALICE, INNER) + packet
        assert relay.receive_inside(answer, OWNER_B, 1.1) is DropReason.FLOW_OF_ANOTHER_OWNER


def test_a_guest_keeps_no_flow_alive(relay: Relay) -> None:
    bound(relay)
    answer = encode_spp(ALICE, INNER) + build_binding_success(b"t" * 12, ALICE, b"k")
    for second in range(int(IDLE_S)):
        relay.receive_outside(check(ufrag(slot=2, generation=7)), ALICE, float(second))
        relay.receive_inside(answer, OWNER_B, float(second))
    assert relay.receive_outside(check(ufrag(slot=2, generation=7)), ALICE, IDLE_S)[1] == OWNER_B
    assert relay.receive_inside(encode_spp(ALICE, INNER) + RTP, OWNER_B, IDLE_S) == (RTP, ALICE)


def test_an_idle_tuple_may_go_to_another_owner(relay: Relay) -> None:
    bound(relay)
    other = check(ufrag(slot=2, generation=7))
    assert relay.receive_outside(other, ALICE, IDLE_S)[1] == OWNER_B
    assert relay.receive_outside(RTP, ALICE, IDLE_S)[1] == OWNER_B
    assert len(relay.flows) == 1


def test_the_owners_packets_keep_a_tuple_from_being_idle(relay: Relay) -> None:
    bound(relay)
    relay.receive_inside(encode_spp(ALICE, INNER) + RTP, OWNER_A, IDLE_S - 1)
    relay.receive_outside(check(ufrag(slot=2, generation=7)), ALICE, IDLE_S + 1)
    assert relay.receive_outside(RTP, ALICE, IDLE_S + 1)[1] == OWNER_A


ALERT = encode_spp(ALICE, INNER) + b"\x15\xfe\xfd" + bytes(40)
REFUSAL = encode_spp(ALICE, INNER) + build_binding_error(b"t" * 12, FORBIDDEN, ice_pwd(ufrag(), 1, KEYS).encode())


@pytest.mark.parametrize(
    ("last_words", "after_s"),
    [([ALERT], ALERT_S), ([REFUSAL], GOODBYE_S), ([ALERT, REFUSAL], GOODBYE_S), ([REFUSAL, ALERT], GOODBYE_S)],
    ids=["alert", "refusal", "both", "the other way round"],
)
def test_an_owner_that_said_goodbye_lets_the_tuple_go_soon(
    relay: Relay, last_words: list[bytes], after_s: float
) -> None:
    bound(relay)
    for datagram in last_words:
        relay.receive_inside(datagram, OWNER_A, 1.0)
    assert relay.receive_outside(check(ufrag(slot=2, generation=7)), ALICE, 1.1)[1] == OWNER_B  # as a guest
    assert relay.receive_outside(RTP, ALICE, 1.2)[1] == OWNER_A
    relay.receive_outside(check(ufrag(slot=2, generation=7)), ALICE, 1.0 + after_s)
    assert relay.receive_outside(RTP, ALICE, 1.2 + after_s)[1] == OWNER_B


def test_an_alert_that_is_not_the_last_word_is_no_goodbye(relay: Relay) -> None:
    bound(relay)
    relay.receive_inside(ALERT, OWNER_A, 1.0)
    relay.receive_inside(encode_spp(ALICE, INNER) + RTP, OWNER_A, 1.1)
    relay.receive_outside(check(ufrag(slot=2, generation=7)), ALICE, 1.1 + ALERT_S)
    assert relay.receive_outside(RTP, ALICE, 1.2 + ALERT_S)[1] == OWNER_A


def test_a_clients_alert_or_a_guests_ends_nothing(relay: Relay) -> None:
    bound(relay)
    relay.receive_outside(check(ufrag(slot=2, generation=7)), ALICE, 1.0)
    relay.receive_outside(ALERT[HEADER_BYTES:], ALICE, 1.0)
    assert relay.receive_inside(ALERT, OWNER_B, 1.0) is DropReason.FLOW_OF_ANOTHER_OWNER
    relay.receive_outside(check(ufrag(slot=2, generation=7)), ALICE, 1.0 + ALERT_S)
    assert relay.receive_outside(RTP, ALICE, 1.2 + ALERT_S)[1] == OWNER_A


# ---- rule 3: the inner side


@pytest.mark.parametrize(
    ("packet", "source", "reason"),
    [
        (encode_spp(ALICE, INNER) + RTP, MALLORY, DropReason.SPP_FROM_STRANGER),
        (encode_spp(ALICE, INNER) + RTP, Address(OWNER_A.host, 1), DropReason.SPP_FROM_STRANGER),
        (encode_spp(ALICE, INNER) + RTP, OWNER_B, DropReason.FLOW_OF_ANOTHER_OWNER),
        (encode_spp(MALLORY, INNER) + RTP, OWNER_A, DropReason.FLOW_UNKNOWN),
        (encode_spp(ALICE, Address("10.0.0.2", 3479)) + RTP, OWNER_A, DropReason.SPP_WRONG_RELAY),
        (RTP, OWNER_A, DropReason.SPP_MALFORMED),
        (b"", OWNER_A, DropReason.SPP_MALFORMED),
        (encode_spp(ALICE, INNER), OWNER_A, DropReason.EMPTY),
    ],
)
def test_return_traffic_is_refused_from(relay: Relay, packet: bytes, source: Address, reason: DropReason) -> None:
    bound(relay)
    assert relay.receive_inside(packet, source, 0.1) is reason
    assert moved(relay) == {reason: 1}


# ---- rule 4: flows live on evidence, within a cap


def test_media_alone_keeps_no_flow_alive(relay: Relay) -> None:
    bound(relay)
    for second in range(1, 40):
        relay.receive_outside(RTP, ALICE, float(second))
        relay.advance(float(second))
    assert len(relay.flows) == 0
    assert relay.flows_expired == 1


def test_checks_keep_a_flow_alive_and_silence_ends_it(relay: Relay) -> None:
    bound(relay)
    for second in range(0, 300, 5):
        relay.receive_outside(check(), ALICE, float(second))
        relay.advance(float(second))
    assert len(relay.flows) == 1
    due = relay.deadline()
    while due is not None:
        relay.advance(due)
        due = relay.deadline()
    assert len(relay.flows) == 0
    assert relay.receive_inside(encode_spp(ALICE, INNER) + RTP, OWNER_A, 400.0) is DropReason.FLOW_UNKNOWN


def test_a_full_table_refuses_the_new_flow_and_keeps_the_old_ones() -> None:
    relay = a_relay(max_flows=2)
    first, second = Address("198.51.100.2", 1), Address("198.51.100.2", 2)
    bound(bound(relay, first), second)
    assert relay.receive_outside(check(), ALICE, 0.1) is DropReason.FLOW_TABLE_FULL
    assert isinstance(relay.receive_outside(RTP, first, 0.2), tuple)


def test_one_caller_cannot_fill_the_table_from_many_addresses() -> None:
    relay = a_relay(max_flows=1000)
    bound(relay, name=ufrag(nonce=6))
    for port in range(1, 10 * MAX_FLOWS_PER_UFRAG):
        bound(relay, Address(MALLORY.host, port), now=port / 100)  # each check is answered
    assert moved(relay) == {}
    assert len(relay.flows) == 1 + MAX_FLOWS_PER_UFRAG  # the other call's is never touched
    assert [client.port for client in relay.flows.by_client][1:] == list(range(144, 160))
    assert relay.flows_expired == 9 * MAX_FLOWS_PER_UFRAG - 1


def test_an_address_that_passes_from_call_to_call_counts_for_the_last_one() -> None:
    relay = a_relay(max_flows=1000)
    for port in range(1, MAX_FLOWS_PER_UFRAG + 1):
        client = Address(MALLORY.host, port)
        bound(bound(relay, client), client, name=ufrag(nonce=6))
        answer = build_binding_success(b"t" * 12, client, ice_pwd(ufrag(nonce=6), 1, KEYS).encode())
        relay.receive_inside(encode_spp(client, INNER) + answer, OWNER_A, 0.0)
    assert len(bound(relay).flows) == 1 + MAX_FLOWS_PER_UFRAG
    assert len(bound(relay, MALLORY, name=ufrag(nonce=6), now=0.1).flows) == 1 + MAX_FLOWS_PER_UFRAG


def test_what_was_forwarded_is_counted_without_spp(relay: Relay) -> None:
    bound(relay)
    relay.receive_outside(RTP, ALICE, 0.1)
    relay.receive_inside(encode_spp(ALICE, INNER) + RTP, OWNER_A, 0.1)
    assert (relay.inward.packets, relay.inward.bytes) == (2, len(check()) + len(RTP))
    assert (relay.outward.packets, relay.outward.bytes) == (1, len(RTP))


def test_another_call_on_the_same_tuple_and_owner_keeps_the_flow(relay: Relay) -> None:
    bound(bound(relay), name=ufrag(nonce=6))
    assert len(relay.flows) == 1
    assert relay.flows_bound == 1


# ---- what changes under the packets


def test_before_the_first_topology_nothing_is_bound() -> None:
    relay = Relay(INNER, KEYS, max_flows=1, idle_s=IDLE_S)
    assert relay.receive_outside(check(), ALICE, 0.0) is DropReason.OWNER_UNKNOWN


def test_an_owner_that_is_gone_takes_its_flows_along(relay: Relay) -> None:
    bound(relay)
    relay.set_topology(topology(MemberState.GONE))
    assert relay.receive_outside(RTP, ALICE, 0.1) is DropReason.FLOW_UNKNOWN
    assert relay.receive_outside(check(), ALICE, 0.1) is DropReason.OWNER_GONE


def test_an_owner_that_is_missing_or_elsewhere_takes_its_flows_along_and_only_its_own(relay: Relay) -> None:
    bound(bound(relay), MALLORY, name=ufrag(slot=2, generation=7))
    moved_away = Member(slot=1, generation=1, address="10.0.0.99", port=OWNER_A.port)
    relay.set_topology(TopologyIndex(Topology(cluster=9, pools=(Pool(name="agents", members=(moved_away, B)),))))
    assert relay.receive_outside(RTP, ALICE, 0.1) is DropReason.FLOW_UNKNOWN
    assert relay.receive_outside(check(), ALICE, 0.2)[1] == moved_away.as_address()
    assert relay.receive_outside(RTP, MALLORY, 0.3)[1] == OWNER_B
    relay.set_topology(TopologyIndex(Topology(cluster=9, pools=(Pool(name="agents", members=(B,)),))))
    assert relay.receive_outside(RTP, ALICE, 0.4) is DropReason.FLOW_UNKNOWN
    assert relay.receive_outside(check(), ALICE, 0.4) is DropReason.OWNER_UNKNOWN


@pytest.mark.parametrize("state", [MemberState.DRAINING, MemberState.STARTING])
def test_a_draining_owner_keeps_its_calls(relay: Relay, state: MemberState) -> None:
    bound(relay)
    relay.set_topology(topology(state))
    assert isinstance(relay.receive_outside(RTP, ALICE, 0.1), tuple)
    assert isinstance(relay.receive_outside(check(), ALICE, 0.1), tuple)


def test_retired_keys_end_what_they_signed_at_the_next_check(relay: Relay) -> None:
    bound(relay)
    relay.set_keys(OTHER_KEYS)
    assert isinstance(relay.receive_outside(RTP, ALICE, 0.1), tuple)
    assert relay.receive_outside(check(), ALICE, 0.2) is DropReason.HINT_TAG


def test_a_key_added_beside_the_old_one_disturbs_nothing(relay: Relay) -> None:
    bound(relay)
    relay.set_keys(KeyRing({1: b"k" * 32, 2: b"n" * 32}, signing=2))
    assert isinstance(relay.receive_outside(check(), ALICE, 0.2), tuple)
    assert len(relay.flows) == 1


# ---- ICE restarts: another ufrag of the same owner


def test_after_an_ice_restart_the_same_flow_goes_on_under_the_new_ufrag(relay: Relay) -> None:
    bound(relay)
    restarted = ufrag(nonce=6)
    datagram, destination = relay.receive_outside(check(restarted), ALICE, 0.1)
    assert destination == OWNER_A
    assert datagram[HEADER_BYTES:] == check(restarted)
    assert relay.receive_outside(RTP, ALICE, 0.2) == (encode_spp(ALICE, INNER) + RTP, OWNER_A)
    assert isinstance(relay.receive_outside(check(), ALICE, 0.3), tuple)  # old checks that were under way
    assert len(relay.flows) == 1
    assert moved(relay) == {}


def test_a_client_that_moved_and_restarted_is_led_to_the_same_owner(relay: Relay) -> None:
    bound(relay)
    moved_to = Address("198.51.100.99", 41000)
    _, destination = relay.receive_outside(check(ufrag(nonce=6)), moved_to, 0.1)
    assert destination == OWNER_A
    assert relay.receive_outside(RTP, moved_to, 0.2) == (encode_spp(moved_to, INNER) + RTP, OWNER_A)
    assert relay.receive_outside(RTP, ALICE, 0.2) == (encode_spp(ALICE, INNER) + RTP, OWNER_A)

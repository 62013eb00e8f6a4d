"""Calls of one transceiver in simulated time: who is believed, and where what we send goes."""

import pytest

from tests.support.transceiver import OTHER_RELAY, RELAY, STRANGER, World
from voicefleet_contract.addresses import Address
from voicefleet_contract.drops import DropReason
from voicefleet_contract.spp import HEADER_BYTES, encode_spp
from voicefleet_contract.topology import Topology, TopologyIndex
from voicefleet_dataplane.wire.stun import parse_binding_response

ELSEWHERE = Address("203.0.113.9", 5_555)
VICTIM = Address("198.51.100.77", 41_000)


# ---- who is believed


def test_spp_from_a_stranger_is_dropped_unseen():
    world = World()
    caller = world.connected()
    packet = encode_spp(caller.address, STRANGER) + caller.build_audio()
    assert world.core.receive(packet, STRANGER, world.now) is DropReason.SPP_FROM_STRANGER
    # ... also with the very header of a relay, which is in the table of headers
    packet = encode_spp(caller.address, RELAY) + caller.build_audio()
    assert world.core.receive(packet, STRANGER, world.now) is DropReason.SPP_FROM_STRANGER
    assert world.drain() == []


def test_a_relay_that_left_the_topology_is_a_stranger():
    world = World()
    caller = world.connected()
    assert caller.speak() is None
    world.core.set_topology(TopologyIndex(Topology(cluster=7)))
    assert caller.speak() is DropReason.SPP_FROM_STRANGER


def test_bare_packets_are_taken_only_where_the_setting_says_so():
    assert World().call(relay=None).check() is DropReason.DIRECT_NOT_ACCEPTED
    assert World(accept_direct=True).connected(relay=None, echo=True).speak() is None


def test_media_from_an_address_without_a_check_goes_nowhere():
    caller = World().connected()
    assert caller.send(caller.build_audio(), address=ELSEWHERE) is DropReason.ADDRESS_NOT_CHECKED
    assert caller.send(b"\x16\xfe\xfd" + bytes(10), address=ELSEWHERE) is DropReason.ADDRESS_NOT_CHECKED
    assert caller.session.ice.selected.client == caller.address


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"pwd": "x" * 32}, DropReason.STUN_BAD_INTEGRITY),
        ({"username": "A" * 24 + ":c1ie"}, DropReason.SESSION_UNKNOWN),
        ({"extra": [(0x0026, b"1234")]}, DropReason.STUN_UNKNOWN_ATTRIBUTE),
    ],
)
def test_a_check_that_is_not_authentic_moves_nothing(change, reason):
    caller = World().connected()
    before = caller.session.ice.selected
    assert caller.check(address=ELSEWHERE, **change) is reason
    assert caller.session.ice.selected is before
    assert caller.world.drops() == {reason: 1}
    assert caller.world.drain() == []


def test_a_check_of_another_clients_ufrag_is_refused():
    caller = World().connected()
    assert caller.check(username=f"{caller.server_ufrag}:else") is DropReason.ICE_WRONG_CLIENT


def test_a_client_that_claims_to_be_controlled_is_told_487_and_learns_no_path():
    world = World()
    caller = world.call()
    assert caller.check(ice_controlling=None, ice_controlled=9) is None
    world.settle()
    assert parse_binding_response(caller.answered[0]).error_code == 487
    assert caller.session.ice.paths == {}


def test_a_transaction_seen_from_another_address_moves_nothing_and_gets_no_answer():
    world = World()
    caller = world.connected()
    check = caller.build_check()
    assert caller.send(check) is None
    world.settle()
    answers = len(caller.answered)
    assert caller.send(check, address=ELSEWHERE) is DropReason.ICE_REPLAY
    assert world.drain() == []
    assert caller.session.ice.selected.client == caller.address
    assert caller.send(check) is None  # a retransmission
    world.settle()
    assert len(caller.answered) == answers + 1


def test_an_old_check_replayed_from_its_own_address_does_not_move_the_call_back():
    world = World()
    caller = world.connected()
    old = caller.build_check()
    caller.send(old)
    assert caller.check(address=ELSEWHERE) is None
    assert caller.session.ice.selected.client == ELSEWHERE
    assert caller.send(old) is None
    assert caller.session.ice.selected.client == ELSEWHERE


def test_the_memory_of_transactions_is_as_long_as_stated(monkeypatch):
    monkeypatch.setattr("voicefleet_dataplane.core.call.ice.TRANSACTIONS_REMEMBERED", 5)
    world = World()
    caller = world.connected()
    old = caller.build_check()
    caller.send(old)
    for _ in range(4):
        caller.check()
    assert caller.send(old, address=ELSEWHERE) is DropReason.ICE_REPLAY
    caller.check()
    assert caller.send(old, address=ELSEWHERE) is None
    assert len(caller.session.ice._transactions) == 5


def test_a_valid_caller_cannot_take_a_victims_tuple():
    world = World()
    victim = world.connected(VICTIM, echo=True)
    attacker = world.connected()
    assert attacker.check(address=VICTIM) is DropReason.ICE_TUPLE_TAKEN
    world.settle()
    assert victim.speak(b"still mine") is None
    world.settle()
    assert victim.media[-1].payload == b"still mine"


def test_a_tuple_whose_call_has_ended_is_free():
    world = World()
    first = world.connected(VICTIM)
    assert world.core.calls.hang_up(first.session.agreed.call_id)
    world.settle()
    second = world.connected(VICTIM, echo=True)
    assert second.speak() is None


def test_addresses_of_one_call_are_limited_and_each_authentic_check_is_answered():
    world = World()
    caller = world.connected()
    for port in range(1, 50):
        world.pass_time(0.1)
        address = Address("203.0.113.1", port)
        world.clients[address] = caller
        assert caller.check(address=address, nominate=False) is None
        world.settle()
        assert caller.session.ice.selected.client == caller.address
    assert len(caller.answered) == 50
    assert [path.port for path in caller.session.ice.paths][1:] == list(range(43, 50))
    assert set(world.core._routes.by_client) == set(caller.session.ice.paths)


def test_a_check_of_a_call_that_ended_is_named_so():
    world = World()
    caller = world.connected()
    world.core.calls.hang_up(caller.session.agreed.call_id)
    assert caller.check() is DropReason.SESSION_ENDED


# ---- the return path


def test_before_nomination_the_first_checked_address_gets_the_packets():
    world = World()
    caller = world.call()
    caller.check(nominate=False)
    caller.check(address=ELSEWHERE, nominate=False)
    assert caller.session.ice.selected.client == caller.address


def test_the_call_follows_the_nominated_address():
    world = World()
    caller = world.connected(echo=True)
    assert caller.check(address=ELSEWHERE) is None
    world.clients[ELSEWHERE] = caller
    world.drain()
    assert caller.send(caller.build_audio(), address=ELSEWHERE) is None
    ((datagram, destination),) = world.drain()
    assert destination == RELAY
    assert datagram[:HEADER_BYTES] == encode_spp(ELSEWHERE, RELAY)


def test_the_call_follows_its_flow_to_another_relay():
    world = World()
    caller = world.connected(echo=True)
    assert caller.check(relay=OTHER_RELAY) is None
    world.drain()
    assert caller.send(caller.build_audio(), relay=OTHER_RELAY) is None
    ((datagram, destination),) = world.drain()
    assert destination == OTHER_RELAY
    assert datagram[:HEADER_BYTES] == encode_spp(caller.address, OTHER_RELAY)


def test_media_through_another_relay_does_not_move_the_return_path():
    world = World()
    caller = world.connected(echo=True)
    assert caller.send(caller.build_audio(), relay=OTHER_RELAY) is None
    ((_, destination),) = world.drain()
    assert destination == RELAY

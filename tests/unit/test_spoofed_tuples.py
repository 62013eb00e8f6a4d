"""Who has calls of his own and spoofs a client's address: he neither takes over, names nor ends that client's flow."""

import pytest

from tests.support.relayed_calls import ATTACKER, OWNERS, Fleet
from tests.support.transceiver import CLIENT, HINT_KEYS, World
from voicefleet_contract.addresses import Address
from voicefleet_contract.drops import DropReason
from voicefleet_contract.spp import encode_spp
from voicefleet_dataplane.core.relay.flow import ALERT_S, GOODBYE_S
from voicefleet_dataplane.core.relay.own_checks import OWN_CHECKS_AT_ONCE, OWN_CHECKS_PER_S
from voicefleet_dataplane.wire.stun import SOFTWARE, build_binding_request

ALERT = b"\x15\xfe\xfd" + bytes(40)
ELSEWHERE = Address("203.0.113.67", 667)


def ended_call(fleet, slot):
    """A call of the attacker's that is over; what it knows serves on."""
    world = fleet.worlds[slot]
    caller = world.connected(ATTACKER)
    world.core.calls.hang_up(caller.session.agreed.call_id)
    fleet.settle()
    return caller


# ---- a refusal


def test_a_call_that_is_over_is_refused_over_no_tuple_that_another_call_holds():
    world = World()
    victim = world.connected(CLIENT)
    attacker = world.connected(ATTACKER)
    world.core.calls.hang_up(attacker.session.agreed.call_id)
    world.settle()
    victim.answered.clear()
    assert attacker.check(address=CLIENT) is DropReason.ICE_TUPLE_TAKEN
    world.settle()
    assert victim.answered == []
    assert attacker.check() is DropReason.SESSION_ENDED  # its own tuple
    world.pass_time(31.0)  # nobody holds the other any more
    assert attacker.check(address=CLIENT) is DropReason.SESSION_ENDED


@pytest.mark.parametrize("owner_refuses", [False, True], ids=["owner of today", "owner of the release before"])
def test_an_ended_call_and_a_live_one_elsewhere_do_not_move_a_listening_victims_media(monkeypatch, owner_refuses):
    """For two minutes: 403 in answer to a spoofed check was a goodbye, and two seconds later the tuple was free."""
    if owner_refuses:
        monkeypatch.setattr("voicefleet_dataplane.core.call.paths.Path.is_held", lambda *_: False)
    fleet = Fleet()
    over, live = ended_call(fleet, 5), fleet.worlds[6].connected(ELSEWHERE)
    victim = fleet.worlds[5].connected(CLIENT)
    for half_second in range(240):
        if half_second % 5 == 0:
            assert victim.check() is None
            live.check()
            fleet.settle()
            over.check(address=CLIENT)  # the rest of the interval is the owner's silence
        live.check(address=CLIENT)
        fleet.settle()
        assert victim.speak() is None
        fleet.pass_time(0.5)
    assert fleet.flow(CLIENT).owner_address == OWNERS[5]
    assert victim.session.packets_in == 240
    assert victim.session.state == "connected"


@pytest.mark.parametrize("how", ["adopted", "rotated", "restored"])
def test_a_flow_whose_call_is_not_known_takes_no_goodbye(monkeypatch, how):
    monkeypatch.setattr("voicefleet_dataplane.core.call.paths.Path.is_held", lambda *_: False)
    fleet = Fleet()
    over, live = ended_call(fleet, 5), fleet.worlds[6].connected(ELSEWHERE)
    victim = fleet.worlds[5].connected(CLIENT)
    if how == "rotated":
        fleet.relay.set_keys(HINT_KEYS)
    else:
        fleet.relay.flows.forget(fleet.flow(CLIENT))
        flow = fleet.relay.adopt(CLIENT, (5, 2), OWNERS[5], Address("10.0.0.1", 4_000), fleet.now, awaits_owner=False)
        flow.bare = None
    if how == "restored":
        flow.patience_s = GOODBYE_S
        victim.session.send_sctp(b"the owner's word", fleet.now)
    over.check(address=CLIENT)
    fleet.settle()
    fleet.pass_time(GOODBYE_S)
    live.check(address=CLIENT)
    assert fleet.flow(CLIENT).owner_address == OWNERS[5]
    assert victim.check() is None
    fleet.settle()
    assert fleet.flow(CLIENT).ufrag == victim.server_ufrag.encode()


def test_a_role_conflict_is_no_goodbye():
    fleet = Fleet()
    victim, live = fleet.worlds[5].connected(CLIENT), fleet.worlds[6].connected(ELSEWHERE)
    assert victim.check(ice_controlling=None, ice_controlled=9) is None
    fleet.settle()
    fleet.pass_time(GOODBYE_S)
    live.check(address=CLIENT)
    assert fleet.flow(CLIENT).owner_address == OWNERS[5]


def test_a_hang_up_frees_the_tuple_for_another_owner_as_soon_as_before():
    """The owner says the word that verifies by itself: nobody need check first."""
    fleet = Fleet()
    first = fleet.worlds[5].connected(CLIENT)
    fleet.worlds[5].core.calls.hang_up(first.session.agreed.call_id)
    fleet.settle()
    fleet.pass_time(GOODBYE_S)
    second = fleet.worlds[6].connected(CLIENT)
    assert second.speak() is None
    assert fleet.flow(CLIENT).owner_address == OWNERS[6]


# ---- an alert


def say(fleet, word):
    fleet.relay.receive_inside(encode_spp(CLIENT, fleet.relay.inner) + word, OWNERS[5], fleet.now)


def test_an_alert_alone_frees_the_tuple_after_longer_than_checks_are_apart():
    fleet = Fleet()
    fleet.worlds[5].connected(CLIENT)
    live = fleet.worlds[6].connected(ELSEWHERE)
    say(fleet, ALERT)
    fleet.worlds[5].core.calls.advance = lambda _now: None  # its process is dead: of a live one a report follows
    fleet.worlds[5].core.calls.deadline = lambda: None
    fleet.pass_time(ALERT_S - 0.1)
    live.check(address=CLIENT)
    assert fleet.flow(CLIENT).owner_address == OWNERS[5]
    fleet.pass_time(0.1)
    live.check(address=CLIENT)
    assert fleet.flow(CLIENT).owner_address == OWNERS[6]


def test_an_alert_is_taken_back_by_the_answer_to_the_calls_next_check():
    fleet = Fleet()
    victim, live = fleet.worlds[5].connected(CLIENT), fleet.worlds[6].connected(ELSEWHERE)
    say(fleet, ALERT)
    fleet.pass_time(6.0)
    victim.check()
    fleet.settle()
    fleet.pass_time(6.0)
    live.check(address=CLIENT)
    assert fleet.flow(CLIENT).owner_address == OWNERS[5]


# ---- the name of a flow


def named(fleet, caller):
    return fleet.flow(CLIENT).ufrag == caller.server_ufrag.encode()


def test_a_spoofed_check_of_another_call_of_the_owner_renames_no_flow():
    fleet = Fleet(failed_checks=10.0, failed_checks_of_a_network=10.0)
    victim, attacker = fleet.worlds[5].connected(CLIENT), fleet.worlds[5].connected(ATTACKER)
    assert attacker.check(address=CLIENT) is DropReason.ICE_TUPLE_TAKEN
    fleet.settle()
    assert named(fleet, victim)
    forged = build_binding_request(b"f" * 12, f"{victim.server_ufrag[:-1]}?:x", b"wrong")
    for number in range(200):  # the limits of the victim's network and of all are spent
        fleet.receive(forged, Address("198.51.100.1", number + 1))
    assert victim.check() is None


def test_a_flow_is_renamed_when_the_owners_success_has_passed():
    fleet = Fleet()
    world = fleet.worlds[5]
    caller = world.connected(CLIENT)
    made = world.core.calls.restart_ice(caller.session, "n3w1", world.now)
    check = build_binding_request(b"n" * 12, f"{made.ufrag}:n3w1", made.pwd.encode())
    assert fleet.receive(check, CLIENT) is None
    assert named(fleet, caller)
    fleet.settle()
    assert fleet.flow(CLIENT).ufrag == made.ufrag.encode()
    assert fleet.flow(CLIENT).candidates is None


def test_checks_of_many_other_calls_hold_bounded_memory_and_leave_the_next_one_its_name():
    fleet = Fleet()
    world = fleet.worlds[5]
    caller = world.connected(CLIENT)
    others = [world.connected(Address("203.0.113.9", port)) for port in range(1, 8)]
    made = world.core.calls.restart_ice(caller.session, "n3w1", world.now)
    for other in others:
        other.check(address=CLIENT)
    assert len(fleet.flow(CLIENT).candidates) == 4
    fleet.receive(build_binding_request(b"n" * 12, f"{made.ufrag}:n3w1", made.pwd.encode()), CLIENT)
    for other in others[:3]:
        other.check(address=CLIENT)
    fleet.settle()
    assert fleet.flow(CLIENT).ufrag == made.ufrag.encode()


# ---- the exemption of a call's own checks from the limits


def looked_at(fleet):
    looked = (
        DropReason.STUN_BAD_INTEGRITY,
        DropReason.HINT_TAG,
        DropReason.STUN_NO_USERNAME,
        DropReason.STUN_MALFORMED,
    )
    return sum(fleet.relay.drops[reason] for reason in looked)


def test_ones_own_ufrag_elsewhere_in_a_packet_buys_nothing():
    fleet = Fleet(failed_checks=10.0, failed_checks_of_a_network=10.0)
    attacker = fleet.worlds[5].connected(ATTACKER)
    tag = attacker.server_ufrag[:-1] + ("A" if attacker.server_ufrag[-1] != "A" else "B")
    ours = [(SOFTWARE, attacker.server_ufrag.encode())]
    forged = build_binding_request(b"f" * 12, f"{tag}:x", b"wrong", extra=ours)
    for _ in range(20_000):
        fleet.receive(forged, ATTACKER)
    assert looked_at(fleet) == 20  # two seconds of the network's rate


def test_ones_own_ufrag_as_username_buys_the_flows_budget():
    fleet = Fleet(failed_checks=10.0, failed_checks_of_a_network=10.0)
    attacker = fleet.worlds[5].connected(ATTACKER)
    forged = build_binding_request(b"f" * 12, f"{attacker.server_ufrag}:x", b"wrong")
    for _ in range(20_000):
        fleet.receive(forged, ATTACKER)
    assert looked_at(fleet) == 20 + OWN_CHECKS_AT_ONCE
    fleet.pass_time(1.0)
    for _ in range(1_000):
        fleet.receive(forged, ATTACKER)
    assert looked_at(fleet) == 30 + OWN_CHECKS_AT_ONCE + OWN_CHECKS_PER_S


def test_authentic_checks_cost_a_flow_none_of_its_budget():
    fleet = Fleet(failed_checks=1.0, failed_checks_of_a_network=1.0)
    caller = fleet.worlds[5].connected(CLIENT)
    fleet.receive(build_binding_request(b"f" * 12, "A" * 24 + ":x", b"wrong"), CLIENT)
    fleet.receive(build_binding_request(b"f" * 12, "A" * 24 + ":x", b"wrong"), CLIENT)
    for _ in range(100):
        assert caller.check() is None


def test_an_adopted_calls_first_check_passes_a_flood_from_everywhere():
    """A relay that starts anew in a flood knows nobody's ufrag: the flow's owner, whom the check names, must do."""
    fleet = Fleet(failed_checks=10.0, failed_checks_of_a_network=10.0)
    caller = fleet.worlds[5].connected(CLIENT)
    fleet.relay.flows.forget(fleet.flow(CLIENT))
    fleet.relay.adopt(CLIENT, (5, 2), OWNERS[5], Address("10.0.0.1", 4_000), fleet.now, awaits_owner=False)
    for number in range(100):
        fleet.receive(build_binding_request(b"f" * 12, "A" * 24 + ":x", b"wrong"), Address(f"100.64.{number}.1", 1))
    assert caller.check() is None

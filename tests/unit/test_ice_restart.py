"""An ICE restart of a running call: other credentials, the same media."""

import pytest

from tests.support.transceiver import CLIENT, OTHER_RELAY, World
from voicefleet_contract.addresses import Address
from voicefleet_contract.drops import DropReason
from voicefleet_contract.hint import ice_pwd, peek_hint
from voicefleet_dataplane.core.call.ice import MAX_CREDENTIALS, OLD_CREDENTIALS_S
from voicefleet_dataplane.core.call.model import EndReason
from voicefleet_dataplane.core.call.status import session_status
from voicefleet_dataplane.core.transceiver.calls import Restarted
from voicefleet_dataplane.wire.stun import parse_binding_response, verify_integrity

ELSEWHERE = Address("203.0.113.9", 50_000)


def restart(world: World, caller, ufrag: str = "n3w1") -> Restarted:
    made = world.core.calls.restart_ice(caller.session, ufrag, world.now)
    assert isinstance(made, Restarted), made
    return made


def check(caller, made: Restarted, ufrag: str = "n3w1", **options) -> DropReason | None:
    return caller.check(username=f"{made.ufrag}:{ufrag}", pwd=made.pwd, **options)


def test_new_credentials_name_the_same_owner_and_a_nonce_of_their_own():
    world = World()
    caller = world.connected()
    made = restart(world, caller)
    old, new = peek_hint(caller.server_ufrag), peek_hint(made.ufrag)
    assert (new.cluster, new.slot, new.generation) == (old.cluster, old.slot, old.generation)
    assert new.nonce != old.nonce
    assert made.pwd == ice_pwd(made.ufrag, 1, world.core.calls.hint_keys)
    assert session_status(caller.session, world.now).ufrag == made.ufrag


def test_media_goes_on_through_a_restart_without_a_packet_lost():
    world = World()
    caller = world.connected(echo=True)
    for step in range(60):
        if step == 20:
            made = restart(world, caller)
        if step == 30:
            assert check(caller, made) is None
        assert caller.speak() is None
        world.settle()
        world.pass_time(0.02)
    assert [packet.payload for packet in caller.media] == [b"opus"] * 60
    sequences = [packet.sequence for packet in caller.media]
    assert sequences == [(sequences[0] + n) & 0xFFFF for n in range(60)]
    assert world.drops() == {}
    assert caller.heard.connected == 1  # no second handshake
    assert caller.heard.ended == []


def test_a_client_that_moved_is_followed_by_the_new_credentials_and_so_is_its_media():
    world = World()
    caller = world.connected(echo=True)
    made = restart(world, caller)
    world.clients[ELSEWHERE] = caller
    assert check(caller, made, address=ELSEWHERE, relay=OTHER_RELAY) is None
    world.settle()
    assert caller.session.ice.selected.client == ELSEWHERE
    assert caller.send(caller.build_audio(), address=ELSEWHERE, relay=OTHER_RELAY) is None
    assert world.core.transmit[-1][1] == OTHER_RELAY


def test_the_answer_to_a_check_is_signed_with_the_credentials_that_it_used():
    world = World()
    caller = world.connected()
    made = restart(world, caller)
    for ufrag, pwd, remote in ((made.ufrag, made.pwd, "n3w1"), (caller.server_ufrag, caller.pwd, caller.ufrag)):
        caller.check(username=f"{ufrag}:{remote}", pwd=pwd)
        world.settle()
        assert verify_integrity(parse_binding_response(caller.answered[-1]), pwd.encode())


def test_old_credentials_serve_until_new_ones_are_used_and_a_while_longer():
    world = World()
    caller = world.connected()
    made = restart(world, caller)
    for _ in range(20):  # the client never got the answer: nothing has changed for it
        world.pass_time(10)
        caller.speak()
        assert caller.check() is None
    assert check(caller, made) is None
    world.pass_time(OLD_CREDENTIALS_S - 1)
    assert caller.check() is None  # what was under way
    assert check(caller, made) is None
    world.pass_time(1)
    assert caller.check() is DropReason.SESSION_ENDED
    assert check(caller, made) is None
    assert caller.speak() is None


def test_old_credentials_select_no_path_once_new_ones_have():
    world = World()
    caller = world.connected()
    made = restart(world, caller)
    world.clients[ELSEWHERE] = caller
    check(caller, made, address=ELSEWHERE)
    assert caller.check(nominate=True) is None  # overtaken on the way
    assert caller.session.ice.selected.client == ELSEWHERE
    assert check(caller, made) is None  # the client means it
    assert caller.session.ice.selected.client == CLIENT


def test_credentials_and_halves_of_different_restarts_do_not_mix():
    world = World()
    caller = world.connected()
    made = restart(world, caller)
    assert check(caller, made, ufrag=caller.ufrag) is DropReason.ICE_WRONG_CLIENT
    assert caller.check(username=f"{caller.server_ufrag}:n3w1") is DropReason.ICE_WRONG_CLIENT
    wrong = caller.check(username=f"{made.ufrag}:n3w1", pwd=caller.pwd)
    assert wrong is DropReason.STUN_BAD_INTEGRITY


def test_a_storm_of_restarts_is_bounded_and_costs_the_call_nothing():
    world = World()
    caller = world.connected()
    refused = 0
    for _ in range(100):
        for number in range(50):
            made = world.core.calls.restart_ice(caller.session, f"u{number:03}", world.now)
            refused += not isinstance(made, Restarted)
        assert caller.check() is None  # the credentials in use stay, however many were asked for
        assert caller.speak() is None
        world.pass_time(1)
        assert len(world.core.calls.ufrags.sessions) == len(caller.session.ice.ufrags) <= MAX_CREDENTIALS
    assert refused > 4_900
    assert caller.heard.ended == []


def test_the_newest_restart_works_after_a_storm():
    world = World()
    caller = world.connected()
    for number in range(5):
        made = restart(world, caller, f"u{number:03}")
    assert check(caller, made, ufrag="u004") is None
    world.pass_time(OLD_CREDENTIALS_S)
    assert caller.session.ice.ufrags == [made.ufrag]


def test_a_call_can_restart_while_its_transceiver_drains():
    world = World()
    caller = world.connected()
    world.core.calls.drain()
    assert check(caller, restart(world, caller)) is None


def test_a_restart_before_the_first_check_is_a_call_all_the_same():
    world = World()
    caller = world.call()
    made = restart(world, caller)
    assert check(caller, made) is None
    world.settle()
    assert caller.session.state == "connected"


def test_a_restart_prolongs_no_consent():
    world = World()
    caller = world.connected()
    restart(world, caller)
    world.pass_time(31)
    assert caller.heard.ended == [EndReason.CONSENT_EXPIRED]


@pytest.mark.parametrize("used", [False, True])
def test_nothing_is_left_of_a_call_that_had_restarted(used: bool):
    world = World()
    caller = world.connected()
    made = restart(world, caller)
    if used:
        check(caller, made)
    world.core.calls.hang_up(caller.session.agreed.call_id)
    assert not world.core.calls.ufrags.sessions
    assert caller.check() is DropReason.SESSION_ENDED
    assert check(caller, made) is DropReason.SESSION_ENDED

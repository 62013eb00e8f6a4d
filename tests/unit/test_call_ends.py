"""Calls of one transceiver in simulated time: why a call ends."""

import pytest

from tests.support.transceiver import World
from voicefleet_contract.addresses import Address
from voicefleet_contract.drops import DropReason
from voicefleet_dataplane.core.call.model import EndReason, Limits
from voicefleet_dataplane.core.call.paths import CONSENT_S
from voicefleet_dataplane.wire.rtcp import parse_rtcp

ELSEWHERE = Address("203.0.113.9", 5_555)


def test_a_call_of_which_nothing_comes_ends_after_thirty_seconds():
    world = World()
    caller = world.connected()
    for _ in range(4):
        world.pass_time(10.0)
        caller.check()
        caller.speak()
    world.pass_time(29.9)
    assert caller.heard.ended == []
    world.pass_time(0.2)
    assert caller.heard.ended == [EndReason.CONSENT_EXPIRED]


@pytest.mark.timeout(60)  # it went round for ever: where now is the very sum, and its difference rounds to less
def test_consent_runs_out_at_its_timer_however_the_time_rounds():
    rounding = [at for at in (100.0 + n / 100 for n in range(2_000)) if at + CONSENT_S - at < CONSENT_S]
    assert rounding
    for at in rounding[:20]:
        world = World()
        world.now = at
        caller = world.connected()
        world.core.calls.advance(at + CONSENT_S)
        assert caller.heard.ended == [EndReason.CONSENT_EXPIRED]


def test_a_replayed_check_is_no_consent():
    world = World()
    caller = world.connected()
    check = caller.build_check()
    caller.send(check)
    for _ in range(31):
        world.pass_time(1.0)
        caller.send(check)
    assert caller.heard.ended == [EndReason.CONSENT_EXPIRED]


def test_nothing_is_sent_to_an_address_whose_consent_has_run_out():
    world = World()
    caller = world.connected(echo=True)
    world.pass_time(20.0)
    caller.check(address=ELSEWHERE, nominate=False)
    world.pass_time(15.0)
    assert caller.session.ice.selected.client == ELSEWHERE
    assert caller.speak() is DropReason.ADDRESS_NOT_CHECKED


def test_an_idle_call_ends_and_one_with_data_does_not():
    world = World(limits=Limits(idle_s=40.0))
    quiet = world.connected()
    chatty = world.connected(ELSEWHERE)
    for _ in range(10):
        world.pass_time(5.0)
        quiet.check()
        chatty.check()
        chatty.session.note_message(world.now)
    assert quiet.heard.ended == [EndReason.IDLE]
    assert chatty.heard.ended == []


def test_a_call_ends_at_its_longest_duration():
    world = World(limits=Limits(duration_s=100.0))
    caller = world.connected()
    for _ in range(12):
        world.pass_time(10.0)
        caller.check()
        if caller.srtp and not caller.heard.ended:
            caller.speak()
    assert caller.heard.ended == [EndReason.MAX_DURATION]
    assert world.core.calls.tally.ended[EndReason.MAX_DURATION] == 1


def test_the_client_hears_bye_and_close_notify_at_a_hang_up():
    world = World()
    caller = world.connected(echo=True)
    caller.speak()
    assert world.core.calls.hang_up(caller.session.agreed.call_id)
    world.settle()
    assert parse_rtcp(caller.rtcp[-1]).byes == (caller.ssrc,)
    assert caller.dtls.state == "closed"
    assert caller.heard.ended == [EndReason.HANG_UP]
    assert not world.core.calls.hang_up(caller.session.agreed.call_id)


def test_a_client_that_closes_ends_its_call():
    world = World()
    caller = world.connected()
    caller.dtls.close()
    world.settle()
    assert caller.heard.ended == [EndReason.CLOSED_BY_CLIENT]


def test_an_ended_call_leaves_no_address_header_or_timer_behind():
    world = World()
    caller = world.connected(echo=True)
    caller.speak()
    world.core.calls.hang_up(caller.session.agreed.call_id)
    world.drain()
    core = world.core
    assert not core._routes.by_client
    assert not core._routes.by_header
    assert not core.calls._by_request
    assert not core.calls.ufrags.sessions
    assert core.calls.deadline() is None
    assert caller.speak() is DropReason.ADDRESS_NOT_CHECKED

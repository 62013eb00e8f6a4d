"""How a transceiver leaves: calls in peace until the moment, then one hang-up after the other. In virtual time."""

from itertools import pairwise

from tests.support.transceiver import World
from voicefleet_contract.addresses import Address
from voicefleet_contract.topology import MemberState
from voicefleet_dataplane.core.call.dtls import DtlsState
from voicefleet_dataplane.core.call.model import EndReason
from voicefleet_dataplane.core.transceiver.leaving import HANG_UPS_TAKE_S, LONGEST_GAP_S, Leaving
from voicefleet_dataplane.wire.rtcp import parse_rtcp


def hang_ups(leaving: Leaving, calls: int, until: float) -> list[float]:
    """Play time; return when each call was hung up."""
    left, now, found = list(range(calls)), 0.0, []
    while left and (now := max(now, leaving.deadline())) <= until:
        assert leaving.is_due(left, now)
        found.append(now)
        left.pop()
    return found


def test_without_an_order_no_call_is_hung_up():
    assert hang_ups(Leaving(), 3, 1e9) == []


def test_calls_are_hung_up_one_after_the_other_from_the_moment_on():
    leaving = Leaving()
    leaving.order(60.0)
    times = hang_ups(leaving, 5, 100)
    assert times[0] == 60.0
    assert all(abs(b - a - LONGEST_GAP_S) < 1e-9 for a, b in pairwise(times))


def test_however_many_the_last_one_comes_in_time():
    leaving = Leaving()
    leaving.order(60.0)
    times = hang_ups(leaving, 10_000, 1000)
    assert len(times) == 10_000
    assert times[-1] <= 60 + HANG_UPS_TAKE_S + 1e-6


def test_an_order_that_is_repeated_hurries_nothing_and_a_later_one_gives_time():
    leaving = Leaving()
    leaving.order(0.0)
    assert leaving.is_due([1, 2], 0.0)
    leaving.order(0.05)
    assert not leaving.is_due([2], 0.06)
    leaving.order(500.0)
    assert not leaving.is_due([2], 499.0)
    assert leaving.is_due([2], 500.0)


def test_a_drain_says_bye_to_each_client_in_turn_and_counts_why():
    world = World()
    callers = [world.connected(Address("198.51.100.1", 40_000 + number), echo=True) for number in range(3)]
    for caller in callers:
        caller.speak()
    world.settle()
    world.core.calls.drain(world.now + 1.0)
    world.pass_time(0.9)
    assert len(world.core.calls.sessions) == 3
    world.pass_time(0.15)
    assert [caller.heard.ended for caller in callers] == [[EndReason.DRAIN_DEADLINE], [], []]
    world.pass_time(1.0)
    assert world.core.calls.sessions == {}
    assert world.core.calls.tally.ended[EndReason.DRAIN_DEADLINE] == 3
    for caller in callers:
        assert parse_rtcp(caller.rtcp[-1]).byes == (caller.ssrc,)
        assert caller.dtls.state is DtlsState.CLOSED


def test_a_drain_without_a_time_leaves_calls_alone_and_takes_no_new_ones():
    world = World()
    world.connected()
    world.core.calls.drain()
    assert world.core.calls.state is MemberState.DRAINING
    assert world.core.calls.leaving.deadline() == float("inf")


def test_the_status_of_a_drain_says_when_the_oldest_and_the_newest_call_started():
    world = World()
    assert world.core.calls.tally.started_at() is None
    world.call()
    world.now += 7
    world.call(Address("198.51.100.2", 40_000))
    assert world.core.calls.tally.started_at() == (1_700_000_100.0, 1_700_000_107.0)

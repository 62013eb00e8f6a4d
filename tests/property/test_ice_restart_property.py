"""Restarts, checks of any credentials, media and time in any order: a client that keeps checking keeps its call and its media."""

from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import examples
from tests.support.transceiver import World
from voicefleet_contract.addresses import Address
from voicefleet_contract.drops import DropReason
from voicefleet_dataplane.core.call.ice import MAX_CREDENTIALS
from voicefleet_dataplane.core.call.model import Limits
from voicefleet_dataplane.core.transceiver.calls import Restarted

HERE, THERE = Address("198.51.100.1", 40_000), Address("203.0.113.9", 50_000)
steps = st.one_of(
    st.just(("restart",)),
    st.tuples(st.just("check"), st.integers(0, 6), st.booleans(), st.sampled_from([HERE, THERE])),
    st.just(("speak",)),
    st.tuples(st.just("wait"), st.integers(1, 20)),
)


@examples(60)
@given(st.lists(steps, max_size=40))
def test_a_running_call_is_never_disturbed(script):
    world = World(limits=Limits(idle_s=0.0))
    caller = world.connected(HERE, echo=True)
    world.clients[THERE] = caller
    known = [(caller.server_ufrag, caller.pwd, caller.ufrag)]  # all that were ever given, oldest first
    used = 0  # the newest that a check has used
    spoken = 0
    for step in script:
        match step:
            case ("restart",):
                name = f"u{len(known):03}"
                made = world.core.calls.restart_ice(caller.session, name, world.now)
                if isinstance(made, Restarted):
                    known.append((made.ufrag, made.pwd, name))
            case ("check", back, nominate, address):
                number = max(0, len(known) - 1 - back)
                ufrag, pwd, name = known[number]
                reason = caller.check(username=f"{ufrag}:{name}", pwd=pwd, nominate=nominate, address=address)
                assert reason in (None, DropReason.SESSION_ENDED)
                if reason is None:
                    used = max(used, number)
                world.settle()
            case ("speak",):
                assert caller.speak() is None
                spoken += 1
                world.settle()
            case ("wait", seconds):
                world.pass_time(seconds)
        # What the client uses is always good, and so is what it was given last.
        for number in {used, len(known) - 1}:
            ufrag, pwd, name = known[number]
            assert caller.check(username=f"{ufrag}:{name}", pwd=pwd, nominate=False) is None
        used = len(known) - 1
        world.settle()
        assert caller.session.end_reason is None
        assert len(world.core.calls.ufrags.sessions) == len(caller.session.ice.ufrags) <= MAX_CREDENTIALS
        assert caller.session.ice.ufrag == known[-1][0]
    assert len(caller.media) == spoken
    world.core.calls.hang_up(caller.session.agreed.call_id)
    assert not world.core.calls.ufrags.sessions

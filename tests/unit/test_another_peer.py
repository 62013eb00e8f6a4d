"""Another peer connection of the same client: the call, its agent and its listeners go on.

The tests are coroutines because the timer of data channels wants a loop to be there.
"""

import pytest

from tests.support.offers import CHROMIUM, DIGEST, without
from tests.support.transceiver import CLIENT, Client, World
from voicefleet_contract.addresses import Address
from voicefleet_contract.drops import DropReason
from voicefleet_dataplane.core.call.model import EndReason, Limits
from voicefleet_dataplane.core.call.negotiation import Terms
from voicefleet_dataplane.core.call.status import session_status
from voicefleet_dataplane.core.transceiver.calls import Created
from voicefleet_dataplane.media.backend import CallConfig
from voicefleet_dataplane.media.echo import Echo
from voicefleet_dataplane.shell.transceiver.running_call import RunningCall
from voicefleet_dataplane.wire.sdp.model import Direction, SdpError

CANDIDATES = [Address("192.0.2.1", 3478)]
ELSEWHERE = Address("203.0.113.9", 50_000)


class Agent(Echo):
    """Counts what it is told."""

    connected = ended = 0

    def on_connected(self) -> None:
        self.connected += 1

    def on_ended(self) -> None:
        self.ended += 1


class Again(Client):
    """The next peer connection of a client: its offer replaces the peer of a session."""

    def __init__(self, world: World, call: RunningCall, address: Address = ELSEWHERE) -> None:
        made: list[Created] = []

        def replace(offer: str) -> Created:
            created = world.core.calls.replace_peer(call.session, offer, CANDIDATES, world.now)
            assert isinstance(created, Created), created
            made.append(created)
            world.drain()  # the goodbye to a peer connection that is closed
            return created

        create, world.create = world.create, replace
        super().__init__(world, address, world.clients[CLIENT].relay)
        world.create = create
        call.move(made[0].session)


def running(client, make_backend) -> RunningCall:
    config = CallConfig(client.session.agreed.call_id)
    return RunningCall(client.session, config, make_backend, None, None, lambda: None, lambda _: None)


def a_call(**options) -> tuple[World, Client, RunningCall]:
    world = World(**options)
    first = world.call(CLIENT)
    call = running(first, Agent)
    first.check()
    world.settle()
    assert first.speak() is None
    world.settle()
    return world, first, call


async def test_the_agent_notices_nothing_and_is_heard_by_the_new_one():
    world, first, call = a_call()
    call_id = call.call_id
    second = Again(world, call)
    assert first.session.end_reason is EndReason.REPLACED
    second.check()
    world.settle()
    assert second.session.state == "connected"
    assert second.speak() is None
    world.settle()
    assert [packet.payload for packet in second.media] == [b"opus"]
    assert (call._backend.connected, call._backend.ended) == (1, 0)
    assert call.call_id == call_id
    assert second.session.packets_in == first.session.packets_in + 1  # the call's numbers go on
    assert list(world.core.calls.sessions) == [call_id]
    assert first.check() is DropReason.SESSION_ENDED


async def test_a_client_may_come_again_from_the_very_same_address():
    world, _, call = a_call()
    second = Again(world, call, CLIENT)
    second.check()
    world.settle()
    assert second.session.state == "connected"
    assert second.speak() is None


async def test_listeners_hear_on():
    world, _, call = a_call()
    world.terms = Terms(Direction.SENDONLY, joins=True)
    player = world.connected(Address("198.51.100.77", 50_001))
    running(player, call.audience.join)
    second = Again(world, call)
    second.check()
    world.settle()
    second.speak(b"after")
    world.settle()
    assert [packet.payload for packet in player.media] == [b"after"]


async def test_a_new_peer_that_never_comes_ends_the_call():
    world, _, call = a_call(limits=Limits(setup_s=30))
    Again(world, call)
    world.pass_time(31)
    assert call.session.end_reason is EndReason.SETUP_TIMEOUT
    assert call._backend.ended == 1
    assert world.core.calls.sessions == {}
    assert not world.core.calls.ufrags.sessions


async def test_no_number_of_peers_makes_a_call_longer():
    world, _, call = a_call(limits=Limits(idle_s=0, duration_s=100))
    for _ in range(3):
        world.pass_time(25)
        second = Again(world, call)
        second.check()
        world.settle()
    world.pass_time(24)
    assert call.session.end_reason is None
    assert session_status(call.session, world.now).age_s == 99
    world.pass_time(2)
    assert call.session.end_reason is EndReason.MAX_DURATION


@pytest.mark.parametrize("offer", ["garbage", without("a=fingerprint"), CHROMIUM.replace(DIGEST, "AB")])
async def test_an_offer_that_is_none_replaces_nothing(offer):
    world, first, call = a_call()
    with pytest.raises(SdpError):
        world.core.calls.replace_peer(call.session, offer, CANDIDATES, world.now)
    assert first.session.end_reason is None
    assert first.speak() is None


async def test_a_draining_transceiver_lets_its_clients_come_again():
    world, _, call = a_call()
    world.core.calls.drain()
    second = Again(world, call)
    second.check()
    world.settle()
    assert second.session.state == "connected"

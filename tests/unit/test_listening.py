"""Listeners hear what a call's agent says, and nothing that they do reaches the call.

The tests are coroutines because the timer of data channels wants a loop to be there.
"""

import pytest

from tests.support.transceiver import CLIENT, World
from voicefleet_contract.addresses import Address
from voicefleet_contract.topology import MemberState
from voicefleet_dataplane.core.call.model import EndReason
from voicefleet_dataplane.core.call.negotiation import Terms
from voicefleet_dataplane.core.transceiver.admission import NoRoom
from voicefleet_dataplane.media.backend import CallConfig
from voicefleet_dataplane.media.echo import Echo
from voicefleet_dataplane.media.listening import MAX_LISTENERS
from voicefleet_dataplane.shell.transceiver.running_call import RunningCall
from voicefleet_dataplane.wire.sdp.model import Direction

HEARS = Terms(Direction.SENDONLY, joins=True)
PUBLISHES = Terms(Direction.RECVONLY)


def running(client, make_backend) -> RunningCall:
    config = CallConfig(client.session.agreed.call_id)
    return RunningCall(client.session, config, make_backend, None, None, lambda: None, lambda _: None)


def address(number: int) -> Address:
    return Address("198.51.100.77", 50_000 + number)


class Stage:
    """A publisher whose agent is Echo, and whoever listens."""

    def __init__(self) -> None:
        self.world = World(capacity=100)
        self.world.terms = PUBLISHES
        self.publisher = self.world.connected(CLIENT)
        self.call = running(self.publisher, Echo)

    def listener(self, number: int = 1):
        self.world.terms = HEARS
        client = self.world.connected(address(number))
        return client, running(client, self.call.audience.join)

    def say(self, *payloads: bytes) -> None:
        for payload in payloads:
            assert self.publisher.speak(payload) is None
        self.world.settle()


async def test_a_listener_hears_the_agent_and_the_publisher_does_not():
    stage = Stage()
    client, _ = stage.listener()
    stage.say(b"one", b"two", b"three")
    assert [packet.payload for packet in client.media] == [b"one", b"two", b"three"]
    assert [packet.marker for packet in client.media] == [True, False, False]
    steps = [packet.timestamp - client.media[0].timestamp for packet in client.media]
    assert [step & 0xFFFFFFFF for step in steps] == [0, 960, 1920]
    assert {packet.ssrc for packet in client.media} == {client.session.sending.ssrc}
    assert stage.publisher.media == []  # its answer was recvonly


async def test_whoever_comes_later_hears_from_then_on():
    stage = Stage()
    first, _ = stage.listener(1)
    stage.say(b"one")
    second, _ = stage.listener(2)
    stage.say(b"two")
    assert [packet.payload for packet in first.media] == [b"one", b"two"]
    assert [packet.payload for packet in second.media] == [b"two"]
    assert second.media[0].marker


async def test_a_listener_that_leaves_or_breaks_disturbs_nobody():
    stage = Stage()
    stays, _ = stage.listener(1)
    leaves, _ = stage.listener(2)
    _, broken = stage.listener(3)

    def fail(*args, **kwargs):
        raise RuntimeError("broken")

    broken.send_audio = fail
    stage.say(b"one")
    assert broken.session.end_reason is EndReason.HANG_UP
    stage.world.core.calls.hang_up(leaves.session.agreed.call_id)
    stage.say(b"two")
    assert [packet.payload for packet in stays.media] == [b"one", b"two"]
    assert stage.publisher.session.state == "connected"


async def test_listeners_end_with_the_call_and_say_why():
    stage = Stage()
    clients = [stage.listener(number)[0] for number in (1, 2, 3)]
    stage.world.core.calls.hang_up(stage.publisher.session.agreed.call_id)
    assert [client.session.end_reason for client in clients] == [EndReason.HANG_UP] * 3
    assert "listened to has ended" in clients[0].session.end_detail
    assert stage.world.core.calls.sessions == {}


async def test_a_silent_listener_is_not_idle_and_one_that_is_gone_is():
    stage = Stage()
    client, _ = stage.listener()
    for _ in range(30):
        stage.world.pass_time(10)
        assert client.check() is None
        stage.publisher.check()
        stage.publisher.speak()
    assert client.session.state == "connected"
    for _ in range(4):
        stage.world.pass_time(10)
        stage.publisher.check()
        stage.publisher.speak()
    assert client.session.end_reason is EndReason.CONSENT_EXPIRED


async def test_nobody_makes_a_call_pay_for_more_listeners_than_the_limit():
    stage = Stage()
    for number in range(MAX_LISTENERS):
        assert not stage.call.audience.is_full
        stage.listener(number)
    assert stage.call.audience.is_full
    stage.world.core.calls.hang_up(next(reversed(stage.world.core.calls.sessions)))
    assert not stage.call.audience.is_full


@pytest.mark.parametrize(("terms", "taken"), [(HEARS, True), (PUBLISHES, False)])
async def test_a_draining_transceiver_takes_listeners_of_its_calls_and_no_calls(terms, taken):
    stage = Stage()
    stage.world.core.calls.drain()
    assert stage.world.core.calls.state is MemberState.DRAINING
    stage.world.terms = terms
    made = stage.world.offer("v=0\r\n") if not taken else None
    if taken:
        assert stage.world.connected(address(1)).session.state == "connected"
    else:
        assert isinstance(made, NoRoom)

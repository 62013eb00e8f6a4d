"""What a packet costs does not depend on how much stands there already: steps at state N, 2N and 4N."""

import json

import pytest

from tests.fuzz.steps import count_steps
from tests.support.pipeline_world import PipelineWorld
from tests.support.relayed_calls import Fleet
from tests.support.transceiver import RELAY, World
from tests.unit.test_relay import ALICE, INNER, MALLORY, OWNER_A, RTP, a_relay, check, ufrag
from voicefleet_contract.addresses import Address
from voicefleet_contract.spp import encode_spp
from voicefleet_dataplane.core.limits import ConcurrencyLimit, RateLimit
from voicefleet_dataplane.media.events import EventHub

TIMES = (1, 2, 4)


def flat(steps):
    """Beside a few steps of chance (a dictionary that grows, a heap that is deeper), each costs what the first does."""
    assert max(steps) <= 1.1 * steps[0] + 150, steps


def relay_with(flows):
    relay = a_relay(max_flows=flows + 1)
    for number in range(flows):
        client = Address(f"198.51.{number // 250}.{number % 250}", 1_000 + number)
        assert isinstance(relay.receive_outside(check(ufrag(nonce=number)), client, 0.0), tuple)
    return relay


@pytest.mark.parametrize(
    "packet",
    [
        lambda relay: relay.receive_outside(RTP, Address("198.51.0.0", 1_000), 1.0),
        lambda relay: relay.receive_outside(check(ufrag(nonce=0)), Address("198.51.0.0", 1_000), 1.0),
        lambda relay: relay.receive_outside(check(ufrag(nonce=9_999)), ALICE, 1.0),
        lambda relay: relay.receive_outside(check(password="no"), MALLORY, 1.0),
        lambda relay: relay.receive_outside(RTP, MALLORY, 1.0),
        lambda relay: relay.receive_inside(encode_spp(Address("198.51.0.0", 1_000), INNER) + RTP, OWNER_A, 1.0),
        lambda relay: relay.advance(1.0),
    ],
    ids=["media", "consent", "a new flow", "a bad check", "a stranger's media", "media out", "time"],
)
def test_a_relays_packet_costs_the_same_whatever_flows_there_are(packet):
    relays = [relay_with(150 * times) for times in TIMES]
    flat([count_steps(lambda relay=relay: packet(relay)) for relay in relays])


@pytest.mark.parametrize(
    "packet",
    [
        lambda caller: caller.speak(b"\x48opus"),
        lambda caller: caller.check(),
        lambda caller: caller.send(b"\x17\xfe\xfd\0\1" + bytes(6) + b"\0\x20" + bytes(32)),
        lambda caller: caller.world.core.receive(encode_spp(ALICE, RELAY) + RTP, RELAY, caller.world.now),
        lambda caller: caller.world.core.calls.advance(caller.world.now),
    ],
    ids=["speech", "consent", "a forged record", "a stranger's media", "time"],
)
def test_a_transceivers_packet_costs_the_same_whatever_calls_there_are(packet):
    steps = []
    for times in TIMES:
        world = World(capacity=200)
        callers = [world.connected(Address("198.51.100.9", 2_000 + number)) for number in range(10 * times)]
        packet(callers[0])
        steps.append(count_steps(lambda caller=callers[0]: packet(caller)))
    flat(steps)


@pytest.mark.parametrize("event", ["response.create", "conversation.item.create", "input_audio_buffer.commit"])
def test_a_clients_event_costs_the_same_whatever_was_said_before(event):
    """What is asked of a model grows with the conversation: that is its text, copied, and no more."""
    steps = []
    for times in TIMES:
        world = PipelineWorld()
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}
        for _ in range(10 * times):
            world.client("conversation.item.create", item=item)
        said = json.dumps({"type": event, "item": item})
        steps.append(count_steps(lambda world=world, said=said: world.client_events.take(said, world.now)))
    assert steps[2] - steps[1] <= 2.2 * max(steps[1] - steps[0], 0) + 1_000, steps


def test_limits_cost_the_same_whatever_keys_there_are():
    steps = []
    for times in TIMES:
        rate, running = RateLimit(1, 5, max_keys=1_000 * times), ConcurrencyLimit(2)
        for number in range(2_000 * times):
            rate.take(str(number), 1.0)
            running.enter(str(number))
        steps.append(count_steps(lambda rate=rate, running=running: (rate.take("new", 1.0), running.enter("new"))))
    flat(steps)


def test_a_hub_hears_an_event_at_the_same_cost_whatever_waits():
    steps = []
    for times in TIMES:
        hub = EventHub(lambda _: None, clock=lambda: 0.0)
        for _ in range(40 * times):
            hub.tell("{}")
            hub.hear("{}")
        steps.append(count_steps(lambda hub=hub: (hub.hear("{}"), hub.tell("{}"))))
    flat(steps)


def test_the_end_of_a_call_costs_the_same_whatever_calls_there_are():
    steps = []
    for times in TIMES:
        fleet = Fleet()
        world = fleet.worlds[5]
        callers = [world.connected(Address("198.51.100.9", 2_000 + number)) for number in range(2 * times)]
        call_id = callers[0].session.agreed.call_id
        steps.append(count_steps(lambda world=world, call_id=call_id: world.core.calls.hang_up(call_id)))
    flat(steps)

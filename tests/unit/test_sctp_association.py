"""Our SCTP with itself, in virtual time: coming up, messages of every kind, closing, ends."""

import pytest

from tests.support.sctp import Network, World
from voicefleet_dataplane.core.call.sctp.channels import HOLD_BYTES, MAX_CHANNELS, MAX_QUEUED_BYTES, Outcome
from voicefleet_dataplane.core.call.sctp.dcep import Terms
from voicefleet_dataplane.core.call.sctp.events import State


def test_both_call_each_other_and_are_up_after_a_round_trip_and_a_half():
    world = World().up()
    assert world.now < 0.07
    assert world.ours.drops == world.client.drops == []


@pytest.mark.parametrize(
    "message", ["", "text", b"", b"bytes", "ü" * 30_000, b"x" * 262_144, b"x" * 1_048, b"x" * 1_049]
)
def test_messages_of_any_size_arrive(message):
    world = World().up()
    channel = world.client.open(0)
    assert world.client.channels.send(channel, message, world.now) is Outcome.QUEUED
    world.run(lambda: world.ours.heard)
    assert world.ours.heard == {0: [message]}
    answer = world.ours.opened[0]
    assert answer.terms == Terms("channel 0")
    world.ours.channels.send(answer, message, world.now)
    world.run(lambda: world.client.heard)
    assert world.client.heard == {0: [message]}


def test_a_channel_that_the_application_knows_beforehand_is_there_with_its_first_message():
    world = World().up()
    channel = world.client.open(7, negotiated=True)
    world.client.channels.send(channel, "here", world.now)
    world.run(lambda: world.ours.heard)
    assert [(one.stream, one.terms.label) for one in world.ours.opened] == [(7, "")]
    world.ours.channels.send(world.ours.opened[0], "there", world.now)
    world.run(lambda: world.client.heard)
    assert world.client.heard == {7: ["there"]}


@pytest.mark.parametrize("closer", [0, 1])
def test_either_side_closes_and_what_was_said_before_arrives(closer):
    world = World(network=Network(loss=0.2, jitter_s=0.05)).up()
    channels = [world.client.open(stream) for stream in range(4)]
    world.run(lambda: len(world.ours.opened) == 4)
    side = world.ends[closer]
    mine = world.ours.opened[2] if closer == 0 else channels[2]
    for number in range(50):
        side.channels.send(mine, f"{number}", world.now)
    side.channels.close(mine)
    assert side.channels.send(mine, "late", world.now) is Outcome.CLOSED
    world.run(lambda: world.ours.closed == world.client.closed == [2])
    assert world.ends[1 - closer].heard == {2: [str(number) for number in range(50)]}
    assert len(world.ours.channels.open_channels) == 3
    again = world.client.open(2)  # the number can be used again
    world.client.channels.send(again, "anew", world.now)
    world.run(lambda: len(world.ours.opened) == 5 and world.ours.heard.get(2, [])[-1:] == ["anew"])


def test_closing_a_channel_that_only_the_client_knows_is_answered():
    world = World().up()
    channel = world.client.open(9, negotiated=True)
    world.client.channels.close(channel)
    world.run(lambda: world.client.closed == [9])
    packets = world.packets
    world.pass_time(10)
    assert world.packets == packets  # and that is all


def test_channels_beyond_the_limit_are_closed():
    world = World().up()
    for stream in range(MAX_CHANNELS + 3):
        world.client.open(stream)
    world.run(lambda: len(world.client.closed) == 3)
    assert len(world.ours.opened) == MAX_CHANNELS
    assert sorted(world.client.closed) == [MAX_CHANNELS, MAX_CHANNELS + 1, MAX_CHANNELS + 2]


def test_what_is_too_long_for_the_client_and_what_it_does_not_take_is_refused():
    world = World(max_message_bytes=1_000).up()
    world.client.open(0)
    world.run(lambda: world.ours.opened)
    channel = world.ours.opened[0]
    assert world.ours.channels.send(channel, b"x" * 1_001, world.now) is Outcome.TOO_LONG
    queued = 0
    while world.ours.channels.send(channel, b"x" * 1_000, world.now) is Outcome.QUEUED:
        queued += 1
    assert world.ours.channels.send(channel, b"x", world.now) is Outcome.FULL
    assert MAX_QUEUED_BYTES - 1_200 < queued * 1_128 <= MAX_QUEUED_BYTES + 1_200
    world.run(lambda: len(world.client.heard.get(0, [])) == queued)
    world.pass_time(1)
    assert world.ours.association.held_bytes == 0


def test_a_client_that_is_too_fast_is_made_to_wait_and_loses_nothing():
    """Everything comes back twice: what waits to go back makes the client wait."""
    world = World(network=Network(delay_s=0.01)).up()
    channel = world.client.open(0)
    outcomes = set()

    def say_twice(channel, message):
        outcomes.add(world.ours.channels.send(channel, message, world.now))
        outcomes.add(world.ours.channels.send(channel, message, world.now))

    world.ours.on_said = say_twice
    sent, most = 0, 0
    while sent < 800:
        while world.client.channels.send(channel, sent.to_bytes(4, "big") * 2_000, world.now) is Outcome.QUEUED:
            sent += 1
        world.step()
        most = max(most, world.ours.association.held_bytes)
    world.run(lambda: len(world.client.heard.get(0, [])) == 2 * sent)
    assert outcomes == {Outcome.QUEUED}
    assert HOLD_BYTES < most < MAX_QUEUED_BYTES
    assert world.client.heard[0] == [(number // 2).to_bytes(4, "big") * 2_000 for number in range(2 * sent)]


@pytest.mark.parametrize("terms", [Terms(max_resends=0), Terms(lifetime_ms=150), Terms(max_resends=0, ordered=False)])
def test_what_may_be_lost_is_given_up_and_what_follows_arrives(terms):
    world = World(network=Network(loss=0.1, delay_s=0.03)).up()
    channel = world.client.open(0, terms)
    world.run(lambda: world.ours.opened)
    for number in range(200):
        assert world.client.channels.send(channel, f"{number}" * 200, world.now) is Outcome.QUEUED
        world.pass_time(0.02)
    world.networks[1].loss = 0.0
    assert world.client.channels.send(channel, "last", world.now) is Outcome.QUEUED
    world.run(lambda: world.ours.heard[0][-1] == "last" or "last" in world.ours.heard[0])
    heard = world.ours.heard[0]
    assert 50 < len(heard) < 200
    if terms.ordered:
        assert heard[:-1] == sorted(heard[:-1], key=lambda text: int(text[: len(text) // 200]))
    world.run(lambda: world.client.association.held_bytes == 0)


def test_a_peer_that_falls_silent_ends_the_association():
    world = World().up()
    channel = world.client.open(0)
    world.run(lambda: world.ours.opened)
    world.networks[0].loss = world.networks[1].loss = 1.0
    world.client.channels.send(channel, "anybody?", world.now)
    began = world.now
    world.run(lambda: world.client.is_over)
    assert 30 < world.now - began < 60
    assert world.client.closed == [0]
    world.run(lambda: world.ours.is_over)  # by heartbeats


def test_an_abort_that_was_lost_is_said_again_to_who_goes_on():
    world = World().up()
    channel = world.client.open(0)
    world.run(lambda: world.ours.opened)
    world.networks[0].loss = 1.0
    world.ours.channels.abort("over")
    world.settle()
    world.networks[0].loss = 0.0
    world.client.channels.send(channel, "still there?", world.now)
    world.run(lambda: world.client.is_over, 1)
    assert world.client.closed == [0]


def test_a_window_that_closes_is_probed_until_it_opens():
    world = World(network=Network(delay_s=0.01)).up()
    channel = world.client.open(0)
    world.run(lambda: world.ours.opened)
    taken = world.ours.channels.next_event
    world.ours.channels.next_event = lambda: None  # its user has no time
    for number in range(400):
        world.client.channels.send(channel, number.to_bytes(4, "big") * 1_000, world.now)
        world.pass_time(0.01)
    world.pass_time(120)
    assert world.client.association.state is State.ESTABLISHED
    assert world.ours.life.inbound.messages.kept_bytes < 2 << 20
    world.ours.channels.next_event = taken
    sent = 400
    world.run(lambda: world.client.association.held_bytes == 0)
    assert world.ours.heard[0] == [number.to_bytes(4, "big") * 1_000 for number in range(len(world.ours.heard[0]))]
    assert len(world.ours.heard[0]) <= sent


def test_a_peer_that_starts_again_is_served_anew():
    world = World().up()
    world.client.open(0)
    world.run(lambda: world.ours.opened)
    world.ends[1] = type(world.client)(99, now=world.now)
    world.run(lambda: world.ours.closed == [0] and world.client.channels.is_up)
    channel = world.client.open(2)
    world.client.channels.send(channel, "anew", world.now)
    world.run(lambda: world.ours.heard.get(2) == ["anew"])

"""Our SCTP over networks that lose, double, overtake and stand still: every reliable message once and in order, and an end.

VOICEFLEET_SEEDS is how many networks are tried; `make test` sets it.
"""

import os
import random

import pytest

from tests.support.sctp import End, Network, World
from voicefleet_dataplane.core.call.sctp.channels import HOLD_BYTES, Channels, Outcome
from voicefleet_dataplane.core.call.sctp.dcep import Terms
from voicefleet_dataplane.core.call.sctp.events import State

SEEDS = int(os.environ.get("VOICEFLEET_SEEDS", "200"))
BATCH = 50
MESSAGES = 12


def network_of(chance: random.Random) -> Network:
    stalls = [(at, at + chance.random() * 8) for at in [chance.random() * 5] if chance.random() < 0.2]
    return Network(
        loss=chance.choice((0.0, 0.02, 0.1, 0.3)),
        twice=chance.choice((0.0, 0.1)),
        delay_s=chance.choice((0.001, 0.02, 0.15)),
        jitter_s=chance.choice((0.0, 0.0, 0.03)),
        stalls=stalls,
    )


def terms_of(chance: random.Random, number: int) -> Terms:
    kind = chance.random()
    return Terms(
        f"channel {number}",
        ordered=chance.random() < 0.6,
        max_resends=chance.randrange(3) if kind < 0.2 else None,
        lifetime_ms=chance.randrange(20, 500) if 0.2 <= kind < 0.4 else None,
    )


class Story:
    """One random conversation: both sides speak in several channels, some of which are closed."""

    def __init__(self, seed: int, *, moves: bool = False) -> None:
        self.chance = random.Random(seed)
        self.moving = random.Random(seed) if moves else None
        self.world = World(seed, network_of(self.chance), network_of(self.chance))
        self.said: list[dict[int, list[str | bytes]]] = [{}, {}]
        self.terms: dict[int, Terms] = {}

    def message(self, number: int) -> str | bytes:
        size = self.chance.choice((0, 1, 30, 900, 1_048, 1_049, 5_000))
        text = f"{number}:" + "x" * size
        return text if self.chance.random() < 0.5 else text.encode()

    def step(self) -> bool:
        if self.moving is not None and self.moving.random() < 0.1:
            move(self.world, self.moving.randrange(2))
        return self.world.step()

    def run(self, until) -> None:
        end = self.world.now + 600
        self.world.settle()
        while not until():
            assert self.step()
            assert self.world.now < end

    def tell(self) -> None:
        world = self.world
        streams = self.chance.sample(range(40), self.chance.randrange(1, 5))
        for stream in streams:
            self.terms[stream] = terms_of(self.chance, stream)
            world.client.open(stream, self.terms[stream])
        self.run(lambda: len(world.ours.opened) == len(streams))
        ours = {channel.stream: channel for channel in world.ours.opened}
        theirs = {channel.stream: channel for channel in world.client.channels.open_channels}
        for number in range(MESSAGES):
            stream, side = self.chance.choice(streams), self.chance.randrange(2)
            message = self.message(number)
            channel = (ours, theirs)[side][stream]
            assert world.ends[side].channels.send(channel, message, world.now) is Outcome.QUEUED
            self.said[side].setdefault(stream, []).append(message)
            for _ in range(self.chance.randrange(8)):
                self.step()
        closer = world.ends[self.chance.randrange(2)]
        for channel in closer.channels.open_channels:
            closer.channels.close(channel)
        self.run(lambda: len(world.ours.closed) == len(world.client.closed) == len(streams))
        closer.channels.abort("over")
        world.settle()
        world.client.channels.abort("over")
        world.ours.channels.abort("over")
        world.pass_time(60)

    def judge(self) -> None:
        for side in (0, 1):
            for stream, said in self.said[side].items():
                heard, terms = self.world.ends[1 - side].heard.get(stream, []), self.terms[stream]
                if terms.max_resends is None and terms.lifetime_ms is None:
                    assert sorted(map(str, heard)) == sorted(map(str, said))
                else:
                    assert len(set(heard)) == len(heard)
                    assert set(heard) <= set(said)
                if terms.ordered:
                    order = [said.index(message) for message in heard]
                    assert order == sorted(order)
        for end in self.world.ends:
            assert end.association.state is State.ENDED
            assert end.channels.deadline() is None
            assert end.association.held_bytes == 0
            assert not set(end.drops) - {"wrong_tag"}


def move(world: World, side: int) -> None:
    """Go on with another object that was made from the state of the one before."""
    end: End = world.ends[side]
    before = end.channels
    state = before.export(world.now)
    spent = end.chance.getstate()
    after = Channels((5000, 5000), end.limits, end.chance.randbytes, world.now)
    end.chance.setstate(spent)  # a new association draws numbers that it then forgets
    after.restore(state, world.now)
    after._hold_bytes = before._hold_bytes
    end.channels = after
    assert after.export(world.now) == state


@pytest.mark.parametrize("batch", range(max(SEEDS // BATCH, 1)))
def test_every_reliable_message_arrives_once_and_in_order_and_every_association_ends(batch):
    for seed in range(batch * BATCH, (batch + 1) * BATCH):
        story = Story(seed)
        try:
            story.tell()
            story.judge()
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise


def fill(world: World, chance: random.Random, size: int) -> list[int]:
    """Have both ends say as much as is taken, in a few channels; gives how many messages each has said."""
    streams, said = range(chance.randrange(1, 4)), [0, 0]
    for stream in streams:
        world.client.open(stream, Terms(ordered=chance.random() < 0.7))
    world.run(lambda: len(world.ours.opened) == len(streams))
    for side, end in enumerate(world.ends):
        channels = end.channels.open_channels
        while end.channels.send(chance.choice(channels), b"x" * size, world.now) is Outcome.QUEUED:
            said[side] += 1
    return said


@pytest.mark.parametrize("size", [1, 1_049, 262_144])
@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_two_ends_that_hold_messages_back_and_close_at_once_hear_everything_and_are_closed(size, loss):
    chance = random.Random(size)
    world = World(size, Network(loss=loss))
    world.client.channels._hold_bytes = HOLD_BYTES  # as ours
    said = fill(world.up(), chance, size)
    world.pass_time(20)
    for end in world.ends:
        for channel in end.channels.open_channels:
            end.channels.close(channel)
    world.run(lambda: not any(end.channels.open_channels for end in world.ends))
    assert [sum(map(len, end.heard.values())) for end in world.ends] == said[::-1]


def test_export_and_restore_at_any_point_change_nothing_that_a_peer_sees():
    for seed in range(max(SEEDS // 8, 25)):
        stayed, moved = Story(seed), Story(seed, moves=True)
        for story in (stayed, moved):
            story.tell()
            story.judge()
        for one, other in zip(stayed.world.ends, moved.world.ends, strict=True):
            assert one.sent == other.sent, seed
            assert one.heard == other.heard

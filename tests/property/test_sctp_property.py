"""Our SCTP over networks that lose, double, overtake and stand still: every reliable message once and in order, and an end.

VOICEFLEET_SEEDS is how many networks are tried; `make test` sets it.
"""

import os
import random
from typing import Any

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


Field = tuple[str, ...]  # of an export: the names that lead to it
# No packet of these stories tells whether they came along. `move` compares them, too: what is exported is restored.
UNTOLD = {
    "now": "clocks of both objects are one here",
    "version": "there is one",
    "shutdown_at": "nobody says SHUTDOWN",
    "meter": "nobody spends a call's share of steps",
    "repeats": "nobody says INIT in vain fifteen times",
    "kept_bytes": "what comes is taken at once, so the window stays as it is",
    "announced": "the same",
    "held_bytes": "nobody waits for half a megabyte",
    "acknowledged": "it saves steps",
    "regardless": "the congestion window lets what is lost go in any case",
    "forwarded_at": "it keeps FORWARD-TSN from being said too often, and little is given up here",
    "answered": "nobody resets a stream without a channel",
}


class Story:
    """One random conversation: both sides speak in several channels, some of which are closed."""

    def __init__(self, seed: int, *, moves: bool = False, loses: Field = ()) -> None:
        self.chance = random.Random(seed)
        self.moving, self.loses = random.Random(seed), loses
        self.world = World(seed, network_of(self.chance), network_of(self.chance))
        if moves:
            self.world.between = self.move_now_and_then
        self.said: list[dict[int, list[str | bytes]]] = [{}, {}]
        self.terms: dict[int, Terms] = {}

    def message(self, number: int) -> str | bytes:
        size = self.chance.choice((0, 1, 30, 900, 1_048, 1_049, 5_000))
        text = f"{number}:" + "x" * size
        return text if self.chance.random() < 0.5 else text.encode()

    def move_now_and_then(self, side: int) -> None:
        if self.moving.random() < 0.1:
            move(self.world, side, self.loses)

    def run(self, until) -> None:
        end = self.world.now + 600
        self.world.settle()
        while not until():
            assert self.world.step()
            assert self.world.now < end
        self.world.settle()

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
                world.step()
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


def move(world: World, side: int, loses: Field) -> None:
    """Go on with another object that was made from the state of the one before, of which one field may get lost."""
    end: End = world.ends[side]
    before = end.channels
    state = before.export(world.now)
    spent = end.chance.getstate()
    after = Channels((5000, 5000), end.limits, end.chance.randbytes, world.now)
    end.chance.setstate(spent)  # a new association draws numbers that it then forgets
    after.restore(less(state, after.export(world.now), loses) if loses else state, world.now)
    after._hold_bytes = before._hold_bytes
    end.channels = after
    assert loses or after.export(world.now) == state


def less(state: dict[str, Any], fresh: dict[str, Any], field: Field) -> dict[str, Any]:
    """Return a state whose one field is as a new association has it."""
    name, *rest = field
    return state | {name: less(state[name], fresh[name], tuple(rest)) if rest else fresh[name]}


def fields(state: dict[str, Any]) -> list[Field]:
    return [
        (name, *rest) for name, value in state.items() for rest in (fields(value) if isinstance(value, dict) else [()])
    ]


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
    for seed in range(max(SEEDS // 20, 25)):
        stayed, moved = Story(seed), Story(seed, moves=True)
        for story in (stayed, moved):
            story.tell()
            story.judge()
        for one, other in zip(stayed.world.ends, moved.world.ends, strict=True):
            assert one.sent == other.sent, seed
            assert one.heard == other.heard


def differs(seed: int, stayed: Story, loses: Field) -> bool:
    """Whether a peer sees that moves lose a field."""
    moved = Story(seed, moves=True, loses=loses)
    try:
        moved.tell()
        moved.judge()
    except Exception:
        return True
    return any(one.sent != other.sent for one, other in zip(stayed.world.ends, moved.world.ends, strict=True))


def test_a_field_that_gets_lost_on_the_way_is_seen_by_a_peer():
    stories = [Story(seed) for seed in range(40)]
    for story in stories:
        story.tell()
    all_fields = fields(End(1).channels.export(0.0))
    assert set(UNTOLD) <= {field[-1] for field in all_fields}
    unseen = [
        field
        for field in all_fields
        if field[-1] not in UNTOLD and not any(differs(seed, stories[seed], field) for seed in range(40))
    ]
    assert unseen == []

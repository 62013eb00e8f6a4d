"""Whatever the load does: an autoscaled pool holds every call, keeps its limits, and stands still under constant load.

And each property fails when the mechanism that holds it is taken out.
"""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import examples
from tests.support.fleet_world import empty_fleet, pool
from voicefleet_contract.resources import Autoscaling
from voicefleet_operator.desired.pool import autoscaling
from voicefleet_operator.desired.pool.autoscaling import autoscaled, remember
from voicefleet_operator.desired.state import Component, Fleet, Pod, PoolResource, Recommendation

CAPACITY, LEAST, MOST, WINDOW_S, POLL_S = 10, 2, 9, 60, 5


class Pool:
    """A pool in polls: callers come back to whoever serves, members that leave keep their calls until these end."""

    def __init__(self, replicas: int, target: int) -> None:
        spec = {"minReplicas": LEAST, "maxReplicas": MOST, "targetUtilization": target}
        self.resource = pool(
            replicas=replicas,
            capacity={"sessions": CAPACITY},
            autoscaling={**spec, "scaleDownStabilization": f"{WINDOW_S}s"},
        )
        self.serving = dict.fromkeys(range(replicas), 0)
        self.draining: dict[int, int] = {}
        self.numbers = replicas
        self.recommendations: dict[str, tuple[Recommendation, ...]] = {}
        self.registry, self.now = True, 1_000.0

    @property
    def calls(self) -> int:
        return sum(self.serving.values()) + sum(self.draining.values())

    def load(self, wanted: int, ending: int) -> None:
        """Let ``ending`` calls of each leaving member end, and callers be ``wanted`` as far as there is room."""
        self.draining = {slot: n - ending for slot, n in self.draining.items() if n > ending}
        left = min(max(0, wanted - sum(self.draining.values())), CAPACITY * len(self.serving))
        slots = sorted(self.serving)
        self.serving = {slot: left // len(slots) + (k < left % len(slots)) for k, slot in enumerate(slots)}

    def fleet(self) -> Fleet:
        members = [(slot, n, None) for slot, n in self.serving.items()]
        members += [(slot, n, 1.0) for slot, n in self.draining.items()]
        pods = [
            Pod(
                f"agents-{slot}", f"u{slot}", Component.TRANSCEIVER, "agents", slot, 1, ready=True, draining_since=since
            )
            for slot, _, since in members
        ]
        return empty_fleet(
            pools={"agents": self.resource},
            pods={pod.name: pod for pod in pods},
            sessions={(slot, 1): n for slot, n, _ in members} if self.registry else {},
            acknowledged={} if self.registry else None,
            recommendations=self.recommendations,
        )

    def poll(self) -> None:
        """One look of the operator, and what it leads to."""
        before = self.fleet()
        self.recommendations = remember(before, self.now)
        after = autoscaled(replace(before, recommendations=self.recommendations), self.now)
        self.resource = after.pools["agents"]
        size, calls = self.resource.spec.replicas, self.calls
        assert LEAST <= size <= MOST, "outside of its limits"
        assert self.registry or size == before.pools["agents"].spec.replicas, "moved without knowing the load"
        assert size >= len(self.serving) or size * CAPACITY >= calls, "shrunk below what is busy"
        while len(self.serving) > size:
            emptiest = min(self.serving, key=lambda slot: (self.serving[slot], -slot))
            self.draining[emptiest] = self.serving.pop(emptiest)
        while len(self.serving) < size:
            self.serving[self.numbers], self.numbers = 0, self.numbers + 1
        self.now += POLL_S


def live(seed: int) -> None:
    """A random day, with the registry away at times."""
    chance = random.Random(seed)
    made = Pool(chance.randint(LEAST, MOST), chance.choice([30, 60, 100]))
    wanted = chance.randint(0, 90)
    for _ in range(60):
        if chance.random() < 0.2:
            wanted = chance.randint(0, 90)
        if chance.random() < 0.05:
            made.registry = not made.registry
        made.load(wanted, chance.choice([0, 0, 0, 1, 3]))
        made.poll()


def stand_still(seed: int) -> None:
    """Constant load with calls that end and come again: after two windows the size never moves."""
    chance = random.Random(seed)
    made = Pool(chance.randint(LEAST, MOST), chance.choice([30, 60, 100]))
    wanted = chance.randint(0, 90)
    sizes = []
    for _ in range(20 * WINDOW_S // POLL_S):
        made.load(wanted, chance.random() < 0.05)  # long calls
        made.poll()
        sizes.append(len(made.serving))
    assert len(set(sizes[2 * WINDOW_S // POLL_S :])) == 1, "oscillates under constant load"


def jitter(seed: int) -> None:
    """Load around a step: the size moves up once, and not down again."""
    chance = random.Random(seed)
    made = Pool(LEAST, 60)
    middle, sizes = chance.randint(10, 50), []
    for turn in range(60):
        made.load(middle + (0, 3, -2, 2, -3)[turn % 5], 1)
        made.poll()
        sizes.append(len(made.serving))
    assert sizes == sorted(sizes), "follows every little move"


@examples(150)
@given(st.integers(0, 1 << 30))
def test_it_never_shrinks_below_what_is_busy_nor_moves_without_knowing_nor_leaves_its_limits(seed):
    live(seed)


@examples(60)
@given(st.integers(0, 1 << 30))
def test_constant_load_means_no_move(seed):
    stand_still(seed)


@examples(60)
@given(st.integers(0, 1 << 30))
def test_jitter_means_one_way_only(seed):
    jitter(seed)


def draining_calls_are_no_demand(patch: pytest.MonkeyPatch) -> None:
    whole = autoscaling.recommend

    def blind(fleet: Fleet, *args: object) -> Recommendation:
        pods = {name: pod for name, pod in fleet.pods.items() if not pod.leaving}
        return whole(replace(fleet, pods=pods), *args)

    patch.setattr(autoscaling, "recommend", blind)


def no_memory(patch: pytest.MonkeyPatch) -> None:
    whole = autoscaling.decide
    patch.setattr(autoscaling, "decide", lambda spec, replicas, said, now: whole(spec, replicas, said[-1:], now))


def no_limits(patch: pytest.MonkeyPatch) -> None:
    whole = autoscaling.decide

    def unbounded(spec: Autoscaling, *args: object) -> int:
        return whole(spec.model_copy(update={"min_replicas": 0, "max_replicas": 99}), *args)

    patch.setattr(autoscaling, "decide", unbounded)


def a_registry_that_is_away_means_no_load(patch: pytest.MonkeyPatch) -> None:
    whole = autoscaling.recommend

    def sure(fleet: Fleet, pool: PoolResource, spec: Autoscaling, now: float) -> Recommendation:
        return Recommendation(now, 0, 0) if fleet.acknowledged is None else whole(fleet, pool, spec, now)

    patch.setattr(autoscaling, "recommend", sure)


def half_of_the_calls_count(patch: pytest.MonkeyPatch) -> None:
    whole = autoscaling.recommend

    def halved(*args: object) -> Recommendation:
        found = whole(*args)
        return replace(found, least=found.least // 2, most=found.most // 2)

    patch.setattr(autoscaling, "recommend", halved)


@pytest.mark.parametrize(
    ("mutate", "story", "says"),
    [
        (draining_calls_are_no_demand, stand_still, "oscillates"),
        (no_memory, jitter, "follows every"),
        (no_limits, live, "outside"),
        (a_registry_that_is_away_means_no_load, live, "moved without"),
        (half_of_the_calls_count, live, "shrunk below"),
    ],
)
def test_the_property_fails_without(mutate: Callable, story: Callable[[int], None], says: str, monkeypatch):
    mutate(monkeypatch)
    with pytest.raises(AssertionError, match=says):
        all(story(seed) or True for seed in range(60))

"""The size of an autoscaled pool, in virtual time: what it follows, what it holds on to, and who else has the say."""

from dataclasses import replace

import pytest

from tests.support.fleet_world import World, empty_fleet, pool
from voicefleet_operator.desired.plan import plan
from voicefleet_operator.desired.pool.autoscaling import remember
from voicefleet_operator.desired.state import Verdict

POLL_S = 5


class Load:
    """A pool of ten-session transceivers whose owners tell the registry, and the operator that reads it."""

    def __init__(self, replicas: int = 2, **autoscaling) -> None:
        spec = {"minReplicas": 2, "maxReplicas": 8, "targetUtilization": 50, "scaleDownStabilization": "60s"}
        self.spec = {**spec, **autoscaling}
        made = pool(replicas=replicas, capacity={"sessions": 10}, autoscaling=self.spec)
        self.world = World(empty_fleet(pools={"agents": made}))
        self.world.settle()
        self.registry = True
        self.silent: set[str] = set()
        self.setups_per_s = 0.0
        self.sizes: list[int] = []

    def call(self, count: int) -> None:
        """So many calls in all: those that drain keep theirs until `end_drained`."""
        kept = {name: n for name, n in self.world.sessions.items() if self._leaves(name)}
        serving = [pod.name for pod in self.world.serving()]
        left = count - sum(kept.values())
        share = {name: left // len(serving) + (n < left % len(serving)) for n, name in enumerate(sorted(serving))}
        self.world.sessions = {**kept, **{name: n for name, n in share.items() if n}}

    def end_drained(self) -> None:
        """Calls of draining members end; new ones take their place elsewhere."""
        count = sum(self.world.sessions.values())
        self.world.sessions = {name: n for name, n in self.world.sessions.items() if not self._leaves(name)}
        self.call(count)

    def _leaves(self, name: str) -> bool:
        pod = self.world.fleet.pods.get(name)
        return pod is None or pod.leaving

    def poll(self, times: int = 1) -> None:
        for _ in range(times):
            world = self.world
            pods = [pod for pod in world.fleet.pods.values() if pod.running and pod.name not in self.silent]
            told = {(pod.slot, pod.generation): world.sessions.get(pod.name, 0) for pod in pods}
            rates = dict.fromkeys(told, self.setups_per_s / max(1, len(told)))
            fleet = replace(
                world.fleet,
                sessions=told if self.registry else {},
                setups_per_s=rates if self.registry else {},
                acknowledged={} if self.registry else None,
            )
            world.fleet = replace(fleet, recommendations=remember(fleet, world.now))
            for _ in range(POLL_S):
                world.step()
            self.sizes.append(self.size)

    @property
    def size(self) -> int:
        return self.world.fleet.pools["agents"].spec.replicas

    def condition(self) -> tuple[str, str, str]:
        found = self.world.fleet.pools["agents"].status["conditions"]
        return next((c["status"], c["reason"], c["message"]) for c in found if c["type"] == "Autoscaling")


def test_it_grows_at_once_to_the_target_and_shrinks_when_a_whole_window_needed_less():
    load = Load()
    load.call(24)
    load.poll(2)
    assert load.size == 5  # 24 calls at half of ten each
    load.call(4)
    load.poll(11)
    assert load.size == 5
    load.poll(3)
    assert load.size == 2


def test_calls_that_drain_count_as_demand_so_shrinking_does_not_feed_itself():
    load = Load(replicas=8, minReplicas=1)
    load.call(20)
    load.poll(30)
    assert load.size == 4
    for _ in range(5):
        load.end_drained()
        load.poll(20)
    assert load.size == 4


@pytest.mark.parametrize("count", [0, 1, 7, 20, 33, 60])
def test_constant_load_means_one_size(count):
    load = Load(replicas=4)
    load.call(count)
    load.poll(40)
    settled = load.size
    load.sizes.clear()
    for _ in range(10):
        load.end_drained()
        load.poll(10)
    assert set(load.sizes) == {settled}


def test_load_that_jitters_around_a_step_moves_the_size_once():
    load = Load()
    for turn in range(40):
        load.call(20 + turn % 2)
        load.poll()
    assert sorted(set(load.sizes)) == [4, 5] or set(load.sizes) == {5}
    changes = sum(a != b for a, b in zip(load.sizes, load.sizes[1:], strict=False))
    assert changes <= 1


def test_a_window_for_growing_ignores_a_peak_that_passes():
    load = Load(scaleUpStabilization="30s")
    load.poll(8)
    load.call(24)
    load.poll(2)
    load.call(4)
    load.poll(8)
    assert set(load.sizes) == {2}
    load.call(24)
    load.poll(8)
    assert load.size == 5


def test_a_buffer_of_free_capacity_and_the_rate_of_new_calls_ask_for_members_too():
    load = Load(bufferSessions=25, setupsPerSecond=2)
    load.call(4)
    load.poll(2)
    assert load.size == 3  # 4 + 25 calls
    load.setups_per_s = 11.0
    load.poll(2)
    assert load.size == 6


def test_it_stays_between_its_limits_and_says_when_the_load_needs_more():
    load = Load(maxReplicas=3)
    load.call(20)
    load.poll(3)
    assert load.size == 3
    assert load.condition() == ("True", "AtMaximum", "2 to 3 replicas: the load needs more; raise maxReplicas")
    other = Load(replicas=1)
    other.poll(1)
    assert other.size == 2


def test_while_the_registry_is_away_it_holds_and_says_so():
    load = Load(replicas=5)
    load.call(24)
    load.poll(3)
    load.registry = False
    load.poll(40)
    assert load.size == 5
    assert load.condition() == ("Unknown", "RegistryAway", "no registry to read load from: holds 5 replicas")
    load.registry = True
    load.call(4)
    load.poll(2)
    assert load.size == 5  # what it knew is too old: a new window begins
    load.poll(14)
    assert load.size == 2


def test_members_that_say_nothing_count_as_idle_for_growing_and_as_full_for_shrinking():
    load = Load(replicas=4)
    load.call(4)
    load.silent = {pod.name for pod in load.world.serving()[:2]}
    load.poll(30)
    assert load.size == 3  # the two that are silent, and one for the calls of the others
    load.silent = set()
    load.poll(30)
    assert load.size == 2


def test_a_member_that_is_out_of_placement_is_no_capacity_and_leaves_first_when_the_pool_shrinks():
    load = Load(replicas=3)
    load.call(15)
    load.poll(2)
    assert load.size == 3
    load.world._change("pods", "agents-0-1", verdict=Verdict(out=True, at=1e9, times=1, why="no media"))
    load.poll(2)
    assert load.size == 4
    load.call(5)
    load.poll(20)
    assert load.size == 2
    assert "agents-0-1" not in {pod.name for pod in load.world.serving()}


def test_a_restarted_operator_shrinks_nothing_before_a_window_has_passed():
    load = Load(replicas=6)
    load.call(30)
    load.poll(5)
    load.call(2)
    load.poll(2)
    load.world.fleet = replace(load.world.fleet, recommendations={})
    load.poll(11)
    assert load.size == 6
    load.poll(4)
    assert load.size == 2


def test_somebody_who_takes_his_replicas_back_causes_no_fence():
    load = Load(replicas=2)
    load.call(24)
    load.poll(3)
    assert load.size == 5
    load.world.change_pool(replicas=1)  # an apply that leaves out what it said before: the default
    todo = plan(load.world.fleet, load.world.now)
    assert (todo.scales, todo.fences) == ({"agents": 5}, ())


def test_a_horizontal_pod_autoscaler_has_the_say_and_the_condition_names_both():
    load = Load(replicas=2)
    load.world.fleet = replace(load.world.fleet, horizontal_autoscalers={"by-cpu": "agents", "other": "pool"})
    load.call(24)
    load.poll(10)
    assert load.size == 2
    status, reason, message = load.condition()
    assert (status, reason) == ("False", "HorizontalPodAutoscalerFound")
    assert "by-cpu" in message
    assert "spec.autoscaling" in message
    load.world.change_pool(replicas=7)  # what it writes counts
    load.poll(2)
    assert load.size == 7


def test_a_pool_that_is_drained_or_paused_is_not_scaled():
    load = Load(replicas=2)
    load.world.annotate_pool()
    load.call(0) if load.world.serving() else None
    load.setups_per_s = 0.0
    load.poll(3)
    assert load.size == 2
    assert load.world.serving() == []


def test_no_message_carries_load_so_steady_load_writes_nothing():
    load = Load(replicas=4)
    load.call(20)
    load.poll(20)
    assert plan(load.world.fleet, load.world.now).quiet
    load.call(19)
    load.poll(1)
    assert plan(load.world.fleet, load.world.now).quiet

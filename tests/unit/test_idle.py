"""Idle marks: slow, few, never on all of a pool, and gone at the first call."""

from dataclasses import replace

from tests.support.fleet_world import World, empty_fleet, pool
from voicefleet_operator.desired.plan import plan
from voicefleet_operator.desired.pool.idle import IDLE_AFTER_S, idle_marks


def idle_pool(replicas: int = 4) -> World:
    made = World(empty_fleet(pools={"agents": pool(replicas=replicas)}))
    made.settle()
    return told(made, dict.fromkeys(range(replicas), 0), since=made.now)


def told(made: World, sessions: dict[int, int], since: float) -> World:
    """Let the registry say what each slot holds, and since when the empty ones are."""
    made.fleet = replace(
        made.fleet,
        acknowledged={},
        sessions={(slot, 1): n for slot, n in sessions.items()},
        idle_since={(slot, 1): since for slot, n in sessions.items() if not n},
    )
    return made


def marks(made: World) -> dict[str, bool]:
    found = {mark.pod: mark.idle for mark in idle_marks(made.fleet, made.fleet.pools["agents"], made.now)}
    for name, idle in found.items():
        made._change("pods", name, idle=idle)
    return found


def test_after_ten_minutes_half_of_the_slots_may_be_taken_the_highest_first():
    made = idle_pool()
    made.now += IDLE_AFTER_S - 1
    assert marks(made) == {}
    made.now += 1
    assert marks(made) == {"agents-3-1": True, "agents-2-1": True}
    assert marks(made) == {}


def test_the_first_call_takes_the_mark_away_and_another_idle_one_may_get_it():
    made = idle_pool()
    made.now += IDLE_AFTER_S
    marks(made)
    told(made, {0: 0, 1: 0, 2: 0, 3: 1}, since=made.now - IDLE_AFTER_S)
    assert marks(made) == {"agents-3-1": False, "agents-1-1": True}


def test_calls_that_come_and_go_cost_at_most_two_writes_in_ten_minutes():
    made = idle_pool(2)
    started, writes = made.now, 0
    ended = made.now
    while made.now < started + 6 * IDLE_AFTER_S:
        made.now += 5
        busy = int(made.now) % 45 < 20
        ended = made.now if busy else ended
        told(made, {0: 1, 1: int(busy)}, since=ended)
        writes += len(marks(made))
    assert writes == 0  # a call every 45 seconds: never idle for long
    told(made, {0: 1, 1: 0}, since=made.now - IDLE_AFTER_S)
    assert len(marks(made)) == 1


def test_a_pool_of_one_is_never_marked_and_a_pod_that_starts_or_leaves_neither():
    alone = idle_pool(1)
    alone.now += 10 * IDLE_AFTER_S
    assert marks(alone) == {}
    made = idle_pool(2)
    made.now += IDLE_AFTER_S
    made._change("pods", "agents-1-1", draining_since=made.now)
    assert marks(made) == {}


def test_while_the_registry_is_away_or_an_owner_says_nothing_marks_stay_as_they_are():
    made = idle_pool()
    made.now += IDLE_AFTER_S
    marks(made)
    made.fleet = replace(made.fleet, sessions={}, idle_since={})
    assert marks(made) == {}
    made.fleet = replace(made.fleet, acknowledged=None)
    assert marks(made) == {}


def test_marks_are_part_of_the_plan_and_the_budget_leaves_marked_pods_out():
    made = idle_pool()
    made.now += IDLE_AFTER_S
    todo = plan(replace(made.fleet, applied={}), made.now)
    assert {mark.pod for mark in todo.marks} == {"agents-2-1", "agents-3-1"}
    assert not todo.quiet
    [budget] = [manifest for manifest in todo.apply if manifest["kind"] == "PodDisruptionBudget"]
    assert budget["spec"]["selector"]["matchExpressions"] == [
        {"key": "voicefleet.dev/idle", "operator": "DoesNotExist"}
    ]

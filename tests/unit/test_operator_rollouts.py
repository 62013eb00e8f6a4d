"""Rollouts: proof before the next slot moves, what stops one, and one on top of another."""

from dataclasses import replace
from datetime import datetime

from tests.support.fleet_world import World, empty_fleet, pool
from voicefleet_contract.topology import join


def world(**spec) -> World:
    made = World(empty_fleet(pools={"agents": pool(**spec)}))
    made.settle()
    return made


def condition(made: World, kind: str) -> dict:
    return {c["type"]: c for c in made.fleet.pools["agents"].status["conditions"]}[kind]


def generations(made: World) -> dict[int, set[int]]:
    found: dict[int, set[int]] = {}
    for pod in made.serving():
        found.setdefault(pod.slot, set()).add(pod.generation)
    return found


def roll_back(made: World) -> None:
    made.fleet = replace(made.fleet, pools={"agents": replace(made.fleet.pools["agents"], spec=pool().spec)})


def test_the_old_generation_stands_by_until_the_new_one_has_been_ready_for_long_enough():
    made = world(replicas=1, rollout={"minReady": "10s"})
    made.change_pool(capacity={"sessions": 10})
    made.step()
    born = made.now
    while made.fleet.pods["agents-0-1"].draining_since is None:
        assert condition(made, "Reconciling")["status"] == "True"  # also when the last new one is ready
        assert generations(made)[0] == {1, 2} or not made.fleet.pods["agents-0-2"].ready
        made.step()
    assert born + 10 <= made.now <= born + 13


def test_an_image_that_starts_and_dies_stops_the_rollout_after_the_surge_and_is_named():
    made = world(replicas=3)
    made.dying_images = {"flaky:1": 4.0}
    made.change_pool(image="flaky:1")
    for _ in range(120):
        made.step()
        assert len({pod.slot for pod in made.serving() if pod.generation == 1}) == 3
    assert len(made.fleet.pods) == 4
    stalled = condition(made, "Stalled")
    assert stalled["status"] == "True"
    assert "CrashLoopBackOff" in stalled["message"]
    assert "apply the old spec to roll back" in stalled["message"]
    since = stalled["lastTransitionTime"]
    for _ in range(30):  # also while it happens to run
        made.step()
        assert condition(made, "Stalled")["lastTransitionTime"] == since
    roll_back(made)
    made.settle()
    assert generations(made) == {0: {1}, 1: {1}, 2: {1}}
    assert condition(made, "Stalled")["status"] == "False"


def test_an_image_that_dies_later_stops_the_rollout_where_it_is():
    made = world(replicas=5)
    made.dying_images = {"leaky:1": 25.0}  # proven, and then it dies
    made.change_pool(image="leaky:1")
    for _ in range(200):
        made.step()
    assert len({pod.slot for pod in made.serving() if pod.generation == 1}) >= 2


def test_old_members_that_are_unready_for_a_moment_are_not_given_up_for_a_bad_image():
    made = world(replicas=3)
    made.bad_images = {"broken:1"}
    made.change_pool(image="broken:1")
    for _ in range(5):
        made.step()
    pods = {n: replace(p, ready=False) if p.generation == 1 else p for n, p in made.fleet.pods.items()}
    made.fleet = replace(made.fleet, pods=pods)  # the network of every node, for a moment
    for _ in range(5):
        made.step()
    assert generations(made) == {0: {1}, 1: {1}, 2: {1}}


def test_a_pool_that_never_served_gets_its_mended_spec_at_once():
    made = World(empty_fleet(pools={"agents": pool(replicas=3, image="broken:1")}))
    made.bad_images = {"broken:1"}
    for _ in range(5):
        made.step()
    assert not made.serving()
    made.change_pool(image="good:1")
    for _ in range(3):
        made.step()
    assert len(made.serving()) == 3


def test_slots_that_serve_nobody_all_move_once_the_new_template_has_proven_itself():
    made = world(replicas=4)
    pods = {n: replace(p, ready=False, running=True) for n, p in made.fleet.pods.items()}
    made.change_pool(capacity={"sessions": 9})
    made._started = lambda pod: (
        replace(pod, running=True, ran=True) if pod.generation == 1 else World._started(made, pod)
    )
    made.fleet = replace(made.fleet, pods=pods)
    made.step()
    assert len({pod.slot for pod in made.fleet.pods.values() if pod.generation == 2}) == 1
    for _ in range(16):
        made.step()
    assert len({pod.slot for pod in made.fleet.pods.values() if pod.generation == 2}) == 4


def test_members_are_weighed_by_capacity_while_a_rollout_changes_it_and_the_ring_counts_its_versions() -> None:
    made = world(replicas=2, capacity={"sessions": 50})
    epoch = made.fleet.pools["agents"].status["ringEpoch"]
    made.change_pool(capacity={"sessions": 100})
    made.step()
    weights = [m.weight for m in join(made.fleet.slices.values()).pools[0].members]
    assert weights[:2] == [50, 50]
    assert made.fleet.pools["agents"].status["ringEpoch"] == epoch + 1
    made.settle()
    assert {m.weight for m in join(made.fleet.slices.values()).pools[0].members} == {100}
    assert made.fleet.pools["agents"].status["ringEpoch"] > epoch + 1


def test_a_second_rollout_while_the_first_ones_old_generation_drains_needs_no_spare_node():
    made = world(replicas=3, ports={"min": 20000, "max": 20008})
    made.sessions = dict.fromkeys(made.fleet.pods, 1)
    for sessions in (10, 20):
        made.change_pool(capacity={"sessions": sessions})
        for _ in range(45):
            made.step()
            made.sessions |= dict.fromkeys([pod.name for pod in made.serving()], 1)
            assert len({pod.slot for pod in made.serving()}) == 3
    assert len(made.fleet.pods) == 9  # three generations of three slots, each with its calls
    assert generations(made) == {0: {3}, 1: {3}, 2: {3}}
    assert not made.deleted
    assert "each keeps its port and 100m CPU, 128Mi memory requested" in condition(made, "Draining")["message"]
    assert condition(made, "PortsAllocated")["status"] == "True"
    assert condition(made, "Reconciling")["status"] == "False"


def test_a_rollout_in_the_middle_of_another_ends_at_the_newest_spec():
    made = world(replicas=3)
    made.change_pool(capacity={"sessions": 10})
    for _ in range(8):
        made.step()
    made.change_pool(capacity={"sessions": 20})
    for _ in range(60):
        made.step()
        assert len({pod.slot for pod in made.serving()}) == 3
    made.settle()
    template = {pod.template for pod in made.serving()}
    assert len(template) == 1
    assert made.fleet.pools["agents"].status["updatedReplicas"] == 3


def test_a_rollout_says_when_it_ends_at_the_earliest_and_does_not_say_it_anew_each_second():
    made = world(replicas=4, rollout={"maxSurge": 1, "minReady": "10s"})
    made.change_pool(capacity={"sessions": 9})
    said = []
    for _ in range(90):
        written = [change for change in made.step().statuses if change.kind == "Transceiver"]
        found = condition(made, "Reconciling")
        said += [found["message"].partition("ends at ")[2]] if written and found["status"] == "True" else []
        if found["status"] == "False":
            break
    ended = made.now
    assert found["reason"] == "Settled"
    told = [text.removesuffix(" at the earliest") for text in said if text]
    assert told == sorted(told), "never earlier than said before"
    last = datetime.fromisoformat(told[-1]).timestamp()
    assert last <= ended <= last + 3
    first = datetime.fromisoformat(told[0]).timestamp()
    assert ended - first <= 4 * 3, "each slot's start is what the first word could not know"
    assert len(said) <= 4 * 4, "a few writes a slot"

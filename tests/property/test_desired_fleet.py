"""Whatever happens to a fleet, in whatever order: what must never be, and that it settles."""

import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import examples
from tests.support.fleet_story import (
    EVENTS,
    all_is_well,
    check_that_it_settles,
    check_then_step,
    happen,
    in_another_order,
    started,
    take_requests_back,
)
from tests.support.fleet_world import World, empty_fleet, pool
from voicefleet_contract.topology import MemberState, join
from voicefleet_operator.desired.plan import plan
from voicefleet_operator.desired.state import Place

_EVENTS = st.sampled_from(sorted(EVENTS)).flatmap(lambda what: st.tuples(st.just(what), st.integers(*EVENTS[what])))
_SLOW = examples(120)


@_SLOW
@given(st.lists(_EVENTS, max_size=25))
def test_no_port_slot_or_generation_has_two_holders_and_no_call_is_cut_short(events):
    world = started()
    for event in events:
        happen(world, event)
        check_then_step(world)


@_SLOW
@given(st.lists(_EVENTS, max_size=25))
def test_from_any_reachable_state_the_fleet_settles_as_wanted_and_then_nothing_is_left_to_do(events):
    world = started()
    for event in events:
        happen(world, event)
    all_is_well(world)
    world.processes, world.fleet = set(), replace(world.fleet, foreign={})
    check_that_it_settles(world)


@_SLOW
@given(st.lists(_EVENTS, max_size=10), st.sets(st.integers(20000, 20013), max_size=3), st.integers(0, 2))
def test_it_settles_in_spite_of_processes_and_pods_that_keep_some_ports_for_ever(events, ports, node):
    world = started()
    for event in events:
        happen(world, event)
    all_is_well(world)
    world.processes = {Place(f"node-{number}", port) for port in ports for number in range(3)}
    world.fleet = replace(world.fleet, foreign={})
    world.claim("for-ever", f"node-{node}", 20004)
    check_that_it_settles(world)


@_SLOW
@given(st.lists(_EVENTS, max_size=15), st.randoms(use_true_random=False))
def test_the_same_observations_in_any_order_give_the_same_plan(events, chance: random.Random):
    world = started()
    for event in events:
        happen(world, event)

    assert plan(in_another_order(world.fleet, chance), world.now) == plan(world.fleet, world.now)


@_SLOW
@given(st.integers(1, 3), st.integers(0, 2), st.integers(1, 5))
def test_a_rollout_never_leaves_more_slots_without_a_ready_member_than_allowed(surge, unavailable, replicas):
    limits = {"maxSurge": surge, "maxUnavailable": unavailable}
    world = World(empty_fleet(pools={"agents": pool(replicas=replicas, rollout=limits)}))
    world.settle()
    world.change_pool(capacity={"sessions": 7}, rollout=limits)
    for _ in range(80):
        started = world.step().create_pods  # ready at the end of the step, so each step's are all that move
        assert len(started) <= surge + unavailable, "more slots on the move than allowed"
        assert len({pod.slot for pod in world.serving()}) >= replicas - unavailable
    assert {pod.generation for pod in world.serving()} == {2}


@_SLOW
@given(st.integers(0, 3), st.integers(0, 2), st.integers(1, 5), st.booleans())
def test_an_image_that_does_not_work_touches_no_more_slots_than_the_limits(surge, unavailable, replicas, dies):
    limits = {"maxSurge": surge, "maxUnavailable": unavailable}
    world = World(empty_fleet(pools={"agents": pool(replicas=replicas, rollout=limits)}))
    world.settle()
    world.bad_images, world.dying_images = ({"bad:1"}, {}) if not dies else (set(), {"bad:1": 3.0})
    world.change_pool(image="bad:1", rollout=limits)
    for _ in range(60):
        world.step()
        untouched = {pod.slot for pod in world.serving() if pod.generation == 1}
        assert len(untouched) >= replicas - unavailable
    assert len({pod.slot for pod in world.fleet.pods.values() if pod.generation > 1}) <= surge + unavailable


@_SLOW
@given(st.lists(_EVENTS, max_size=20))
def test_a_ring_epoch_moves_with_the_ring_and_never_goes_back(events):
    world = started()
    epoch, slots = None, None
    for event in events:
        happen(world, event)
        world.step()
        found = [p for p in join(world.fleet.slices.values()).pools if p.name == "agents"]
        if not found:
            continue
        active = {m.slot for m in found[0].members if m.state is MemberState.ACTIVE}
        if epoch is not None:
            assert found[0].ring_epoch >= epoch
            assert active == slots or found[0].ring_epoch > epoch
        epoch, slots = found[0].ring_epoch, active


@_SLOW
@given(st.lists(_EVENTS, max_size=25))
def test_a_pod_that_was_told_to_drain_is_in_no_ring_and_never_comes_back_to_one(events):
    world = started()
    for event in events:
        happen(world, event)
        told = set(world.told)
        world.step()  # the plan that publishes what was fenced before
        for part in join(world.fleet.slices.values()).pools:
            offered = {member.name for member in part.members if member.state is MemberState.ACTIVE}
            assert not offered & told, "a draining pod is offered to gateways"


@_SLOW
@given(st.lists(st.sampled_from(["pod", "node", "cordon", "back", "step", "step"]), max_size=20), st.integers(0, 20))
def test_whoever_is_asked_to_leave_a_pool_never_serves_with_fewer_slots_than_wanted(events, number):
    world = World(empty_fleet(pools={"agents": pool(replicas=3)}))
    world.settle()
    for event in events:
        names = sorted(world.fleet.pods)
        if event == "pod":
            world.annotate_pod(names[number % len(names)])
        elif event == "node":
            world.annotate_node(f"node-{number % 3}")
        elif event == "cordon":
            world.cordon(f"node-{(number + 1) % 3}")
        elif event == "back":
            take_requests_back(world)
        else:
            world.step()
        assert len({pod.slot for pod in world.serving()}) == 3

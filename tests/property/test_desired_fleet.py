"""Whatever happens to a fleet, in whatever order: what must never be, and that it settles."""

import random
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.fleet_world import World, empty_fleet, pool, relay
from voicefleet_contract.topology import MemberState, join
from voicefleet_operator.desired.plan import plan
from voicefleet_operator.desired.state import Component

_EVENTS = st.one_of(
    st.tuples(st.just("scale"), st.integers(0, 5)),
    st.tuples(st.just("change"), st.integers(1, 4)),
    st.tuples(st.just("ports"), st.integers(0, 1)),
    st.tuples(st.just("lose a pod"), st.integers(0, 20)),
    st.tuples(st.just("a pod ends"), st.integers(0, 20)),
    st.tuples(st.just("a call"), st.integers(0, 20)),
    st.tuples(st.just("calls end"), st.just(0)),
    st.tuples(st.just("annotate a pod"), st.integers(0, 20)),
    st.tuples(st.just("annotate a node"), st.integers(0, 2)),
    st.tuples(st.just("cordon"), st.integers(0, 2)),
    st.tuples(st.just("take requests back"), st.just(0)),
    st.tuples(st.just("drain the pool"), st.booleans()),
    st.tuples(st.just("evict"), st.integers(0, 20)),
    st.tuples(st.just("control API away"), st.booleans()),
    st.tuples(st.just("bad image"), st.booleans()),
    st.tuples(st.just("pool comes or goes"), st.just(0)),
    st.tuples(st.just("lose a plan half done"), st.integers(0, 3)),
    st.tuples(st.just("steps"), st.integers(1, 6)),
    st.tuples(st.just("time"), st.integers(1, 5000)),
)


def happen(world: World, event: tuple[str, int]) -> None:
    what, number = event
    names = sorted(world.fleet.pods)
    has_pool = "agents" in world.fleet.pools
    if what == "scale" and has_pool:
        world.change_pool(replicas=number)
    elif what == "change" and has_pool:
        world.change_pool(capacity={"sessions": number})
    elif what == "ports" and has_pool:
        world.change_pool(ports={"min": 20000 + 5 * number, "max": 20011 + 5 * number})
    elif what == "lose a pod" and names:
        lost = names[number % len(names)]
        world.sessions.pop(lost, None)
        world.fleet = replace(world.fleet, pods={n: p for n, p in world.fleet.pods.items() if n != lost})
    elif what == "a pod ends" and names:
        name = names[number % len(names)]
        world.sessions.pop(name, None)
        ended = replace(world.fleet.pods[name], finished=True, running=False, ready=False)
        world.fleet = replace(world.fleet, pods={**world.fleet.pods, name: ended})
    elif what == "a call" and names:
        # A gateway may work from an old ring: whoever was not told yet takes the call, fenced or not.
        pod = world.fleet.pods[names[number % len(names)]]
        if pod.ready and pod.name not in world.told:
            world.sessions[pod.name] = world.sessions.get(pod.name, 0) + 1
    elif what == "calls end":
        world.sessions.clear()
    elif what == "annotate a pod" and names:
        world.annotate_pod(names[number % len(names)])
    elif what == "annotate a node":
        world.annotate_node(f"node-{number}")
    elif what == "cordon":
        world.cordon(f"node-{number}")
    elif what == "take requests back":
        take_requests_back(world)
    elif what == "drain the pool" and has_pool:
        world.annotate_pool("true" if number else "false")
    elif what == "evict" and names:
        name = names[number % len(names)]
        if not world.fleet.pods[name].deleting:
            world.delete_pod(name, grace_s=75)
    elif what == "control API away":
        world.deaf = set(names) if number else set()
    elif what == "bad image":
        world.bad_images = {"voicefleet:1"} if number else set()
    elif what == "pool comes or goes":
        pools = dict(world.fleet.pools)
        if pools.pop("second", None) is None:
            pools["second"] = pool("second", replicas=2, ports={"min": 20005, "max": 20015})
        world.fleet = replace(
            world.fleet,
            pools=pools,
            pods={n: p for n, p in world.fleet.pods.items() if p.resource in pools},  # owner references
        )
    elif what == "lose a plan half done":
        todo = plan(world.fleet, world.now)
        halves = [
            replace(todo, create_pods=(), fences=(), deletes=(), apply=(), slices={}, statuses=()),
            replace(todo, fences=(), deletes=(), apply=(), slices={}, statuses=()),
            replace(todo, deletes=(), apply=(), slices={}, statuses=()),
            replace(todo, slices={}, stale_slices=(), statuses=()),
        ]
        world.carry_out(halves[number])
    elif what == "steps":
        for _ in range(number):
            check_then_step(world)
    elif what == "time":
        world.now += number


def take_requests_back(world: World) -> None:
    for name in world.fleet.pods:
        world.annotate_pod(name, "false")
    for name in world.fleet.nodes:
        world.annotate_node(name, "false")
        world.uncordon(name)
    if "agents" in world.fleet.pools:
        world.annotate_pool("false")


def check_then_step(world: World) -> None:
    before = world.fleet
    deadline = {name: p.spec.drain.deadline for name, p in before.pools.items()}
    todo = plan(before, world.now)
    for delete in todo.deletes:
        pod = before.pods[delete.pod]
        if world.sessions.get(pod.name) and pod.running:
            assert pod.draining_since is not None, "deleted with calls, never fenced"
            assert world.now >= pod.draining_since + deadline[pod.resource], "deleted with calls before the deadline"
    world.step()
    check(world)


def check(world: World) -> None:
    pods = [pod for pod in world.fleet.pods.values() if pod.component is Component.TRANSCEIVER]
    ports = [pod.port for pod in pods]
    assert len(ports) == len(set(ports)), "a port number given twice"
    assert len({(pod.slot, pod.generation) for pod in pods}) == len(pods)
    holders: dict[int, set[str]] = {}
    for pod in pods:
        holders.setdefault(pod.slot, set()).add(pod.resource)
    assert all(len(pools) == 1 for pools in holders.values()), "a slot with pods of two pools"
    for topology_pool in join(world.fleet.slices.values()).pools if world.fleet.slices else ():
        for member in topology_pool.members:
            pod = world.fleet.pods.get(member.name)
            if pod is not None and member.state is MemberState.ACTIVE:
                assert pod.slot == member.slot
                assert pod.generation == member.generation


_SLOW = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def started() -> World:
    world = World(empty_fleet(pools={"agents": pool(ports={"min": 20000, "max": 20011})}, relays={"fra": relay()}))
    world.settle()
    return world


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
    world.bad_images, world.sessions, world.deaf = set(), {}, set()
    take_requests_back(world)
    world.settle()
    for name, resource in world.fleet.pools.items():
        assert len(world.serving(name)) == resource.spec.replicas
        assert len({pod.slot for pod in world.serving(name)}) == resource.spec.replicas
    assert plan(world.fleet, world.now + 100_000).quiet


@_SLOW
@given(st.lists(_EVENTS, max_size=15), st.randoms(use_true_random=False))
def test_the_same_observations_in_any_order_give_the_same_plan(events, chance: random.Random):
    world = started()
    for event in events:
        happen(world, event)

    def shuffled(mapping):
        items = list(mapping.items())
        chance.shuffle(items)
        return dict(items)

    fleet = world.fleet
    other = replace(
        fleet,
        pods=shuffled(fleet.pods),
        drained=shuffled(fleet.drained),
        pools=shuffled(fleet.pools),
        nodes=shuffled(fleet.nodes),
        slices=shuffled(fleet.slices),
        ledger=replace(fleet.ledger, entries=shuffled(fleet.ledger.entries)),
    )
    assert plan(other, world.now) == plan(fleet, world.now)


@_SLOW
@given(st.integers(1, 3), st.integers(0, 2), st.integers(1, 5))
def test_a_rollout_never_leaves_more_slots_without_a_ready_member_than_allowed(surge, unavailable, replicas):
    limits = {"maxSurge": surge, "maxUnavailable": unavailable}
    world = World(empty_fleet(pools={"agents": pool(replicas=replicas, rollout=limits)}))
    world.settle()
    world.change_pool(capacity={"sessions": 7}, rollout=limits)
    for _ in range(80):
        world.step()
        assert len({pod.slot for pod in world.serving()}) >= replicas - unavailable
    assert {pod.generation for pod in world.serving()} == {2}


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

"""What may happen to a fleet, and what must hold all the while: for property tests and for their mutations.

An event is a word and a number, so that a test can draw it and shrink it.
"""

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from tests.support.fleet_world import World, empty_fleet, pool, relay
from voicefleet_contract import names
from voicefleet_contract.topology import MemberState, Pool, join
from voicefleet_operator.desired.plan import Plan, plan
from voicefleet_operator.desired.pool.quarantine import QUARANTINE_S
from voicefleet_operator.desired.state import Component, Fleet, Place

Event = tuple[str, int]
K, V = TypeVar("K"), TypeVar("V")

# event → the numbers that it may come with
EVENTS: dict[str, tuple[int, int]] = {
    "scale": (0, 5),
    "change": (1, 4),
    "ports": (0, 1),
    "rollout": (0, 3),
    "lose a pod": (0, 20),
    "a pod ends": (0, 20),
    "a call": (0, 20),
    "calls end": (0, 0),
    "annotate a pod": (0, 20),
    "annotate a node": (0, 2),
    "cordon": (0, 2),
    "take requests back": (0, 0),
    "drain the pool": (0, 1),
    "evict": (0, 20),
    "control API away": (0, 1),
    "bad image": (0, 1),
    "dying image": (0, 1),
    "pool comes or goes": (0, 0),
    "a foreign pod comes": (0, 40),
    "foreign pods go": (0, 0),
    "a process takes a port": (0, 40),
    "processes go": (0, 0),
    "lose a plan half done": (0, 4),
    "steps": (1, 6),
    "time": (1, 5000),
}
_LIMITS = ((1, 0), (2, 0), (0, 1), (1, 1))  # maxSurge, maxUnavailable


def started() -> World:
    world = World(empty_fleet(pools={"agents": pool(ports={"min": 20000, "max": 20011})}, relays={"fra": relay()}))
    world.settle()
    return world


def happen(world: World, event: Event) -> None:
    """Let one thing happen."""
    what, number = event
    pods = sorted(world.fleet.pods)
    has_pool = "agents" in world.fleet.pools
    if what == "scale" and has_pool:
        world.change_pool(replicas=number)
    elif what == "change" and has_pool:
        world.change_pool(capacity={"sessions": number})
    elif what == "ports" and has_pool:
        world.change_pool(ports={"min": 20000 + 5 * number, "max": 20011 + 5 * number})
    elif what == "lose a pod" and pods:
        lost = pods[number % len(pods)]
        world.sessions.pop(lost, None)
        world.fleet = replace(world.fleet, pods={n: p for n, p in world.fleet.pods.items() if n != lost})
    elif what == "a pod ends" and pods:
        name = pods[number % len(pods)]
        world.sessions.pop(name, None)
        ended = replace(world.fleet.pods[name], finished=True, running=False, ready=False)
        world.fleet = replace(world.fleet, pods={**world.fleet.pods, name: ended})
    elif what == "a call" and pods:
        # A gateway may work from an old ring: whoever was not told yet takes the call, fenced or not.
        pod = world.fleet.pods[pods[number % len(pods)]]
        if pod.ready and pod.name not in world.told:
            world.sessions[pod.name] = world.sessions.get(pod.name, 0) + 1
    elif what == "calls end":
        world.sessions.clear()
    elif what == "annotate a pod" and pods:
        world.annotate_pod(pods[number % len(pods)])
    elif what == "annotate a node":
        world.annotate_node(f"node-{number}")
    elif what == "cordon":
        world.cordon(f"node-{number}")
    elif what == "take requests back":
        take_requests_back(world)
    elif what == "drain the pool" and has_pool:
        world.annotate_pool("true" if number else "false")
    elif what == "evict" and pods:
        name = pods[number % len(pods)]
        if not world.fleet.pods[name].deleting:
            world.delete_pod(name, grace_s=75)
    elif what == "control API away":
        world.deaf = set(pods) if number else set()
    elif what == "rollout" and has_pool:
        surge, unavailable = _LIMITS[number]
        world.change_pool(rollout={"maxSurge": surge, "maxUnavailable": unavailable})
    elif what == "bad image":
        world.bad_images = {"voicefleet:1"} if number else set()
    elif what == "dying image":
        world.dying_images = {"voicefleet:1": 3.0} if number else {}
    elif what == "a foreign pod comes":
        world.claim(f"game-{number}", f"node-{number % 3}", 20000 + number % 14)
    elif what == "foreign pods go":
        world.fleet = replace(world.fleet, foreign={})
    elif what == "a process takes a port":
        world.processes.add(Place(f"node-{number % 3}", 20000 + number % 14))
    elif what == "processes go":
        world.processes.clear()
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
            replace(todo, ledger=None, create_pods=(), fences=(), deletes=(), apply=(), slices={}, statuses=()),
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
    """Let nobody ask for a drain any more."""
    for name in world.fleet.pods:
        world.annotate_pod(name, "false")
    for name in world.fleet.nodes:
        world.annotate_node(name, "false")
        world.uncordon(name)
    if "agents" in world.fleet.pools:
        world.annotate_pool("false")


def all_is_well(world: World) -> None:
    """Take away whatever was wrong or asked for; processes and foreign pods stay."""
    world.bad_images, world.dying_images, world.sessions, world.deaf = set(), {}, {}, set()
    take_requests_back(world)


def check_then_step(world: World) -> None:
    """Do one plan, and check what it does to calls and to the pool, and the state after it."""
    before = world.fleet
    deadline = {name: p.spec.drain.deadline for name, p in before.pools.items()}
    todo = plan(before, world.now)
    for delete in todo.deletes:
        pod = before.pods[delete.pod]
        if world.sessions.get(pod.name) and pod.running:
            assert pod.draining_since is not None, "deleted with calls, never fenced"
            assert world.now >= pod.draining_since + deadline[pod.resource], "deleted with calls before the deadline"
        assert pod.leaving, "deleted while it was to serve"
    check_budget(before, todo)
    check_refused_numbers(world, todo)
    world.step()
    check(world)
    active = {m.name for p in topology_pools(world) for m in p.members if m.state is MemberState.ACTIVE}
    fenced = {name for name, pod in before.pods.items() if pod.leaving}
    assert not active & fenced, "a pod that was fenced a plan ago is still given calls"


def check_budget(before: Fleet, todo: Plan) -> None:
    """Check that a plan takes no more wanted slots out of service than the pool allows."""
    going = {fence.pod for fence in todo.fences} | {delete.pod for delete in todo.deletes}
    for name, resource in before.pools.items():
        serving = [pod for pod in before.pods_of(Component.TRANSCEIVER, name) if pod.ready and not pod.leaving]
        wanted = set((todo.ledger or before.ledger).held_by(name))
        served_before = {pod.slot for pod in serving} & wanted
        served_after = {pod.slot for pod in serving if pod.name not in going} & wanted
        if served_after != served_before:
            assert len(wanted - served_after) <= resource.spec.rollout.max_unavailable, "more slots out than allowed"


def check_refused_numbers(world: World, todo: Plan) -> None:
    """Check that a number that was found taken is left in peace for as long as it was promised."""
    for manifest in todo.create_pods:
        port = int(manifest["metadata"]["labels"][names.LABEL_PORT])
        assert world.now >= world.refused.get(port, -QUARANTINE_S) + QUARANTINE_S, (
            "a number in quarantine was given out"
        )
    for fence in todo.fences:
        pod = world.fleet.pods[fence.pod]
        if pod.port_refused is not None and not pod.ready:
            world.refused[pod.port] = world.now


def topology_pools(world: World) -> tuple[Pool, ...]:
    """Return what is published."""
    return join(world.fleet.slices.values()).pools if world.fleet.slices else ()


def check(world: World) -> None:
    """Check what must hold in every state."""
    pods = [pod for pod in world.fleet.pods.values() if pod.component is Component.TRANSCEIVER]
    ports = [pod.port for pod in pods]
    assert len(ports) == len(set(ports)), "a port number given twice"
    assert len({(pod.slot, pod.generation) for pod in pods}) == len(pods)
    holders: dict[int, set[str]] = {}
    for pod in pods:
        holders.setdefault(pod.slot, set()).add(pod.resource)
    assert all(len(pools) == 1 for pools in holders.values()), "a slot with pods of two pools"
    for topology_pool in topology_pools(world):
        for member in topology_pool.members:
            pod = world.fleet.pods.get(member.name)
            if pod is not None and member.state is MemberState.ACTIVE:
                assert pod.slot == member.slot
                assert pod.generation == member.generation


def check_that_it_settles(world: World) -> None:
    """Let time pass until nothing is left to do: every pool is then as wanted, whoever else holds ports."""
    world.settle()
    for name, resource in world.fleet.pools.items():
        assert len(world.serving(name)) == resource.spec.replicas, "not settled as wanted"
        assert len({pod.slot for pod in world.serving(name)}) == resource.spec.replicas
    world.now += 1_000  # numbers come out of quarantine
    world.settle()
    assert plan(world.fleet, world.now + 100_000).quiet


def in_another_order(fleet: Fleet, chance: random.Random) -> Fleet:
    """Return the same observations as if they had been made in another order."""

    def shuffled(mapping: Mapping[K, V]) -> dict[K, V]:
        items = list(mapping.items())
        chance.shuffle(items)
        return dict(items)

    return replace(
        fleet,
        pods=shuffled(fleet.pods),
        drained=shuffled(fleet.drained),
        pools=shuffled(fleet.pools),
        nodes=shuffled(fleet.nodes),
        slices=shuffled(fleet.slices),
        foreign=shuffled(fleet.foreign),
        quarantine=shuffled(fleet.quarantine),
        ledger=replace(fleet.ledger, entries=shuffled(fleet.ledger.entries)),
    )

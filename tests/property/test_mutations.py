"""Each property of the fleet fails when the mechanism that holds it is taken out: what the properties are worth.

A mutation takes one mechanism away; random stories then run until the property breaks. One that never breaks would mean
that the property cannot fail, or that something else holds it too and the mechanism is not needed.
"""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

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
from voicefleet_contract.topology import Member, MemberState
from voicefleet_operator.desired import plan as planning
from voicefleet_operator.desired.ledger import Entry, Ledger
from voicefleet_operator.desired.pool import rollout
from voicefleet_operator.desired.pool import steps as transceiver
from voicefleet_operator.desired.pool.drain import why_asked
from voicefleet_operator.desired.pool.ports import PortLedger
from voicefleet_operator.desired.pool.rollout import Moves
from voicefleet_operator.desired.pool.steps import Delete
from voicefleet_operator.desired.publish import topology
from voicefleet_operator.desired.state import Component, Fleet, Place

SEEDS = 80  # the slowest to break needs about a quarter of them
Break = Callable[[pytest.MonkeyPatch], None]


def told(seed: int, length: int = 25) -> World:
    """Live through a random story, checking at every step."""
    chance, world = random.Random(seed), started()
    for _ in range(length):
        what = chance.choice(sorted(EVENTS))
        happen(world, (what, chance.randint(*EVENTS[what])))
        check_then_step(world)
    return world


def settled_in_spite_of_processes(seed: int) -> None:
    world = told(seed, length=4)
    all_is_well(world)
    chance = random.Random(seed)
    world.processes = {Place(f"node-{n}", 20000 + p) for p in chance.sample(range(14), 3) for n in range(3)}
    world.fleet = replace(world.fleet, foreign={})
    check_that_it_settles(world)


def among_many_processes(seed: int) -> None:
    """Lose a pod where most numbers are held: the slot must not go round and round among those that it knows."""
    world = started()
    world.processes = {Place(f"node-{n}", 20000 + p) for p in (0, 1, 2, 3, 6, 7, 8, 9) for n in range(3)}
    happen(world, ("lose a pod", seed))
    for _ in range(20):
        check_then_step(world)


def asked_to_leave(seed: int) -> None:
    """Ask pods and nodes to leave, never two nodes at a time: the pool serves with every slot all the while."""
    chance, world = random.Random(seed), World(empty_fleet(pools={"agents": pool(replicas=3)}))
    world.settle()
    for _ in range(4):
        node, pod = f"node-{chance.randrange(3)}", chance.choice(sorted(world.fleet.pods))
        ask, whom = chance.choice([(world.annotate_node, node), (world.cordon, node), (world.annotate_pod, pod)])
        ask(whom)
        asked = [pod for pod in world.serving() if why_asked(world.fleet, pod)]
        made = len(world.pairs)
        for _ in range(60):
            world.step()
            assert len({pod.slot for pod in world.serving()}) == 3, "fewer slots serve"
        assert len(world.pairs) == made + len(asked), "replacements of replacements"
        take_requests_back(world)


def all_nodes_to_be_emptied_for_a_time(seed: int) -> None:
    world = started()
    for node in world.fleet.nodes:
        world.annotate_node(node)
    happen(world, ("evict", seed))
    for _ in range(5):
        check_then_step(world)
    take_requests_back(world)
    check_that_it_settles(world)


def same_in_any_order(seed: int) -> None:
    world = told(seed, length=8)
    other = in_another_order(world.fleet, random.Random(seed))
    assert planning.plan(other, world.now) == planning.plan(world.fleet, world.now)


def ports_given_without_looking_at_ours(patch: pytest.MonkeyPatch) -> None:
    best = PortLedger._best

    def blind(self: PortLedger, *args: object) -> int | None:
        self._ours = set()
        return best(self, *args)

    patch.setattr(PortLedger, "_best", blind)


def deleted_instead_of_fenced(patch: pytest.MonkeyPatch) -> None:
    steps = transceiver.pool_steps

    def hasty(*args: object) -> transceiver.PoolSteps:
        found = steps(*args)
        instead = tuple(Delete(fence.pod, fence.uid, 5, "no fence") for fence in found.fences)
        return replace(found, fences=(), deletes=(*found.deletes, *instead))

    patch.setattr(planning, "pool_steps", hasty)


def fenced_and_deleted_without_asking(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(transceiver, "_reason_to_delete", lambda *_: "no patience")


def fenced_ones_stay_in_the_ring(patch: pytest.MonkeyPatch) -> None:
    entry = topology._member

    def unfenced(*args: object) -> Member | None:
        found = entry(*args)
        return found and found.model_copy(update={"state": MemberState.ACTIVE})

    patch.setattr(topology, "_member", unfenced)


def every_slot_at_once(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        transceiver,
        "next_moves",
        lambda views, _: Moves((), tuple(view.slot for view in views if view.waiting)),
    )


def without_proof(patch: pytest.MonkeyPatch) -> None:
    look = transceiver.look_at_slot

    def trusting(*args: object) -> object:
        view = look(*args)
        return replace(view, proven=view.fresh is not None)

    patch.setattr(transceiver, "look_at_slot", trusting)


def generations_not_counted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Ledger, "next_generation", lambda self, slot: self.entries.get(slot, Entry("", 1)).generation)


def no_quarantine(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(transceiver, "_without_their_port", lambda *_: ((), []))


def quarantine_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(planning, "extended", lambda *_: {})


def leaves_before_its_replacement(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rollout.SlotView, "needless", lambda self: [*self.superfluous, *self.stale])


def replacements_anywhere(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(planning, "avoided_nodes", lambda _: ())


def waits_for_a_node_that_it_avoids_in_vain(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(transceiver, "avoids_in_vain", lambda *_: False)


def pods_in_the_order_of_arrival(patch: pytest.MonkeyPatch) -> None:
    def unsorted(self: Fleet, component: Component, resource: str) -> list[object]:
        return [pod for pod in self.pods.values() if pod.component is component and pod.resource == resource]

    patch.setattr(Fleet, "pods_of", unsorted)


MUTATIONS: list[tuple[Break, Callable[[int], object], str]] = [
    (ports_given_without_looking_at_ours, told, "a port number given twice"),
    (deleted_instead_of_fenced, told, "deleted with calls, never fenced|deleted while it was to serve"),
    (fenced_and_deleted_without_asking, told, "deleted with calls before the deadline"),
    (fenced_ones_stay_in_the_ring, told, "is still given calls"),
    (every_slot_at_once, told, "more slots out than allowed"),
    (without_proof, told, "more slots out than allowed"),
    (generations_not_counted, told, "exists|twice"),
    (no_quarantine, settled_in_spite_of_processes, "not settled|assert"),
    (quarantine_forgotten, among_many_processes, "a number in quarantine was given out"),
    (leaves_before_its_replacement, asked_to_leave, "fewer slots serve"),
    (replacements_anywhere, asked_to_leave, "replacements of replacements"),
    (waits_for_a_node_that_it_avoids_in_vain, all_nodes_to_be_emptied_for_a_time, "not settled|assert"),
    (pods_in_the_order_of_arrival, same_in_any_order, "assert"),
]


@pytest.mark.parametrize(("mutate", "story", "says"), MUTATIONS, ids=[mutate.__name__ for mutate, _, _ in MUTATIONS])
def test_the_property_fails_without(mutate: Break, story: Callable[[int], object], says: str, monkeypatch) -> None:
    story(0)  # whole, it holds
    mutate(monkeypatch)
    with pytest.raises(AssertionError, match=says):
        all(story(seed) or True for seed in range(SEEDS))

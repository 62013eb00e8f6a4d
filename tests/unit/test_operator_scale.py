"""What a large fleet costs in writes: one pod's change is a few, rest is none."""

from dataclasses import replace

from tests.support.fleet_world import World, empty_fleet, pool
from voicefleet_contract.topology import join
from voicefleet_operator.desired.plan import plan
from voicefleet_operator.desired.pool.steps import CREATES_PER_PASS


def settled(replicas: int, nodes: int = 20) -> World:
    world = World(empty_fleet(nodes, pools={"agents": pool(replicas=replicas, ports={"min": 20000, "max": 29999})}))
    world.settle()
    return world


def epoch(world: World) -> int:
    return join(world.fleet.slices.values()).pools[0].ring_epoch


def lose(world: World, *slots: int) -> None:
    kept = {name: pod for name, pod in world.fleet.pods.items() if pod.slot not in slots}
    world.fleet = replace(world.fleet, pods=kept)


def test_the_loss_of_one_pod_rewrites_its_slice_alone_and_moves_the_epoch_of_the_pool():
    world = settled(700)
    before = epoch(world)
    lose(world, 450)
    todo = plan(world.fleet, world.now)
    assert list(todo.slices) == ["pool-agents-2"]
    assert todo.stale_slices == ()
    assert [change.kind for change in todo.statuses] == ["Transceiver"]
    world.carry_out(todo)
    assert epoch(world) == before + 1
    assert len(todo.create_pods) == 1


def test_the_news_of_a_slice_that_went_away_with_its_last_member_is_carried_by_another():
    world = settled(201)
    lose(world, 200)
    world.fleet = replace(world.fleet, pools={"agents": pool(replicas=200, ports={"min": 20000, "max": 29999})})
    before = epoch(world)
    todo = plan(world.fleet, world.now)
    assert todo.stale_slices == ("pool-agents-1",)
    world.carry_out(todo)
    assert epoch(world) == before + 1


def test_a_fleet_at_rest_writes_nothing():
    world = settled(450)
    assert plan(world.fleet, world.now + 86_400).quiet


def test_a_pool_of_thousands_is_made_in_passes():
    fleet = empty_fleet(20, pools={"agents": pool(replicas=1200, ports={"min": 20000, "max": 29999})})
    world = World(fleet)
    made = [len(world.step().create_pods) for _ in range(4)]
    assert made == [CREATES_PER_PASS, CREATES_PER_PASS, 200, 0]
    world.settle()
    assert len(world.serving()) == 1200

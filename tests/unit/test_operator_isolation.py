"""A spec that breaks the plan: everything else of the fleet goes on."""

from dataclasses import replace

import pytest

from tests.support.fleet_world import World, empty_fleet, pool, relay
from voicefleet_contract.resources import VoiceRelaySpec
from voicefleet_operator.desired import plan as planning
from voicefleet_operator.desired.isolation import plan_around
from voicefleet_operator.desired.pool.steps import pool_steps


def two_pools() -> World:
    pools = {"agents": pool(replicas=2), "others": pool("others", replicas=2, ports={"min": 21000, "max": 21019})}
    world = World(empty_fleet(pools=pools))
    world.settle()
    return world


def test_a_resource_that_breaks_the_plan_is_left_as_it_is_and_the_others_are_mended(monkeypatch):
    world = two_pools()

    def broken(fleet, resource, *more):
        if resource.name == "agents":
            raise ZeroDivisionError("of ours")
        return pool_steps(fleet, resource, *more)

    monkeypatch.setattr(planning, "pool_steps", broken)
    lost = next(pod.name for pod in world.fleet.pods.values() if pod.resource == "others")
    fleet = replace(world.fleet, pods={name: pod for name, pod in world.fleet.pods.items() if name != lost})
    todo, problem = plan_around(fleet, world.now)
    assert isinstance(problem, ZeroDivisionError)
    assert [manifest["metadata"]["labels"]["voicefleet.dev/pool"] for manifest in todo.create_pods] == ["others"]
    assert list(todo.slices) == ["pool-others-0"]
    assert (todo.prune, todo.stale_slices, todo.fences, todo.deletes) == ((), (), (), ())
    said = {change.name: {c["type"]: c for c in change.status["conditions"]} for change in todo.statuses}
    assert said["agents"]["Stalled"]["reason"] == "NotUnderstood"
    assert "ZeroDivisionError: of ours" in said["agents"]["Stalled"]["message"]


def test_what_no_single_resource_explains_is_raised(monkeypatch):
    monkeypatch.setattr(planning, "pool_steps", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        plan_around(two_pools().fleet, 1.0)


def test_a_sound_fleet_is_planned_once():
    world = two_pools()
    assert plan_around(world.fleet, world.now) == (planning.plan(world.fleet, world.now), None)


@pytest.mark.parametrize(
    ("cpu", "workers"),
    [("1500m", 2), (4, 4), ("3", 3), ("2500000u", 3), ("1k", 32), ("2Ki", 32), ("0.5", 1), (".5", 1), ("1.", 1)],
)
def test_every_quantity_of_cpu_that_admission_takes_is_understood(cpu, workers):
    spec = relay(datapath="Userspace", resources={"requests": {"cpu": cpu}}).spec
    assert isinstance(spec, VoiceRelaySpec)
    assert spec.worker_count == workers

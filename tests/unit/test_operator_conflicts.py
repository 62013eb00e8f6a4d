"""Contradictions between resources, and what the API server refuses: conditions name them, what runs is left alone."""

from dataclasses import replace

import pytest

from tests.support.fleet_world import World, empty_fleet, pool, relay
from tests.support.objects_api import Api
from voicefleet_operator.cluster.api import KubeError
from voicefleet_operator.cluster.apply import LedgerStore, apply_plan
from voicefleet_operator.desired.plan import plan
from voicefleet_operator.desired.state import Fleet, Refusal


def condition(world: World, kind: str, name: str, wanted: str) -> dict:
    resources = world.fleet.relays if kind == "VoiceRelay" else world.fleet.pools
    return {c["type"]: c for c in resources[name].status["conditions"]}[wanted]


def test_a_second_relay_on_the_same_port_and_nodes_is_not_rolled_out_and_both_say_so():
    world = World(empty_fleet(2, relays={"fra": relay("fra")}))
    world.settle()
    world.fleet = replace(world.fleet, relays={**world.fleet.relays, "ams": relay("ams", port=3479)})
    todo = world.step()
    assert [m["metadata"]["name"] for m in todo.apply] == []
    for name, other in (("fra", "ams"), ("ams", "fra")):
        said = condition(world, "VoiceRelay", name, "PortsAllocated")
        assert (said["status"], said["reason"]) == ("False", "PortConflict")
        assert f"VoiceRelay {other} wants port 3479 too, on node-0, node-1" in said["message"]
    assert ("DaemonSet", "fra-relay") in world.fleet.applied


def test_relays_on_other_nodes_or_other_ports_do_not_conflict():
    world = World(empty_fleet(2, relays={"fra": relay("fra"), "ams": relay("ams", port=5000, innerPort=5001)}))
    world.settle()
    assert {name for _, name in world.fleet.applied} == {"fra-relay", "ams-relay"}
    assert condition(world, "VoiceRelay", "fra", "PortsAllocated")["status"] == "True"


def test_of_two_new_relays_that_conflict_the_first_by_name_is_rolled_out():
    world = World(empty_fleet(2, relays={"fra": relay("fra"), "ams": relay("ams")}))
    world.settle()
    assert {name for _, name in world.fleet.applied} == {"ams-relay"}


def test_a_conflict_that_is_mended_rolls_out():
    world = World(empty_fleet(2, relays={"fra": relay("fra"), "ams": relay("ams")}))
    world.settle()
    world.fleet = replace(world.fleet, relays={**world.fleet.relays, "fra": relay("fra", port=5000, innerPort=5001)})
    world.settle()
    assert {name for _, name in world.fleet.applied} == {"ams-relay", "fra-relay"}


async def carried_out(fleet: Fleet, **refuse: int) -> tuple[Api, dict]:
    api = Api()
    api.refuse = refuse
    ledger = LedgerStore(api)
    await ledger.read()
    refused = await apply_plan(api, ledger, plan(fleet, 1.0), 1.0, lambda *_: None, lambda *_: None)
    return api, refused


FLEET = empty_fleet(2, pools={"agents": pool(replicas=2)}, relays={"fra": relay()})


async def test_a_refused_pod_stops_nothing_else_and_its_pool_is_named_without_the_pods_name():
    api, refused = await carried_out(FLEET, Pod=403)
    assert {kind for _, kind, _ in api.calls} >= {"DaemonSet", "TopologySlice", "Transceiver", "VoiceRelay"}
    assert refused == {("Transceiver", "agents"): "no agents"}


@pytest.mark.parametrize("status", [0, 409, 410, 429, 500, 503])
async def test_a_server_that_cannot_now_ends_the_pass(status: int):
    with pytest.raises(KubeError) as caught:
        await carried_out(FLEET, DaemonSet=status)
    assert caught.value.status == status


def test_after_a_refusal_no_generation_is_burnt_until_it_is_time_to_ask_again():
    refused = {("Transceiver", "agents"): Refusal("exceeded quota: pods", 31.0)}
    fleet = replace(FLEET, refused=refused)
    world = World(fleet)
    todo = plan(fleet, 1.0)
    assert todo.create_pods == ()
    assert todo.look_again_at == 31.0
    world.carry_out(todo)
    said = condition(world, "Transceiver", "agents", "Stalled")
    assert (said["status"], said["reason"]) == ("True", "Refused")
    assert "exceeded quota: pods" in said["message"]
    assert len(plan(world.fleet, 31.0).create_pods) == 2
    assert plan(world.fleet, 20.0).statuses == ()  # the same words again are no news

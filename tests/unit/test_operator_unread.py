"""A value that this release does not know (an older operator, a newer CRD): the resource and its calls are left as they are."""

from dataclasses import replace

import pytest

from tests.support.fleet_world import CONFIG, World, empty_fleet, pool, relay
from tests.unit.test_operator_shell import store
from voicefleet_contract.topology import MemberState, RelayState, Topology, join
from voicefleet_operator.cluster.observe import observe_pod
from voicefleet_operator.desired.gauges import fleet_gauges
from voicefleet_operator.desired.plan import plan
from voicefleet_operator.desired.state import Component, Pod, Unread

PROBLEM = "Transceiver agents: spec.backend.type: no such backend"


def topology(world: World) -> Topology:
    return join(world.fleet.slices.values())


def settled() -> World:
    """Two pools, and relays on two nodes, of which one resource each is not understood any more."""
    relays = {name: relay(name, port=port, innerPort=port + 1) for name, port in (("fra", 3478), ("ams", 4478))}
    pools = {"agents": pool(replicas=3), "others": pool("others", replicas=1, ports={"min": 21000, "max": 21019})}
    pods = {
        f"{name}-{node}": Pod(
            *(f"{name}-{node}", f"uid-{name}-{node}", Component.RELAY, name),
            node=f"node-{node}",
            host_ip=f"10.0.0.{node + 1}",
            running=True,
            ready=True,
        )
        for name in relays
        for node in range(2)
    }
    world = World(empty_fleet(2, relays=relays, pools=pools, pods=pods))
    world.settle()
    fleet = world.fleet
    unread = {
        ("Transceiver", "agents"): Unread(2, PROBLEM, fleet.pools["agents"].status),
        ("VoiceRelay", "fra"): Unread(2, "VoiceRelay fra: spec.datapath", fleet.relays["fra"].status),
    }
    kept = {"pools": {"others": fleet.pools["others"]}, "relays": {"ams": fleet.relays["ams"]}}
    world.fleet = replace(fleet, unread=unread, **kept)
    return world


def test_slots_pods_budgets_and_topology_stay_and_the_status_says_why():
    world = settled()
    before = topology(world)
    todo = plan(world.fleet, world.now)
    assert {(change.kind, change.name) for change in todo.statuses} == {
        ("Transceiver", "agents"),
        ("VoiceRelay", "fra"),
    }
    assert replace(todo, statuses=(), look_again_at=None).quiet
    [status] = [change.status for change in todo.statuses if change.kind == "Transceiver"]
    said = {c["type"]: c for c in status["conditions"]}
    assert (said["Stalled"]["status"], said["Stalled"]["reason"]) == ("True", "NotUnderstood")
    assert PROBLEM in said["Stalled"]["message"]
    assert said["Ready"]["status"] == "True", "what was said of it before stands"
    assert topology(world) == before
    told = {
        key: replace(one, status=status if key[0] == "Transceiver" else one.status)
        for key, one in world.fleet.unread.items()
    }
    stalled = {
        tuple(one.labels.values()): one.value
        for one in fleet_gauges(replace(world.fleet, unread=told), world.now)
        if one.name == "voicefleet_condition" and one.labels["condition"] == "Stalled"
    }
    assert stalled["Transceiver", "agents", "Stalled"] == 1, "an alert sees it"
    again = plan(replace(world.fleet, unread=told), world.now + 60)
    assert [change.kind for change in again.statuses] == ["VoiceRelay"], "said once"


def test_of_its_topology_only_what_is_observed_of_pods_moves():
    world = settled()
    gone, sick, *_ = [pod for pod in world.fleet.pods.values() if pod.resource == "agents"]
    pods = {name: pod for name, pod in world.fleet.pods.items() if pod is not gone}
    pods[sick.name] = replace(sick, ready=False)
    pods["fra-1"] = replace(pods["fra-1"], ready=False)
    world.fleet = replace(world.fleet, pods=pods)
    before = topology(world)
    todo = plan(world.fleet, world.now)
    assert todo.create_pods == ()
    world.carry_out(replace(todo, statuses=()))
    now = topology(world)
    [agents] = [one for one in now.pools if one.name == "agents"]
    assert {member.name: member.state for member in agents.members}[sick.name] is MemberState.STARTING
    assert gone.name not in {member.name for member in agents.members}
    assert agents.ring_epoch == next(one.ring_epoch for one in before.pools if one.name == "agents") + 1
    states = {entry.name: entry.state for entry in now.relays}
    assert states["fra-node-0"] is RelayState.ACTIVE
    assert states["fra-node-1"] is RelayState.DRAINING
    assert not any(entry.leaving for entry in now.relays)
    world.fleet = replace(world.fleet, pods={**world.fleet.pods, "fra-1": replace(pods["fra-1"], ready=True)})
    world.carry_out(replace(plan(world.fleet, world.now), statuses=()))
    assert {entry.state for entry in topology(world).relays} == {RelayState.ACTIVE}


@pytest.mark.parametrize("understood_again", [True, False])
def test_a_resource_is_there_whether_it_is_understood_or_not_until_it_is_deleted(understood_again):
    made = store()
    spec = {"ports": {"min": 20000, "max": 20019}}

    def take(version: int, **more: object) -> None:
        metadata = {"name": "agents", "uid": "u", "generation": version, "resourceVersion": str(version)}
        made.take("Transceiver", {"metadata": metadata, "spec": {**spec, **more}})

    take(1)
    take(2, backend={"type": "OfTheFuture"})
    fleet = made.fleet()
    assert fleet is not None and fleet.config == CONFIG
    assert fleet.pools == {}
    assert fleet.is_unread("Transceiver", "agents")
    if understood_again:
        take(3)
    else:
        made.forget("Transceiver", "agents", 3)
    fleet = made.fleet()
    assert fleet is not None
    assert fleet.unread == {}
    assert set(fleet.pools) == ({"agents"} if understood_again else set())


def test_a_pod_whose_verdict_is_not_understood_is_a_member_like_any_other():
    labels = {
        "app.kubernetes.io/component": "transceiver",
        "voicefleet.dev/pool": "agents",
        "voicefleet.dev/slot": "4",
        "voicefleet.dev/generation": "2",
        "voicefleet.dev/port": "20004",
    }
    metadata = {"name": "agents-4-2", "uid": "u", "labels": labels, "annotations": {"voicefleet.dev/gray": "{}"}}
    assert observe_pod({"metadata": metadata, "spec": {}, "status": {}}).verdict is None

"""Contradictions between resources, and what the API server refuses: conditions name them, what runs is left alone."""

from dataclasses import replace

from tests.support.fleet_world import World, empty_fleet, pool, relay
from voicefleet_operator.desired.plan import plan
from voicefleet_operator.desired.state import Component, ForeignPod, Pod, PortRefusal, Refusal


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


def test_a_relay_whose_port_is_a_worker_of_anothers_conflicts_with_it():
    workers = {"datapath": "Userspace", "workers": 4}
    world = World(empty_fleet(1, relays={"fra": relay("fra", **workers)}))  # 3478, 3479 to 3482
    world.settle()
    world.fleet = replace(
        world.fleet, relays={**world.fleet.relays, "ams": relay("ams", port=3481, innerPort=5000, **workers)}
    )
    world.step()
    assert ("DaemonSet", "ams-relay") not in world.fleet.applied
    assert "VoiceRelay ams wants port 3481 too" in condition(world, "VoiceRelay", "fra", "PortsAllocated")["message"]


def relay_pod(name: str, **fields) -> Pod:
    return Pod(name, f"uid-{name}", Component.RELAY, "fra", **fields)


def relay_ports(*pods: Pod, **fields) -> tuple[str, str, str]:
    world = World(empty_fleet(3, relays={"fra": relay("fra")}, pods={pod.name: pod for pod in pods}, **fields))
    world.carry_out(plan(world.fleet, world.now))
    said = condition(world, "VoiceRelay", "fra", "PortsAllocated")
    return said["status"], said["reason"], said["message"]


SERVES = relay_pod("a", node="node-0", ready=True, running=True)
WAITS = relay_pod("b", trouble="Unschedulable", port_refused=PortRefusal.SCHEDULER)
LOBBY = {"games/lobby-1": ForeignPod("games/lobby-1", "node-1", frozenset({3478, 7000}))}


def test_a_relay_that_cannot_have_its_port_says_which_one_where_and_who_holds_it():
    taken = relay_pod("c", node="node-2", running=False, port_refused=PortRefusal.NODE)
    ours = Pod("t", "u", Component.TRANSCEIVER, "agents", slot=1, generation=1, port=3479, node="node-1")
    assert relay_ports(SERVES, WAITS, foreign=LOBBY)[:2] == ("False", "PortConflict")
    assert "3478 on node-1 is held by pod games/lobby-1" in relay_ports(SERVES, WAITS, foreign=LOBBY)[2]
    assert "3479 on node-1 is held by pod t of Transceiver agents" in relay_ports(SERVES, WAITS, ours)[2]
    assert "3478 or 3479 on node-2 is held by a process on the node" in relay_ports(SERVES, taken)[2]
    unseen = relay_ports(SERVES, WAITS)
    assert unseen[:2] == ("False", "PortConflict")
    assert "a pod that the operator may not see" in unseen[2]


def test_a_relay_that_has_its_port_says_nothing_of_others_that_declare_it_elsewhere():
    assert relay_ports(SERVES, foreign=LOBBY) == ("True", "Allocated", "")
    waits_for_something_else = relay_pod("b", trouble="Unschedulable")
    assert relay_ports(SERVES, waits_for_something_else, foreign=LOBBY)[0] == "True"


FLEET = empty_fleet(2, pools={"agents": pool(replicas=2)}, relays={"fra": relay()})


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

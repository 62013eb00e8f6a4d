"""Which relays the topology calls leaving, and what a VoiceRelay's status says of them."""

from dataclasses import replace

import pytest

from tests.support.fleet_world import relay
from tests.unit.test_operator_fleet import by_kind, fleet_with_relays, relay_pod, relays_of, settled
from voicefleet_contract.drain import DrainRequest
from voicefleet_contract.topology import RelayState
from voicefleet_operator.desired.plan import plan
from voicefleet_operator.desired.relay.leaving import roughly
from voicefleet_operator.desired.state import Fleet

ZONE_A = {"placement": {"nodeSelector": {"zone": "a"}}}


def two_relays() -> Fleet:
    """Relays on node-0 and node-1, ready; node-2 is not chosen."""
    fleet = fleet_with_relays(relay_pod("node-0"), relay_pod("node-1"), spec=ZONE_A)
    elsewhere = replace(fleet.nodes["node-2"], labels={"zone": "b"})
    return replace(fleet, nodes={**fleet.nodes, "node-2": elsewhere})


def seen(world, **fields):
    """The world after one more plan of a changed observation."""
    world.fleet = replace(world.fleet, **fields)
    world.carry_out(plan(world.fleet, 2.0))
    return relays_of(world)


def unchosen(fleet: Fleet, node="node-1") -> dict:
    return {**fleet.nodes, node: replace(fleet.nodes[node], labels={})}


def terminating(fleet: Fleet, node="node-1") -> dict:
    return {name: replace(pod, deleting=pod.node == node or pod.deleting) for name, pod in fleet.pods.items()}


def condition(world) -> dict:
    found = {c["type"]: c for c in world.fleet.relays["fra"].status["conditions"]}
    return found["Draining"]


def test_a_relay_that_is_replaced_does_not_leave():
    world = settled(two_relays())
    for pods in (terminating(world.fleet), {}):
        entry = seen(world, pods=pods)["node-1"]
        assert (entry.state, entry.leaving) == (RelayState.DRAINING, False)


def test_a_relay_whose_node_is_not_chosen_any_more_leaves_while_its_pod_is_there():
    world = settled(two_relays())
    relays = seen(world, nodes=unchosen(world.fleet))
    assert (relays["node-1"].state, relays["node-1"].leaving) == (RelayState.DRAINING, True)
    assert (relays["node-0"].state, relays["node-0"].leaving) == (RelayState.ACTIVE, False)
    assert seen(world, pods=terminating(world.fleet))["node-1"].leaving
    assert seen(world, pods={"fra-relay-node-0": relay_pod("node-0")}).keys() == {"node-0"}


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"leaving": "cordoned"}, "node-1 is cordoned"),
        ({"leaving": "tainted karpenter.sh/disrupted"}, "node-1 is tainted karpenter.sh/disrupted"),
        ({"drain": DrainRequest()}, "node-1 is annotated"),
    ],
)
def test_a_node_that_is_to_be_emptied_takes_its_relay_out_of_new_calls_until_it_is_given_back(fields, why):
    world = settled(two_relays())
    before = world.fleet.nodes
    emptied = {**before, "node-1": replace(before["node-1"], **fields)}
    entry = seen(world, nodes=emptied)["node-1"]
    assert (entry.state, entry.leaving) == (RelayState.DRAINING, True)
    assert why in condition(world)["message"]
    one_pod = {"fra-relay-node-0": relay_pod("node-0")}
    assert seen(world, pods=one_pod)["node-1"].leaving  # its DaemonSet puts a pod there all the same
    assert not seen(world, nodes=before, pods=world.fleet.pods)["node-1"].leaving


def test_when_every_relay_drains_the_resource_is_not_ready_and_says_so():
    world = settled(two_relays())
    seen(world, nodes={name: replace(node, leaving="cordoned") for name, node in world.fleet.nodes.items()})
    assert world.fleet.relays["fra"].status["conditions"][0]["reason"] == "AllDraining"


def test_the_other_relays_are_all_that_is_wanted_meanwhile():
    world = settled(two_relays())
    seen(world, nodes=unchosen(world.fleet))
    status = world.fleet.relays["fra"].status
    assert (status["nodes"], status["ready"], status["draining"]) == (1, 1, 1)
    assert status["conditions"][0]["status"] == "True"


def test_relays_of_a_deleted_voicerelay_leave_and_are_trusted_until_their_pods_are_gone():
    world = settled(two_relays())
    pods = {name: replace(pod, deleting=True) for name, pod in world.fleet.pods.items()}
    relays = seen(world, relays={}, pods=pods)
    assert {(entry.state, entry.leaving) for entry in relays.values()} == {(RelayState.DRAINING, True)}
    assert relays["node-0"].inner[0].as_address() == ("10.0.0.1", 3479)
    assert seen(world, relays={}).keys() == {"node-0", "node-1"}  # as long as the pods are there
    assert seen(world, pods={}) == {}


def test_a_voicerelay_that_waits_for_a_finalizer_leaves_too():
    world = settled(two_relays())
    gone = replace(world.fleet.relays["fra"], deleting=True)
    assert all(entry.leaving for entry in seen(world, relays={"fra": gone}).values())


def test_a_node_that_is_chosen_again_keeps_its_relay():
    world = settled(two_relays())
    before = world.fleet.nodes
    assert seen(world, nodes=unchosen(world.fleet))["node-1"].leaving
    entry = seen(world, nodes=before)["node-1"]
    assert (entry.state, entry.leaving) == (RelayState.ACTIVE, False)


def test_the_condition_says_who_leaves_why_and_how_many_flows_are_left():
    world = settled(two_relays())
    assert (condition(world)["status"], condition(world)["reason"]) == ("False", "NoneDraining")
    seen(world, nodes=unchosen(world.fleet))
    assert condition(world)["message"] == "fra-node-1: flows not told yet (spec.placement no longer chooses the node)"
    seen(world, flows_left={"fra-relay-node-1": 12_345, "fra-relay-node-0": 7})
    assert "fra-node-1: about 13000 flows left" in condition(world)["message"]
    assert plan(world.fleet, 3.0).quiet


@pytest.mark.parametrize(
    ("flows", "said"), [(0, 0), (7, 7), (99, 99), (101, 110), (12_345, 13_000), (999_999, 1_000_000)]
)
def test_flows_are_counted_down_in_few_steps(flows, said):
    assert roughly(flows) == said


def test_the_kubelet_waits_longer_than_the_relay():
    fleet = fleet_with_relays(spec={"drain": {"deadline": "5m"}})
    spec = by_kind(fleet)["DaemonSet"]["spec"]["template"]["spec"]
    env = {one["name"]: one.get("value") for one in spec["containers"][0]["env"]}
    assert float(env["VOICEFLEET_DRAIN_DEADLINE_S"]) == 300
    assert spec["terminationGracePeriodSeconds"] > 300


def test_a_field_that_nobody_set_is_not_in_what_a_relay_is_made_from():
    with_default = fleet_with_relays(spec={"drain": {"deadline": "60m"}})
    without = fleet_with_relays()
    made = [by_kind(fleet)["DaemonSet"]["metadata"]["annotations"] for fleet in (with_default, without)]
    assert made[0] == made[1]
    assert relay().spec.drain.deadline == 3600

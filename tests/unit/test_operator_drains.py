"""Who leaves and how: annotations, cordons, evictions, deadlines; and what the status says of it."""

from dataclasses import replace

from tests.support.fleet_world import World, empty_fleet, nodes, pool
from voicefleet_contract.resources import DrainPolicy
from voicefleet_contract.topology import MemberState, join
from voicefleet_operator.desired.plan import plan
from voicefleet_operator.desired.pool.drain import MOST_AVOIDED_NODES, avoided_nodes, draining_pods, terms
from voicefleet_operator.desired.pool.drain_status import MOST_PODS
from voicefleet_operator.desired.state import Drained, Node


def world(node_count: int = 3, **spec) -> World:
    made = World(empty_fleet(node_count, pools={"agents": pool(**spec)}))
    made.settle()
    return made


def step(made: World, times: int = 1) -> None:
    for _ in range(times):
        made.step()


def names(made: World) -> list[str]:
    return [pod.name for pod in made.serving()]


def status(made: World) -> dict:
    return made.fleet.pools["agents"].status


def draining(made: World) -> dict:
    return next(c for c in status(made)["conditions"] if c["type"] == "Draining")


def states(made: World) -> dict[str, MemberState]:
    return {m.name: m.state for m in join(made.fleet.slices.values()).pools[0].members}


# ---- who asks


def test_an_annotated_pod_serves_until_its_replacement_is_ready_and_then_waits_for_its_calls():
    made = world()
    made.sessions = {"agents-1-1": 1}
    made.annotate_pod("agents-1-1")
    fewest = 3
    for _ in range(30):
        made.step()
        fewest = min(fewest, len({pod.slot for pod in made.serving()}))
    assert fewest == 3
    assert names(made) == ["agents-0-1", "agents-1-2", "agents-2-1"]
    assert states(made)["agents-1-1"] is MemberState.DRAINING
    made.sessions = {}
    made.settle()
    assert sorted(made.fleet.pods) == ["agents-0-1", "agents-1-2", "agents-2-1"]


def test_a_cordoned_node_is_emptied_to_the_others():
    for leaving in ("cordoned", "tainted karpenter.sh/disrupted"):
        made = world()
        [pod] = [pod for pod in made.serving() if pod.node == "node-1"]
        made.cordon("node-1", leaving=leaving)
        made.settle()
        assert pod.name not in made.fleet.pods
        assert {p.node for p in made.serving()} == {"node-0", "node-2"}
        assert len(made.serving()) == 3


def test_a_node_that_is_annotated_and_not_cordoned_gets_no_replacement_either():
    made = world()
    made.annotate_node("node-1")
    made.settle()
    assert {p.node for p in made.serving()} == {"node-0", "node-2"}
    assert len(made.pairs) == 4  # one replacement, not one after the other


def test_when_every_node_is_cordoned_everything_goes_on_serving_and_the_condition_says_why():
    made = world(replicas=2)
    for node in made.fleet.nodes:
        made.cordon(node)
    step(made, 20)
    assert names(made) == ["agents-0-1", "agents-1-1"]
    assert (draining(made)["status"], draining(made)["reason"]) == ("True", "WaitingForReplacements")
    assert "agents-0-1 (node-0 is cordoned)" in draining(made)["message"]


def test_a_pod_that_found_no_node_while_all_were_to_be_emptied_is_made_again_when_one_is_not():
    made = world(replicas=1)
    for node in made.fleet.nodes:
        made.annotate_node(node)
    made.delete_pod("agents-0-1", grace_s=0)
    step(made, 5)
    assert names(made) == []
    made.annotate_node("node-2", "false")
    made.settle()
    assert [pod.node for pod in made.serving()] == ["node-2"]


def test_a_request_taken_back_before_the_fence_keeps_the_pod():
    made = world(replicas=1)
    for node in made.fleet.nodes:
        made.cordon(node)  # its replacement finds no node
    step(made, 3)
    assert not made.fleet.pods["agents-0-2"].ready
    for node in made.fleet.nodes:
        made.uncordon(node)
    made.settle()
    assert names(made) == ["agents-0-1"]


def test_a_request_taken_back_after_the_fence_changes_nothing_for_the_pod():
    made = world(replicas=1)
    made.sessions = {"agents-0-1": 1}
    made.annotate_pod("agents-0-1")
    step(made, 15)
    made.annotate_pod("agents-0-1", "false")
    step(made, 15)
    assert states(made)["agents-0-1"] is MemberState.DRAINING
    assert names(made) == ["agents-0-2"]


def test_a_drained_pool_takes_no_calls_and_serves_again_when_the_annotation_goes():
    made = world(replicas=2)
    made.sessions = {"agents-1-1": 1}
    made.annotate_pool()
    step(made, 6)
    assert names(made) == []
    assert status(made)["replicas"] == 0
    ready = next(c for c in status(made)["conditions"] if c["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "Drained")
    made.annotate_pool("false")
    step(made, 6)
    assert len(made.serving()) == 2
    assert {pod.slot for pod in made.serving()} >= {1}  # what still drains comes back first
    assert "agents-1-1" in made.fleet.pods


def test_scaling_down_takes_what_is_asked_to_leave_anyway_before_the_emptiest():
    made = world(replicas=3)
    made.fleet = replace(made.fleet, sessions={(0, 1): 9, (1, 1): 0, (2, 1): 0})
    made.sessions = {"agents-0-1": 9}
    made.cordon("node-0")
    made.change_pool(replicas=2)
    step(made, 4)
    assert names(made) == ["agents-1-1", "agents-2-1"]
    assert states(made)["agents-0-1"] is MemberState.DRAINING
    assert len(made.pairs) == 3  # no replacement for what is not wanted


def test_a_draining_pod_is_in_no_count_of_replicas():
    made = world(replicas=3)
    made.sessions = dict.fromkeys(made.fleet.pods, 1)
    made.change_pool(replicas=1)
    step(made, 4)
    assert (status(made)["replicas"], status(made)["drainingReplicas"]) == (1, 2)


def test_an_annotation_that_says_nothing_known_is_not_followed_and_is_named():
    made = world(replicas=1)
    node = made.serving()[0].node
    made._change("nodes", node, drain_problem="'soon': write true")
    made.settle()
    assert names(made) == ["agents-0-1"]
    assert (draining(made)["status"], draining(made)["reason"]) == ("False", "AnnotationInvalid")
    assert f"not followed: node {node}: 'soon'" in draining(made)["message"]


# ---- terms and deadlines


def test_the_nearest_request_says_the_terms_and_leaves_the_rest_to_the_pool():
    made = world(replicas=1, drain={"deadline": "1h", "policy": "Wait"})
    [pod] = made.serving()
    resource = made.fleet.pools["agents"]
    made.annotate_pool("2h")
    made.annotate_node(pod.node, "HangUp 10m")
    made.annotate_pod(pod.name, "5m")
    fleet = made.fleet
    found = terms(fleet, fleet.pools["agents"], fleet.pods[pod.name])
    assert (found.policy, found.deadline_s) == (DrainPolicy.HANG_UP, 300)
    bare = terms(empty_fleet(), resource, pod)
    assert (bare.policy, bare.deadline_s) == (DrainPolicy.WAIT, 3600)


def drained_to_nothing(**drain) -> World:
    made = world(replicas=1, drain=drain)
    made.sessions = {"agents-0-1": 9}
    made.change_pool(replicas=0)
    step(made, 2)
    return made


def test_at_the_deadline_the_transceiver_hangs_up_and_only_then_is_the_pod_deleted():
    made = drained_to_nothing(deadline="10m", policy="Wait")
    since = made.fleet.pods["agents-0-1"].draining_since
    [(_, hang_up_at)] = draining_pods(made.fleet)
    assert hang_up_at == since + 600
    made.now = since + 599
    made.step()
    assert made.sessions
    assert not plan(made.fleet, since + 600).deletes
    step(made, 3)
    assert made.sessions == {}
    assert made.deleted == ["agents-0-1"]


def test_hang_up_waits_only_until_gateways_know_the_ring():
    made = drained_to_nothing(deadline="10m", policy="HangUp")
    since = made.fleet.pods["agents-0-1"].draining_since
    [(_, hang_up_at)] = draining_pods(made.fleet)
    assert hang_up_at == since + 2


def test_a_transceiver_that_does_not_hang_up_is_deleted_half_a_minute_after_its_deadline_with_little_grace():
    made = drained_to_nothing(deadline="10m", policy="Wait")
    since = made.fleet.pods["agents-0-1"].draining_since
    made.fleet = replace(made.fleet, drained={})  # an older one, or one that is stuck
    assert not plan(made.fleet, since + 629).deletes
    (delete,) = plan(made.fleet, since + 630).deletes
    assert (delete.why, delete.grace_s) == ("deadline", 5)


# ---- somebody else deletes


def test_an_evicted_pod_is_replaced_at_once_and_drains_inside_its_grace():
    made = world(replicas=2)
    made.sessions = {"agents-0-1": 3}
    made.delete_pod("agents-0-1", grace_s=100)
    killed_at = made.now + 100
    step(made, 2)
    assert names(made) == ["agents-0-2", "agents-1-1"]
    assert states(made)["agents-0-1"] is MemberState.DRAINING
    [(pod, hang_up_at)] = draining_pods(made.fleet)
    assert (pod.name, hang_up_at) == ("agents-0-1", killed_at - 5)  # BYE, then SIGKILL
    made.now = hang_up_at
    step(made, 2)
    assert "agents-0-1" not in made.fleet.pods


def test_nothing_may_be_evicted_that_the_operator_has_not_emptied_and_each_pod_has_one_budget():
    made = world(replicas=2)
    budgets = plan(replace(made.fleet, applied={}), made.now).apply
    assert [m["kind"] for m in budgets] == ["PodDisruptionBudget"]
    spec = budgets[0]["spec"]
    assert spec["maxUnavailable"] == 0
    assert spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    assert spec["selector"]["matchLabels"]["voicefleet.dev/pool"] == "agents"
    assert budgets[0]["metadata"]["ownerReferences"][0]["kind"] == "Transceiver"


def test_the_affinity_of_a_replacement_stays_small_and_names_annotated_nodes_first():
    many = {f"n{i}": Node(f"n{i}", leaving="cordoned") for i in range(MOST_AVOIDED_NODES + 9)}
    made = World(replace(empty_fleet(), nodes=many | nodes(1)))
    made.annotate_node("node-0")
    avoided = avoided_nodes(made.fleet)
    assert len(avoided) == MOST_AVOIDED_NODES
    assert avoided[0] == "node-0"


# ---- status.drain


def test_the_status_names_what_is_left_the_oldest_call_and_when_the_last_has_ended():
    made = world(replicas=3, drain={"deadline": "1h"}, session={"maxDuration": "30m"})
    made.sessions = {"agents-1-1": 2, "agents-2-1": 1}
    made.change_pool(replicas=1)
    step(made, 2)
    fleet = made.fleet
    one, two = fleet.pods["agents-1-1"], fleet.pods["agents-2-1"]
    answers = {one.uid: Drained("draining", 2, 100.0, 900.0), two.uid: Drained("draining", 1, 500.0, 500.0)}
    fleet = replace(fleet, drained=answers)
    made.now += 60
    (change,) = plan(fleet, made.now).statuses
    drain = change.status["drain"]
    assert (drain["sessions"], drain["unknown"], drain["morePods"]) == (3, 0, 0)
    assert drain["oldestSession"] == "1970-01-01T00:01:40Z"
    assert drain["eta"] == "1970-01-01T00:45:00Z"  # the newest call's longest duration comes before the deadline
    assert [pod["name"] for pod in drain["pods"]] == ["agents-1-1", "agents-2-1"]
    assert drain["pods"][0]["reason"] == "not wanted"


def test_calls_that_end_rewrite_the_status_no_more_than_every_ten_seconds():
    made = world(replicas=2)
    made.sessions = {"agents-1-1": 100}
    made.change_pool(replicas=1)
    step(made, 3)
    writes = 0
    for _ in range(60):
        made.sessions["agents-1-1"] -= 1
        writes += len(made.step().statuses)
    assert 5 <= writes <= 7
    assert plan(made.fleet, made.now).look_again_at is not None


def test_a_thousand_draining_pods_are_counted_and_few_are_listed():
    made = world(replicas=40, ports={"min": 20000, "max": 20100})
    made.sessions = dict.fromkeys(made.fleet.pods, 1)
    made.change_pool(replicas=0)
    step(made, 3)
    drain = status(made)["drain"]
    assert (drain["sessions"], len(drain["pods"]), drain["morePods"]) == (40, MOST_PODS, 40 - MOST_PODS)


def test_when_the_drain_is_over_the_status_says_so():
    made = world(replicas=2)
    made.sessions = {"agents-1-1": 1}
    made.change_pool(replicas=1)
    step(made, 3)
    assert "drain" in status(made)
    made.sessions = {}
    made.settle()
    assert "drain" not in status(made)
    assert draining(made)["status"] == "False"

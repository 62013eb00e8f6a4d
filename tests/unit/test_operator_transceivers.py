"""What a pool's pods go through: start, scale, replacement, drain, failure."""

from dataclasses import replace

from tests.support.fleet_world import World, empty_fleet, pool
from voicefleet_contract.topology import MemberState, join
from voicefleet_operator.desired.ledger import Entry
from voicefleet_operator.desired.plan import plan
from voicefleet_operator.desired.state import Drained


def world(**spec) -> World:
    made = World(empty_fleet(pools={"agents": pool(**spec)}))
    made.settle()
    return made


def conditions(made: World) -> dict[str, dict]:
    return {c["type"]: c for c in made.fleet.pools["agents"].status["conditions"]}


def members(made: World):
    return {m.name: m for m in join(made.fleet.slices.values()).pools[0].members}


def test_a_new_pool_gets_its_replicas_with_slots_generations_and_ports_of_their_own():
    made = world(replicas=3)
    pods = made.serving()
    assert [pod.slot for pod in pods] == [0, 1, 2]
    assert {pod.generation for pod in pods} == {1}
    assert len({pod.port for pod in pods}) == 3
    assert {pod.node for pod in pods} == {"node-0", "node-1", "node-2"}
    assert conditions(made)["Ready"]["status"] == "True"


def test_the_ledger_is_in_the_same_plan_as_the_pod_that_it_allows():
    todo = plan(empty_fleet(pools={"agents": pool(replicas=1)}), 1.0)
    assert todo.ledger.entries == {0: Entry("agents", 1)}
    assert [pod["metadata"]["name"] for pod in todo.create_pods] == ["agents-0-1"]


def test_a_restarted_operator_has_nothing_to_do_in_a_settled_fleet():
    made = world()
    assert plan(replace(made.fleet, drained={}), made.now + 3600).quiet


def test_scaling_up_touches_no_pod_that_is_there():
    made = world(replicas=1)
    before = made.serving()
    made.change_pool(replicas=3)
    made.settle()
    assert before[0] in made.serving()
    assert len(made.serving()) == 3


def test_scaling_down_fences_then_waits_for_the_calls_and_deletes_the_emptiest():
    made = world(replicas=3)
    made.fleet = replace(made.fleet, sessions={(0, 1): 0, (1, 1): 5, (2, 1): 5})
    made.sessions = {"agents-0-1": 1}  # one came in since the heartbeat
    made.change_pool(replicas=2)
    made.step()
    made.step()
    assert made.fleet.pods["agents-0-1"].draining_since is not None
    assert members(made)["agents-0-1"].state is MemberState.DRAINING
    for _ in range(5):
        made.step()
    assert "agents-0-1" in made.fleet.pods
    made.sessions["agents-0-1"] = 0
    made.settle()
    assert sorted(made.fleet.pods) == ["agents-1-1", "agents-2-1"]


def test_a_draining_pod_is_deleted_only_when_it_says_itself_that_it_drains():
    made = world(replicas=1)
    made.change_pool(replicas=0)
    made.step()
    pod = made.fleet.pods["agents-0-1"]
    made.fleet = replace(made.fleet, drained={pod.uid: Drained("active", 0)})
    assert not plan(made.fleet, made.now).deletes


def test_slots_that_still_drain_come_back_with_another_generation_and_port():
    made = world(replicas=2)
    made.sessions = {"agents-1-1": 1}
    made.change_pool(replicas=1)
    made.step()
    made.change_pool(replicas=2)
    for _ in range(4):
        made.step()
    old, new = made.fleet.pods["agents-1-1"], made.fleet.pods["agents-1-2"]
    assert old.port != new.port
    assert new.ready


def test_a_change_replaces_slot_by_slot_and_the_old_generation_keeps_its_calls():
    made = world(replicas=3)
    made.sessions = dict.fromkeys(made.fleet.pods, 1)
    made.change_pool(capacity={"sessions": 10})
    fewest = 3
    for _ in range(45):
        made.step()
        fewest = min(fewest, len({pod.slot for pod in made.serving()}))
    assert fewest == 3
    assert {pod.name for pod in made.serving()} == {"agents-0-2", "agents-1-2", "agents-2-2"}
    assert not made.deleted  # an hour-long call holds up no rollout, and no rollout ends it
    assert made.fleet.pools["agents"].status["drainingReplicas"] == 3
    made.sessions = {}
    made.settle()
    assert sorted(made.fleet.pods) == ["agents-0-2", "agents-1-2", "agents-2-2"]


def test_a_bad_image_stops_after_the_surge_and_the_old_spec_rolls_back():
    made = world(replicas=3)
    made.bad_images = {"broken:1"}
    made.change_pool(image="broken:1")
    for _ in range(20):
        made.step()
    assert {pod.name for pod in made.serving()} == {"agents-0-1", "agents-1-1", "agents-2-1"}
    assert len(made.fleet.pods) == 4
    assert conditions(made)["Stalled"]["status"] == "True"
    assert "ImagePullBackOff" in conditions(made)["Stalled"]["message"]
    old = made.fleet.pools["agents"].spec.model_dump(by_alias=True, mode="json", exclude_none=True)
    old.pop("image")
    made.fleet = replace(made.fleet, pools={"agents": replace(pool(**old), generation=3)})
    made.settle()
    assert sorted(made.fleet.pods) == ["agents-0-1", "agents-1-1", "agents-2-1"]
    assert conditions(made)["Stalled"]["status"] == "False"


def test_without_surge_one_old_member_drains_first():
    made = world(replicas=3, rollout={"maxSurge": 0, "maxUnavailable": 1})
    made.change_pool(rollout={"maxSurge": 0, "maxUnavailable": 1}, capacity={"sessions": 10})
    fewest = 3
    for _ in range(30):
        made.step()
        fewest = min(fewest, len({pod.slot for pod in made.serving()}))
    assert fewest == 2
    assert {pod.generation for pod in made.serving()} == {2}


def test_a_lost_pod_is_replaced_in_its_slot():
    made = world(replicas=2)
    pods = dict(made.fleet.pods)
    del pods["agents-0-1"]
    made.fleet = replace(made.fleet, pods=pods)
    made.settle()
    assert {pod.name for pod in made.serving()} == {"agents-0-2", "agents-1-1"}


def test_a_pod_that_fails_at_once_is_replaced_no_faster_than_every_ten_seconds():
    made = world(replicas=1)
    made.fleet = replace(
        made.fleet, pods={"agents-0-1": replace(made.fleet.pods["agents-0-1"], finished=True, created_at=made.now)}
    )
    todo = plan(made.fleet, made.now + 1)
    assert not todo.create_pods
    assert todo.look_again_at == made.now + 10
    assert plan(made.fleet, made.now + 10).create_pods


def test_no_free_port_is_a_condition_that_names_the_range_and_who_holds_it():
    made = world(replicas=3, ports={"min": 20000, "max": 20003})
    made.sessions = dict.fromkeys(made.fleet.pods, 1)
    made.change_pool(capacity={"sessions": 10})
    for _ in range(15):
        made.step()
    allocated = conditions(made)["PortsAllocated"]
    assert (allocated["status"], allocated["reason"]) == ("False", "RangeExhausted")
    assert "20000-20003" in allocated["message"]
    assert "draining" in allocated["message"]
    made.sessions = {}
    made.settle()
    assert {pod.generation for pod in made.serving()} == {2}


def test_moving_the_port_range_moves_the_pods():
    made = world(replicas=2)
    made.change_pool(ports={"min": 21000, "max": 21009})
    made.settle()
    assert all(21000 <= pod.port <= 21009 for pod in made.serving())


def test_what_reaches_no_pod_replaces_no_pod():
    made = world(replicas=2)
    before = set(made.fleet.pods)
    made.change_pool(drain={"deadline": "5m", "policy": "HangUp"}, rollout={"maxSurge": 2, "maxUnavailable": 1})
    made.settle()
    assert set(made.fleet.pods) == before


def test_a_paused_pool_is_left_as_it_is():
    made = world(replicas=1)
    made.change_pool(replicas=5)
    paused = replace(made.fleet.pools["agents"], paused=True)
    made.fleet = replace(made.fleet, pools={"agents": paused})
    made.settle()
    assert len(made.fleet.pods) == 1
    assert conditions(made)["Ready"]["reason"] == "Paused"


def test_slots_of_a_deleted_pool_are_given_to_others_with_the_next_generation():
    made = world(replicas=1)
    made.fleet = replace(made.fleet, pools={"other": pool("other", replicas=1)}, pods={})
    made.settle()
    assert [pod.name for pod in made.serving("other")] == ["other-0-2"] or [
        pod.name for pod in made.serving("other")
    ] == ["other-1-1"]
    assert made.fleet.ledger.held_by("agents") == []


def test_ports_of_relays_are_never_given_to_transceivers():
    from tests.support.fleet_world import relay

    fleet = empty_fleet(pools={"agents": pool(replicas=3, ports={"min": 3478, "max": 3483})}, relays={"fra": relay()})
    made = World(fleet)
    made.settle()
    assert {pod.port for pod in made.serving()} <= {3480, 3481, 3482, 3483}

"""Other people's ports: who holds what is seen, avoided, survived and named."""

from dataclasses import replace

from tests.support.fleet_world import World, empty_fleet, nodes, pool
from voicefleet_operator.desired.plan import plan
from voicefleet_operator.desired.pool.ports import PortLedger
from voicefleet_operator.desired.pool.quarantine import QUARANTINE_S, decode_quarantine, encode_quarantine, extended
from voicefleet_operator.desired.state import ForeignPod, Place, PortRefusal


def world(**spec) -> World:
    return World(empty_fleet(pools={"agents": pool(**spec)}))


def allocated(made: World, name: str = "agents") -> tuple[str, str, str]:
    found = {c["type"]: c for c in made.fleet.pools[name].status["conditions"]}["PortsAllocated"]
    return found["status"], found["reason"], found["message"]


def numbers(made: World) -> set[int]:
    return {pod.port for pod in made.fleet.pods.values()}


def test_a_number_that_a_foreign_pod_declares_on_a_node_of_the_pool_is_not_given_out():
    made = world(ports={"min": 20000, "max": 20005})
    for port in (20001, 20002):
        made.claim(f"game-{port}", "node-1", port)
    made.settle()
    assert len(made.serving()) == 3
    assert not numbers(made) & {20001, 20002}
    assert allocated(made)[:2] == ("True", "ConflictsAvoided")
    assert "20001 on node-1 is held by pod other/game-20001" in allocated(made)[2]


def test_a_foreign_pod_on_a_node_that_the_pool_never_uses_is_nobodys_business():
    made = world(ports={"min": 20000, "max": 20003}, placement={"nodeSelector": {"zone": "a"}})
    elsewhere = replace(nodes(4)["node-3"], labels={"zone": "b"})
    made.fleet = replace(made.fleet, nodes={**made.fleet.nodes, "node-3": elsewhere})
    for port in range(20000, 20004):
        made.claim(f"game-{port}", "node-3", port)
    made.settle()
    assert len(made.serving()) == 3
    assert allocated(made)[:2] == ("True", "Allocated")


def test_a_number_that_is_held_on_some_nodes_only_is_better_than_none():
    made = world(ports={"min": 20000, "max": 20003})
    for port in (20000, 20001):
        made.claim(f"game-{port}", "node-0", port)
    made.settle()
    assert len(made.serving()) == 3  # the scheduler put that one on another node


def test_when_foreign_pods_hold_the_range_on_every_node_the_condition_names_them():
    made = world(ports={"min": 20000, "max": 20003})
    for node in ("node-0", "node-1", "node-2"):
        for port in (20000, 20001):
            made.claim(f"game-{node}-{port}", node, port)
    for _ in range(5):
        made.step()
    assert len(made.serving()) == 2
    status, reason, message = allocated(made)
    assert (status, reason) == ("False", "PortConflict")
    assert "20000 on node-0 is held by pod other/game-node-0-20000" in message
    assert "widen spec.ports" in message


def test_a_foreign_pod_that_comes_to_our_number_later_moves_nobody():
    made = world()
    made.settle()
    before = set(made.fleet.pods)
    held = made.fleet.pods["agents-0-1"]
    made.fleet = replace(
        made.fleet, foreign={"other/late": ForeignPod("other/late", held.node, frozenset({held.port}))}
    )
    made.settle()
    assert set(made.fleet.pods) == before


def test_a_number_that_a_process_on_the_node_holds_goes_into_quarantine_and_the_slot_gets_another():
    made = world(replicas=1)
    made.processes = {Place(node, 20010) for node in made.fleet.nodes}  # the first choice
    made.step()
    assert made.fleet.pods["agents-0-1"].port_refused is PortRefusal.NODE
    todo = plan(made.fleet, made.now)
    assert todo.quarantine == {Place("node-0", 20010): made.now + QUARANTINE_S}
    assert [pod["metadata"]["name"] for pod in todo.create_pods] == ["agents-0-2"]
    made.step()
    status, reason, message = allocated(made)
    assert (status, reason) == ("False", "PortConflict")
    assert "20010 on node-0 is held by a process on the node" in message
    made.settle()
    assert [pod.name for pod in made.serving()] == ["agents-0-2"]
    assert list(made.fleet.pods) == ["agents-0-2"]
    assert allocated(made)[:2] == ("True", "ConflictsAvoided")


def test_a_number_comes_out_of_quarantine_and_nothing_is_written_for_it():
    made = world(replicas=1)
    made.processes = {Place("node-0", 20010)}
    made.settle()
    made.now += QUARANTINE_S
    made.settle()
    assert allocated(made)[:2] == ("True", "Allocated")
    assert plan(made.fleet, made.now).quiet
    assert PortLedger(made.fleet, made.now).choose(made.fleet.pools["agents"], 0, 1) == 20010


def test_when_the_scheduler_finds_no_node_with_the_number_free_the_slot_gets_another():
    made = world(replicas=1, ports={"min": 20000, "max": 20009})
    made.step()
    made.fleet = replace(made.fleet, pods={})
    for node in made.fleet.nodes:  # in the moment between the choice and the scheduler's
        made.claim(f"game-{node}", node, 20000)
    hidden = made.fleet.foreign
    made.fleet = replace(made.fleet, foreign={})  # an install that may not read other namespaces
    todo = plan(made.fleet, made.now)
    made.carry_out(todo)
    made.fleet = replace(made.fleet, foreign=hidden)
    made.schedule()
    made.fleet = replace(made.fleet, foreign={})
    assert made.fleet.pods["agents-0-2"].port_refused is PortRefusal.SCHEDULER
    made.step()
    assert "20000 on a node is held by a pod that the operator may not see" in allocated(made)[2]
    made.settle()
    assert [pod.port for pod in made.serving()] != [20000]


def test_of_several_refused_pods_as_many_stay_as_there_are_no_other_numbers_for():
    made = world(replicas=3, ports={"min": 20000, "max": 20003})
    made.processes = {Place(node, port) for node in made.fleet.nodes for port in (20000, 20001, 20002)}
    for _ in range(6):
        made.step()
    assert len(made.serving()) == 1  # 20003, by whoever was first
    assert len(made.fleet.pods) == 3
    assert allocated(made)[:2] == ("False", "PortConflict")
    made.processes = set()
    for _ in range(3):
        made.step()
    assert len(made.serving()) == 3  # without waiting for the quarantine


def test_the_room_for_rollouts_on_top_of_rollouts_is_said():
    made = world(replicas=3, ports={"min": 20000, "max": 20008})
    made.settle()
    assert allocated(made) == ("True", "Allocated", "room for 3 generations of each slot")


def test_a_refused_pod_without_another_number_to_have_waits_for_its_holder_to_leave():
    made = world(replicas=2, ports={"min": 20000, "max": 20002})
    made.processes = {Place(node, port) for node in made.fleet.nodes for port in (20001, 20002)}
    for _ in range(10):
        made.step()
    assert allocated(made)[:2] == ("False", "PortConflict")
    made.processes = set()
    made.settle()
    assert len(made.serving()) == 2


def test_a_calls_pod_is_never_moved_because_its_number_was_refused_before():
    made = world(replicas=1)
    made.settle()
    pod = replace(made.fleet.pods["agents-0-1"], port_refused=PortRefusal.NODE)  # it bound at the second try
    made.fleet = replace(made.fleet, pods={pod.name: pod})
    assert plan(made.fleet, made.now).quarantine is None


def test_pools_that_overlap_say_so_on_both_sides_and_what_runs_stays():
    made = world(ports={"min": 20000, "max": 20019})
    made.settle()
    before = set(made.fleet.pods)
    second = pool("batch", replicas=2, ports={"min": 20015, "max": 20030})
    made.fleet = replace(made.fleet, pools={**made.fleet.pools, "batch": second})
    made.settle()
    assert allocated(made)[:2] == allocated(made, "batch")[:2] == ("False", "RangesOverlap")
    assert "20015-20019 with Transceiver batch" in allocated(made)[2]
    assert "20015-20019 with Transceiver agents" in allocated(made, "batch")[2]
    assert before < set(made.fleet.pods)
    assert len(made.serving("batch")) == 2


def test_the_quarantine_reads_back_what_it_wrote_and_skips_what_is_not_its_own():
    kept = extended({Place("node.b", 1): 5.0, Place("old", 2): 1.0}, [Place("", 3)], now=2.0)
    assert kept == {Place("node.b", 1): 5.0, Place("", 3): 2.0 + QUARANTINE_S}
    assert decode_quarantine(encode_quarantine(kept) | {"x": "y", "n_1": "soon"}) == kept


def test_pools_that_start_at_the_same_time_with_overlapping_ranges_get_numbers_of_their_own():
    ranges = {"agents": {"min": 20000, "max": 20005}, "second": {"min": 20003, "max": 20008}}
    pools = {name: pool(name, replicas=3, ports=ports) for name, ports in ranges.items()}
    made = World(empty_fleet(pools=pools))
    given = [pod["metadata"]["labels"]["voicefleet.dev/port"] for pod in plan(made.fleet, made.now).create_pods]
    assert len(given) == len(set(given)) == 6

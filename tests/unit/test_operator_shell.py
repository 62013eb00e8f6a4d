"""The shell around plans: an observation that is behind changes nothing back, the ledger goes first, one Lease holder."""

import pytest
from kubernetes.aio.client import ApiClient, Configuration

from tests.support.fleet_world import CONFIG
from tests.support.objects_api import Api
from voicefleet_contract.names import EXIT_PORT_TAKEN
from voicefleet_operator.cluster.api import KubeApi, KubeError
from voicefleet_operator.cluster.lease import LIFE_S, Lease
from voicefleet_operator.cluster.observe import UnreadableError, observe_node, observe_pod
from voicefleet_operator.desired.state import ForeignPod, Place, PortRefusal
from voicefleet_operator.handlers.store import FleetStore

LABELS = {
    "app.kubernetes.io/component": "transceiver",
    "voicefleet.dev/pool": "agents",
    "voicefleet.dev/slot": "4",
    "voicefleet.dev/generation": "2",
    "voicefleet.dev/port": "20004",
}


def pod(version: int, *, ready: bool = True, labels=LABELS, waiting=None, **metadata):
    state = {"waiting": waiting} if waiting else {"running": {}}
    return {
        "metadata": {"name": "agents-4-2", "uid": "u", "resourceVersion": str(version), "labels": labels, **metadata},
        "spec": {"nodeName": "node-0"},
        "status": {
            "hostIP": "10.0.0.1",
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            "containerStatuses": [{"image": "x:1", "state": state}],
        },
    }


def config_map(version: int, text: str):
    metadata = {"name": "voicefleet-fleet", "uid": "c", "resourceVersion": str(version)}
    return {"metadata": metadata, "data": {"fleet.json": text}}


def store() -> FleetStore:
    made = FleetStore("voice", "voicefleet-fleet")
    made.take("ConfigMap", config_map(1, CONFIG.model_dump_json()))
    made.dirty.clear()
    return made


def test_a_pod_is_read_from_its_labels_and_status():
    seen = observe_pod(pod(1, deletionTimestamp="2026-01-01T00:00:00Z"))
    assert (seen.slot, seen.generation, seen.port, seen.resource) == (4, 2, 20004, "agents")
    assert seen.ready
    assert seen.running
    assert seen.leaving


def test_a_pod_without_its_labels_is_unreadable_and_named():
    with pytest.raises(UnreadableError, match="agents-4-2"):
        observe_pod(pod(1, labels={"app.kubernetes.io/component": "transceiver"}))


def test_a_drain_that_is_asked_for_is_read_and_one_in_other_words_is_a_problem_and_no_drain():
    asked = observe_pod(pod(1, annotations={"voicefleet.dev/drain": "HangUp 10m"}))
    assert (asked.drain.policy, asked.drain.deadline_s) == ("HangUp", 600)
    wrong = observe_pod(pod(1, annotations={"voicefleet.dev/drain": "soon"}))
    assert wrong.drain is None
    assert "write true" in wrong.drain_problem


def test_a_pod_that_somebody_deletes_says_when_it_is_killed():
    assert observe_pod(pod(1, deletionTimestamp="1970-01-01T00:10:00Z")).gone_at == 600


@pytest.mark.parametrize(
    ("spec", "leaving"),
    [
        ({}, ""),
        ({"unschedulable": True}, "cordoned"),
        ({"taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]},
         "tainted ToBeDeletedByClusterAutoscaler"),
        ({"taints": [{"key": "dedicated", "value": "voice", "effect": "NoSchedule"}]}, ""),
    ],
)  # fmt: skip
def test_a_node_is_to_be_emptied_when_it_is_cordoned_or_an_autoscaler_says_so(spec, leaving):
    node = observe_node({"metadata": {"name": "n"}, "spec": spec, "status": {}})
    assert node.leaving == leaving


def test_the_kubelets_turns_between_two_words_for_one_trouble_are_one_observation():
    one = observe_pod(pod(1, waiting={"reason": "ErrImagePull", "message": "rpc error 1"}))
    two = observe_pod(pod(2, waiting={"reason": "ImagePullBackOff", "message": "Back-off"}))
    assert one == two


def test_the_exit_code_of_a_taken_port_is_read_while_the_process_is_down():
    ended = {"terminated": {"exitCode": EXIT_PORT_TAKEN}}
    down = pod(1, ready=False)
    down["status"]["containerStatuses"] = [{"state": ended, "restartCount": 0}]
    assert observe_pod(down).port_refused is PortRefusal.NODE
    assert observe_pod(down).trouble == "PortTaken"  # a relay's too: its port is not the operator's to choose
    waiting = {"waiting": {"reason": "CrashLoopBackOff"}}
    down["status"]["containerStatuses"] = [{"state": waiting, "lastState": ended, "restartCount": 1}]
    assert observe_pod(down).port_refused is PortRefusal.NODE
    down["status"]["containerStatuses"] = [{"state": {"running": {}}, "lastState": ended, "restartCount": 2}]
    assert observe_pod(down).port_refused is None  # it got the port at last


def test_the_scheduler_is_read_when_it_finds_no_node_with_the_port_free():
    waiting = pod(1, ready=False)
    message = "0/3 nodes are available: 3 node(s) didn't have free ports for the requested pod ports."
    waiting["status"] = {
        "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]
    }
    seen = observe_pod(waiting)
    assert seen.port_refused is PortRefusal.SCHEDULER
    assert not seen.ran


def foreign(name: str = "game", node: str = "node-0", phase: str = "Running", **port):
    ports = [{"containerPort": 7000, **port}]
    return {
        "metadata": {"name": name, "namespace": "other", "resourceVersion": "5"},
        "spec": {"nodeName": node, "containers": [{"ports": ports}, {}]},
        "status": {"phase": phase},
    }


def test_of_other_peoples_pods_only_those_with_host_ports_are_kept():
    made = store()
    made.take_foreign(foreign("plain"))
    made.take_foreign(foreign("pending", node="", hostPort=20001))
    assert not made.dirty.is_set()
    made.take_foreign(foreign(hostPort=20001))
    assert made.fleet().foreign == {"other/game": ForeignPod("other/game", "node-0", frozenset({20001}))}
    made.take_foreign(foreign(hostPort=20001), gone=True)
    assert made.fleet().foreign == {}


def test_a_foreign_pod_that_ended_holds_no_port():
    made = store()
    made.take_foreign(foreign(hostPort=20001))
    made.take_foreign(foreign(hostPort=20001, phase="Succeeded"))
    assert made.fleet().foreign == {}


def test_a_watch_that_is_behind_our_own_write_changes_nothing_back():
    made = store()
    made.take("Pod", pod(7, ready=True))
    made.take("Pod", pod(5, ready=False))
    assert made.fleet().pods["agents-4-2"].ready


def test_a_heartbeat_that_changes_no_record_makes_nobody_look():
    made = store()
    made.take("Pod", pod(7))
    made.dirty.clear()
    made.take("Pod", pod(8))
    assert not made.dirty.is_set()


def test_the_deletion_of_an_older_namesake_is_not_believed():
    made = store()
    made.take("Pod", pod(9))
    made.forget("Pod", "agents-4-2", 8)
    assert "agents-4-2" in made.fleet().pods
    made.forget("Pod", "agents-4-2", 10)
    assert made.fleet().pods == {}


def test_a_broken_config_leaves_the_last_good_one_in_use():
    made = store()
    made.take("ConfigMap", config_map(2, "{"))
    assert made.fleet().config == CONFIG
    assert "fleet.json" in made.config_problem


def ports_map(version: int, **data: str):
    metadata = {"name": "voicefleet-ports", "uid": "p", "resourceVersion": str(version)}
    return {"metadata": metadata, "data": data}


def test_an_entry_that_somebody_takes_out_of_the_quarantine_frees_its_number_at_once():
    made = store()
    made.take("ConfigMap", ports_map(3, **{"node-b_20005": "1000", "node-b_20006": "1000"}))
    assert made.fleet().quarantine == {Place("node-b", 20005): 1000.0, Place("node-b", 20006): 1000.0}
    made.dirty.clear()
    made.take("ConfigMap", ports_map(4, **{"node-b_20006": "1000"}))
    assert made.fleet().quarantine == {Place("node-b", 20006): 1000.0}
    assert made.dirty.is_set()
    made.forget("ConfigMap", "voicefleet-ports")
    assert made.fleet().quarantine == {}
    assert made.config_problem == ""


async def test_a_lease_has_one_holder_until_it_gives_it_back():
    api = Api()
    first, second = Lease(api, "l", "a"), Lease(api, "l", "b")
    await first.acquire()
    assert not await second._try()
    await first.release()
    assert await second._try()
    assert not await first._try()


async def test_an_api_server_that_does_not_answer_is_an_error_that_is_tried_again():
    api = KubeApi(ApiClient(Configuration(host="http://127.0.0.1:9")), "voice")  # the discard port: nobody listens
    with pytest.raises(KubeError) as caught:
        await api.list("Pod")
    await api.close()
    assert caught.value.status == 0


async def test_who_slept_through_its_lease_writes_nothing_but_may_read():
    api = KubeApi(ApiClient(Configuration(host="http://127.0.0.1:9")), "voice")
    api.may_write = lambda: False
    other = api.elsewhere("kube-system")
    for refused in (api.create("Pod", {}), api.delete("Pod", "p"), other.apply("Pod", {"metadata": {"name": "p"}})):
        with pytest.raises(KubeError, match="not sent"):
            await refused
    for sent in (api.get("Pod", "p"), api.replace("Lease", {"metadata": {"name": "l"}})):
        with pytest.raises(KubeError, match="Client"):  # nobody listens
            await sent
    await api.close()


async def test_a_lease_is_held_from_its_renewal_for_its_life_and_no_longer(monkeypatch):
    lease = Lease(Api(), "l", "a")
    assert not lease.held()
    await lease.acquire()
    assert lease.held()
    lease._renewed -= LIFE_S
    assert not lease.held()

"""What the stand-in for kubelets says of pods: one object at a time, until all is said."""

import copy

import pytest

from e2e.bare.pod_life import RUNS, Fate, Gone, Later, Say, next_word

NOW = 1_700_000_000.0
CRASHES = Fate(exit_code=98)


def pod(**metadata):
    return {"metadata": metadata, "spec": {"containers": [{"name": "main", "image": "i"}]}, "status": {}}


def say_all(one, fate, now=NOW):
    """Write what is said into the pod, as the API server would, until nothing more is said."""
    one, said = copy.deepcopy(one), []
    while isinstance(word := next_word(one, fate, "127.64.0.1", now), Say):
        conditions = {c["type"]: c for c in [*one["status"].get("conditions", ()), *word.status["conditions"]]}
        one["status"] |= word.status | {"conditions": list(conditions.values())}
        said.append(one["status"]["containerStatuses"][0])
        assert len(said) < 5, "it never stops"
    assert word is None
    return one, said


def ready(one):
    return {c["type"]: c["status"] for c in one["status"]["conditions"]}["Ready"]


def test_a_pod_runs_and_is_ready_and_then_all_is_said():
    one, said = say_all(pod(), RUNS)
    assert (one["status"]["phase"], one["status"]["hostIP"], ready(one)) == ("Running", "127.64.0.1", "True")
    assert [("running" in word["state"], word["restartCount"]) for word in said] == [(True, 0)]


def test_containers_that_do_not_start_say_why_and_start_when_they_can():
    one, [word] = say_all(pod(), Fate(waiting="ErrImagePull", message="no such image"))
    assert (one["status"]["phase"], ready(one)) == ("Pending", "False")
    assert word["state"] == {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}
    one, [word] = say_all(one, RUNS)
    assert (one["status"]["phase"], ready(one), word["restartCount"]) == ("Running", "True", 0)


def test_a_process_that_ends_leaves_its_code_and_is_started_again():
    one, said = say_all(pod(), CRASHES)
    assert [list(word["state"]) for word in said] == [["terminated"], ["waiting"]]
    assert said[0]["state"]["terminated"]["exitCode"] == 98
    assert said[1]["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert said[1]["lastState"]["terminated"]["exitCode"] == 98
    assert [word["restartCount"] for word in said] == [0, 1]
    _, said = say_all(one, RUNS)
    assert [("running" in word["state"], word["restartCount"]) for word in said] == [(True, 2)]


def test_a_running_process_that_ends_is_no_longer_ready():
    one, _ = say_all(pod(), RUNS)
    one, said = say_all(one, CRASHES)
    assert ready(one) == "False"
    assert [list(word["state"]) for word in said] == [["terminated"], ["waiting"]]


def test_a_pod_that_runs_and_is_not_ready():
    one, [word] = say_all(pod(), Fate(ready=False))
    assert (one["status"]["phase"], ready(one), word["ready"]) == ("Running", "False", False)


@pytest.mark.parametrize(("fate", "now", "expected"), [(RUNS, NOW, Gone), (Fate(stays=True), NOW + 60, Gone)])
def test_a_deleted_pod_goes_at_once_or_with_its_grace(fate, now, expected):
    deleted = pod(deletionTimestamp="2023-11-14T22:13:50Z")
    assert isinstance(next_word(deleted, fate, "127.64.0.1", now), expected)


def test_a_deleted_pod_that_takes_its_grace_stays_until_its_end():
    deleted = pod(deletionTimestamp="2023-11-14T22:13:50Z")
    assert next_word(deleted, Fate(stays=True), "127.64.0.1", NOW) == Later(NOW + 30)

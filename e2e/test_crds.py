"""CRDs are replaced by ones of another release on a live fleet, and back: what is stored stays valid, what runs runs on."""

import asyncio
import copy
import json
from typing import Any

import pytest
import yaml

from e2e.fleet import POOL, ROOT, Fleet
from e2e.kube import eventually
from e2e.talk import place_calls, talking

FIELD = "ofTheFuture"
DATAPLANE = "app.kubernetes.io/component in (relay,transceiver,gateway)"
_POOL = """\
apiVersion: voicefleet.dev/v1alpha1
kind: Transceiver
metadata: {name: NAME}
spec: {replicas: 0, ports: {min: MIN, max: MAX}, drain: {deadline: 5s}, rollout: {minReady: 1s}}
"""


def crds() -> list[Any]:
    return [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "crds").glob("*.yaml"))]


def newer(crd: Any) -> Any:
    """The same CRD of another release: a field with a default in spec and status, another default, a tighter limit."""
    made = copy.deepcopy(crd)
    [version] = made["spec"]["versions"]
    fields = version["schema"]["openAPIV3Schema"]["properties"]
    for part in ("spec", "status"):
        if part in fields:
            fields[part]["properties"][FIELD] = {"type": "string", "maxLength": 16, "default": "x"}
    if crd["spec"]["names"]["kind"] == "Transceiver":
        sessions = fields["spec"]["properties"]["capacity"]["properties"]["sessions"]
        sessions |= {"default": 500, "minimum": 100}  # what is stored has 50
        version["additionalPrinterColumns"].append({"name": "Future", "type": "string", "jsonPath": f".spec.{FIELD}"})
    return made


def apply(fleet: Fleet, objects: list[Any]) -> None:
    """What docs/operations.md says."""
    command = ("apply", "--server-side", "--force-conflicts", "-f", "-")
    fleet.kube.run(*command, stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}), namespaced=False)


def spec(fleet: Fleet, name: str) -> Any:
    return fleet.kube.get("transceiver", name)["spec"]


def pools(fleet: Fleet, name: str, first: int) -> str:
    return _POOL.replace("NAME", name).replace("MIN", str(first)).replace("MAX", str(first + 9))


def change(fleet: Fleet, name: str, patch: Any) -> None:
    fleet.kube.run("patch", "transceiver", name, "--type=merge", "--patch", json.dumps({"spec": patch}))


def identities(fleet: Fleet) -> set[tuple[str, int]]:
    pods = fleet.kube.pods(DATAPLANE)
    return {
        (pod["metadata"]["uid"], container["restartCount"])
        for pod in pods
        for container in pod["status"].get("containerStatuses", ())
        # A story's own, and what drains since the story before.
        if pod["metadata"]["labels"].get("voicefleet.dev/pool") != "stored"
        and "voicefleet.dev/draining-since" not in pod["metadata"].get("annotations", {})
    }


@pytest.fixture(autouse=True)
def _as_it_was(fleet: Fleet):
    yield
    apply(fleet, crds())
    fleet.kube.run("delete", "transceiver", "stored", "made", "--ignore-not-found", "--wait=false")
    change(fleet, POOL, {FIELD: None, "rollout": {"minReady": "10s"}})


async def test_crds_of_another_release_and_back_leave_stored_objects_valid_and_no_pod_changes(fleet: Fleet) -> None:
    fleet.kube.apply(pools(fleet, "stored", 21000))
    before = identities(fleet)
    async with talking(fleet, 5):
        await asyncio.to_thread(forth, fleet)
        assert identities(fleet) == before
        await asyncio.to_thread(back, fleet)
        assert identities(fleet) == before
        each, new = await asyncio.to_thread(place_calls, fleet, 3, 1.0)
        assert new["audio_ok"] == 3, each


def forth(fleet: Fleet) -> None:
    apply(fleet, [newer(crd) for crd in crds()])
    eventually("the new schema is served", lambda: spec(fleet, POOL).get(FIELD) == "x", 30)
    assert spec(fleet, "stored")["capacity"] == {"sessions": 400}, "the default of its day is stored with it"
    fleet.kube.apply(pools(fleet, "made", 21100))
    assert spec(fleet, "made")["capacity"] == {"sessions": 500}
    assert spec(fleet, POOL)["capacity"] == {"sessions": 50}, "below the new limit, and stored before it"
    # The operator's watches were ended with the old schema: it hears of changes all the same, and writes status …
    follows(fleet, POOL, {FIELD: "y", "rollout": {"minReady": "1s"}})
    # … and makes pods, which every process hears of through slices of the new schema.
    follows(fleet, "stored", {"replicas": 1})
    eventually("a new pool is Ready", lambda: fleet.condition("transceiver", "stored"), 60)
    eventually("everybody knows it", lambda: fleet.condition("transceiver", "stored", "RingConverged"), 60)


def back(fleet: Fleet) -> None:
    apply(fleet, crds())
    eventually("the old schema is served", lambda: FIELD not in spec(fleet, POOL), 30)
    assert spec(fleet, "made")["capacity"] == {"sessions": 500}
    follows(fleet, POOL, {"rollout": {"minReady": "2s"}})
    follows(fleet, "stored", {"replicas": 0})
    eventually("it is empty", lambda: fleet.kube.get("transceiver", "stored")["status"]["replicas"] == 0, 60)
    eventually("everybody knows it", lambda: fleet.condition("transceiver", POOL, "RingConverged"), 60)


def follows(fleet: Fleet, name: str, patch: Any) -> None:
    """Change a spec; the operator must say that it has seen it."""
    change(fleet, name, patch)
    eventually(f"{name}: {patch} is seen", lambda: bool(fleet.status_condition("transceiver", name, "Ready")[0]), 30)

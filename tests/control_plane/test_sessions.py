"""`kubectl get voicesessions` as Kubernetes itself sees it: its habits, its rights, its controllers, and a registry that is away.

The sessions are records in the registry, written as transceivers write them. Those of real calls: e2e/test_sessions.py.
"""

import asyncio
import json
from collections.abc import Iterator

import httpx
import pytest
import redis.asyncio as redis

from e2e.bare.fleet import BareFleet
from e2e.bare.kubelets import Kubelets
from e2e.bare.plane import BareControlPlane
from e2e.bare.sessions_api import SessionsApiProcess
from e2e.kube import KubeError, eventually
from tests.control_plane.conftest import new_fleet
from tests.support.session_records import write_sessions

GROUP = "sessions.voicefleet.dev"


@pytest.fixture(scope="module")
def fleet(plane: BareControlPlane, kubelets: Kubelets, registry: str) -> Iterator[BareFleet]:
    """One for all stories here: none of them changes it."""
    with new_fleet(plane, registry, {"sessionsApi": {"enabled": True}}) as made, made.operator() as operator:
        operator.wait_leading()
        yield made


@pytest.fixture(scope="module")
def api(fleet: BareFleet, registry: str) -> Iterator[SessionsApiProcess]:
    with SessionsApiProcess(fleet, registry) as running:
        eventually("the sessions API is Available", running.available, within_s=60)
        # Only then does kube-apiserver ask which resources there are.
        eventually("kubectl knows sessions", lambda: fleet.kube.run("get", "vs") is not None, within_s=60)
        yield running


@pytest.mark.usefixtures("api")
def test_kubernetes_own_habits_are_kept(fleet: BareFleet) -> None:
    kube = fleet.kube
    resources = kube.run("api-resources", "--api-group", GROUP, "-o", "wide", namespaced=False)
    assert "vs" in resources
    assert "delete" not in resources  # the garbage collector would watch every session, namespace deletion list them
    # kube-apiserver asks for the schema some time after it has begun to pass requests on.
    explained = ("explain", "voicesessions.status")
    assert "mos" in eventually("its schema is known", lambda: kube.run(*explained, namespaced=False), within_s=90)
    document = json.loads(kube.run("get", "--raw", f"/apis/{GROUP}/v1alpha1", namespaced=False))
    assert [r["name"] for r in document["resources"]] == ["voicesessions", "voicesessions/hangup"]
    with pytest.raises(KubeError, match="metadata.name, metadata.namespace, pool, node, relay"):
        kube.run("get", "vs", "--field-selector", "status.rttMs=5")
    with pytest.raises(KubeError, match="not found"):
        kube.run("get", "vs", "call_nobody")
    with pytest.raises(KubeError, match="MethodNotAllowed"):
        kube.run("create", "-f", "-", stdin=json.dumps(
            {"apiVersion": f"{GROUP}/v1alpha1", "kind": "VoiceSession", "metadata": {"name": "mine"}}
        ))  # fmt: skip


def test_who_has_no_right_is_refused_and_a_forged_user_is_nobody(fleet: BareFleet, api: SessionsApiProcess) -> None:
    kube = fleet.kube
    with pytest.raises(KubeError, match=r"Forbidden.*cannot list resource"):
        kube.run("get", "vs", "--as", "mallory")
    kube.run("create", "rolebinding", "viewer", "--clusterrole=view", "--user=vera")
    eventually("a viewer may list", lambda: kube.run("get", "vs", "--as", "vera") is not None, within_s=30)
    with pytest.raises(KubeError, match=r"Forbidden.*cannot delete resource"):
        kube.run("delete", "vs", "call_nobody", "--as", "vera")
    answer = httpx.get(
        f"https://127.0.0.1:{api.port}/apis/{GROUP}/v1alpha1/voicesessions",
        headers={"X-Remote-User": "admin", "X-Remote-Group": "system:masters"},
        verify=False,
        trust_env=False,
    )
    assert answer.status_code == 401


def test_without_the_registry_sessions_are_503_and_the_apiservice_stays_available(
    plane: BareControlPlane, fleet: BareFleet, api: SessionsApiProcess
) -> None:
    kube = fleet.kube
    plane.end("redis")
    try:
        eventually("sessions are unavailable", lambda: refuses(fleet), within_s=60)
        assert api.available()
        assert "voicesessions" in kube.run("api-resources", "--api-group", GROUP, namespaced=False)
        kube.run("create", "namespace", "short-lived", namespaced=False)
        kube.run("delete", "namespace", "short-lived", "--timeout=60s", namespaced=False)
    finally:
        plane.start_again("redis")
    eventually("sessions are listed again", lambda: kube.run("get", "vs") is not None, within_s=60)


def refuses(fleet: BareFleet) -> bool:
    try:
        fleet.kube.run("get", "vs")
    except KubeError as error:
        return "the registry does not answer" in str(error)
    return False


async def test_neither_the_garbage_collector_nor_a_namespaces_deletion_looks_at_sessions(
    fleet: BareFleet, api: SessionsApiProcess, registry: str
) -> None:
    """With a hundred thousand of them in the registry: what Kubernetes does by itself asks for none."""
    kube = fleet.kube
    async with redis.Redis.from_url(registry) as client:
        await write_sessions(client, fleet.cluster_id, slots=250, first=10_000)
        page = await asyncio.to_thread(
            kube.run, "get", "vs", "-o", "name", "--chunk-size=500", "-l", "voicefleet.dev/node=node-7"
        )
        assert len(page.splitlines()) == 400
        before = await asyncio.to_thread(asked_for_sessions, api)
        assert before, "it counts"
        await asyncio.to_thread(kube.run, "create", "namespace", "full", namespaced=False)
        await asyncio.to_thread(
            kube.run, "create", "configmap", "one", "-n", "full", "--from-literal=a=b", namespaced=False
        )
        await asyncio.to_thread(kube.run, "delete", "namespace", "full", "--timeout=60s", namespaced=False)
        assert await asyncio.to_thread(asked_for_sessions, api) == before
        await client.flushall()


def asked_for_sessions(api: SessionsApiProcess) -> dict[str, float]:
    """Requests for sessions so far, by verb, and watches open now."""
    return {
        name: value
        for name, value in api.metrics().items()
        if ('of="sessions"' in name and "_count{" in name) or name == "voicefleet_sessions_api_watches"
    }

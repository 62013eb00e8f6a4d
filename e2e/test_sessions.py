"""`kubectl get voicesessions`: a platform engineer finds calls, watches them, and ends one."""

import asyncio
import json
import subprocess
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis.asyncio as redis

from e2e.cluster.build import build_go_program
from e2e.fleet import CLUSTER_ID, NAMESPACE, Fleet
from e2e.kube import KubeError, eventually, ready
from e2e.talk import calling, holding
from tests.support.session_records import write_sessions

GROUP = "sessions.voicefleet.dev"


def sessions(fleet: Fleet, *words: str) -> list[Any]:
    return json.loads(fleet.kube.run("get", "vs", *words, "-o", "json"))["items"]


def available(fleet: Fleet) -> bool:
    service = json.loads(fleet.kube.run("get", "apiservice", f"v1alpha1.{GROUP}", "-o", "json", namespaced=False))
    return any(c["type"] == "Available" and c["status"] == "True" for c in service["status"].get("conditions", ()))


@pytest.fixture(scope="module")
def api(fleet: Fleet) -> Fleet:
    eventually("the sessions API is Available", lambda: available(fleet), within_s=90)
    return fleet


async def test_calls_are_listed_selected_watched_described_and_ended(api: Fleet) -> None:
    kube = api.kube
    watching = subprocess.Popen(  # noqa: ASYNC220  # it starts in milliseconds
        kube.argv("get", "vs", "-w", "--output-watch-events"),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        async with calling(api, seconds=40) as one, calling(api, seconds=40) as other:
            ids = {one.result.call_id, other.result.call_id}

            def both_connected() -> bool:
                return ids <= {s["metadata"]["name"] for s in sessions(api) if s["status"]["state"] == "connected"}

            await asyncio.to_thread(eventually, "both calls are listed as connected", both_connected, 30.0)
            shown = {s["metadata"]["name"]: s for s in sessions(api)}
            mine = shown[one.result.call_id]
            node, relay = mine["status"]["node"], mine["status"]["relay"]
            assert relay in {f"fra-{pod['spec']['nodeName']}" for pod in api.relays()}
            for words, expected in (
                (("-l", f"voicefleet.dev/node={node}"), {i for i in shown if shown[i]["status"]["node"] == node}),
                (("-l", "voicefleet.dev/pool in (agents),voicefleet.dev/state!=new"), set(shown)),
                (("-l", "app=web"), set()),
                (("--field-selector", f"relay={relay}"), {i for i in shown if shown[i]["status"]["relay"] == relay}),
                (("--field-selector", f"metadata.name={one.result.call_id}"), {one.result.call_id}),
                (("--field-selector", "state=new"), set()),
                (("-A", "--chunk-size=1"), set(shown)),
            ):
                assert {s["metadata"]["name"] for s in sessions(api, *words)} & ids == expected & ids, words
            wide = kube.run("get", "voicesessions", one.result.call_id, "-o", "wide")
            assert wide.splitlines()[0].split()[:3] == ["NAME", "POOL", "OWNER"]
            assert "MOS" in wide
            assert one.result.call_id in kube.run("describe", "vs", one.result.call_id)
            raw = kube.run("get", "--raw", f"/apis/{GROUP}/v1alpha1/namespaces/{NAMESPACE}/voicesessions")
            assert one.address.host not in raw  # the network, never the address
            assert one.result.ufrag not in raw

            await asyncio.to_thread(kube.run, "delete", "vs", one.result.call_id, "--timeout=30s")
            hangup = f"/apis/{GROUP}/v1alpha1/namespaces/{NAMESPACE}/voicesessions/{other.result.call_id}/hangup"
            await asyncio.to_thread(kube.run, "create", "--raw", hangup, "-f", "-", stdin="{}")
            await asyncio.to_thread(eventually, "no call is left", lambda: not ids & names(api), 30.0)
        for result in (one.result, other.result):
            assert result.error == "the other side ended the call"
    finally:
        watching.terminate()
        told, _ = watching.communicate(timeout=20)
    for call_id in ids:
        kinds = [line.split()[0] for line in told.splitlines() if call_id in line]
        assert kinds[0] == "ADDED"
        assert kinds[-1] == "DELETED"


def names(fleet: Fleet) -> set[str]:
    return {s["metadata"]["name"] for s in sessions(fleet)}


def test_kubernetes_own_habits_are_kept(api: Fleet) -> None:
    kube = api.kube
    resources = kube.run("api-resources", "--api-group", GROUP, "-o", "wide", namespaced=False)
    assert "vs" in resources
    assert "delete" not in resources  # the garbage collector would watch every session, namespace deletion list them
    assert "mos" in kube.run("explain", "voicesessions.status", namespaced=False)
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


def test_who_has_no_right_is_refused_and_a_forged_user_is_nobody(api: Fleet) -> None:
    kube = api.kube
    with pytest.raises(KubeError, match=r"Forbidden.*cannot list resource"):
        kube.run("get", "vs", "--as", "mallory")
    kube.run("create", "rolebinding", "viewer", "--clusterrole=view", "--user=vera")
    try:
        eventually("a viewer may list", lambda: kube.run("get", "vs", "--as", "vera") is not None, within_s=30)
        with pytest.raises(KubeError, match=r"Forbidden.*cannot delete resource"):
            kube.run("delete", "vs", "call_nobody", "--as", "vera")
    finally:
        kube.run("delete", "rolebinding", "viewer")
    address = kube.get("endpoints", "voicefleet-sessions")["subsets"][0]["addresses"][0]["ip"]
    answer = httpx.get(
        f"https://{address}:8443/apis/{GROUP}/v1alpha1/voicesessions",
        headers={"X-Remote-User": "admin", "X-Remote-Group": "system:masters"},
        verify=False,
        trust_env=False,
    )
    assert answer.status_code == 401


def test_without_the_registry_sessions_are_503_and_the_apiservice_stays_available(api: Fleet) -> None:
    kube = api.kube
    kube.run("scale", "deployment", "voicefleet-redis", "--replicas=0")
    try:
        eventually("sessions are unavailable", lambda: refuses(api), within_s=60)
        assert available(api)
        assert "voicesessions" in kube.run("api-resources", "--api-group", GROUP, namespaced=False)
        kube.run("create", "namespace", "short-lived", namespaced=False)
        kube.run("delete", "namespace", "short-lived", "--timeout=60s", namespaced=False)
    finally:
        kube.run("scale", "deployment", "voicefleet-redis", "--replicas=1")
    eventually("sessions are listed again", lambda: sessions(api) is not None, within_s=60)


def refuses(fleet: Fleet) -> bool:
    try:
        fleet.kube.run("get", "vs")
    except KubeError as error:
        return "the registry does not answer" in str(error)
    return False


async def test_neither_the_garbage_collector_nor_a_namespaces_deletion_looks_at_sessions(api: Fleet) -> None:
    """With a hundred thousand of them in the registry: what Kubernetes does by itself asks for none."""
    kube = api.kube
    [pod] = kube.pods("app.kubernetes.io/component=redis")
    password = kube.secret("voicefleet-redis")["password"].decode()
    async with redis.Redis(host=pod["status"]["podIP"], password=password) as client:
        await write_sessions(client, CLUSTER_ID, slots=250, first=10_000)
        try:
            page = await asyncio.to_thread(
                kube.run, "get", "vs", "-o", "name", "--chunk-size=500", "-l", "voicefleet.dev/node=node-7"
            )
            assert len(page.splitlines()) == 400
            before = await asyncio.to_thread(asked_for_sessions, api)
            await asyncio.to_thread(kube.run, "create", "namespace", "short-lived", namespaced=False)
            await asyncio.to_thread(
                kube.run, "create", "configmap", "full", "-n", "short-lived", "--from-literal=a=b", namespaced=False
            )
            await asyncio.to_thread(kube.run, "delete", "namespace", "short-lived", "--timeout=60s", namespaced=False)
            assert await asyncio.to_thread(asked_for_sessions, api) == before
        finally:
            await client.flushall()


def asked_for_sessions(fleet: Fleet) -> dict[str, float]:
    """Requests for sessions so far, by verb, and watches open now: over both replicas."""
    found: dict[str, float] = {}
    for text in metrics_of(fleet):
        for line in text.splitlines():
            name, _, value = line.rpartition(" ")
            if ('of="sessions"' in name and "_count{" in name) or name == "voicefleet_sessions_api_watches":
                found[name] = found.get(name, 0.0) + float(value)
    return found


async def test_a_stock_go_informer_keeps_up_over_a_lost_registry(api: Fleet) -> None:
    """client-go's dynamic informer lists, watches, is told that its version expired, lists again, and ends up right."""
    before = await asyncio.to_thread(expired_watches, api)
    informer = Informer(api)
    try:
        async with calling(api, seconds=60) as one:
            await asyncio.to_thread(informer.shows, {one.result.call_id}, "the first call")
            await asyncio.to_thread(lose_registry, api)
            async with holding(api, 1) as [other]:
                both = {one.result.call_id, other.result.call_id}
                await asyncio.to_thread(informer.shows, both, "both calls, from the new registry")
                # The other replica may be asked here: it finds the new registry by itself, when its connection is retried.
                await asyncio.to_thread(eventually, "both replicas know both calls", lambda: names(api) == both)
            await asyncio.to_thread(informer.shows, {one.result.call_id}, "the call that is left")
            hangup = f"/apis/{GROUP}/v1alpha1/namespaces/{NAMESPACE}/voicesessions/{one.result.call_id}/hangup"
            await asyncio.to_thread(api.kube.run, "create", "--raw", hangup, "-f", "-", stdin="{}")
        await asyncio.to_thread(informer.shows, set(), "no call")
        assert names(api) == set()
    finally:
        informer.stop()
    assert await asyncio.to_thread(expired_watches, api) > before  # it was told, and listed again


def expired_watches(fleet: Fleet) -> float:
    """Watches that were told that their resourceVersion expired, over both replicas."""
    return sum(
        float(line.rsplit(" ", 1)[1])
        for text in metrics_of(fleet)
        for line in text.splitlines()
        if line.startswith("voicefleet_sessions_api_expired_watches_total ")
    )


def metrics_of(fleet: Fleet) -> list[str]:
    """The metrics of each replica."""
    pods = fleet.kube.pods("app.kubernetes.io/component=sessions")
    urls = [f"http://{pod['status']['podIP']}:8080/metrics" for pod in pods]
    return [httpx.get(url, trust_env=False, timeout=5).text for url in urls]


def lose_registry(fleet: Fleet) -> None:
    """Another Redis pod, which knows nothing."""
    [pod] = fleet.kube.pods("app.kubernetes.io/component=redis")
    fleet.kube.run("delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force")

    def another() -> bool:
        return any(ready(new) for new in fleet.kube.pods("app.kubernetes.io/component=redis"))

    eventually("another Redis", another, within_s=60)


class Informer:
    """e2e/informer, running: what its cache held last, and what it complained of."""

    def __init__(self, fleet: Fleet) -> None:
        program = build_go_program(Path(__file__).parent / "informer")
        argv = [program, fleet.site.kubeconfig, NAMESPACE]
        self._process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self._held: set[str] | None = None
        self.said = ""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                self._held = set(json.loads(line)["sessions"])
            else:
                self.said += line

    def shows(self, expected: set[str], what: str) -> None:
        """Wait until its cache is this."""
        eventually(f"the informer holds {what}", lambda: self._held == expected, within_s=60)

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(20)

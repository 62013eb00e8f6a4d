"""`kubectl get voicesessions`: a platform engineer finds calls, watches them, and ends one.

Its rights and Kubernetes' habits: tests/control_plane/test_sessions.py.
"""

import asyncio
import json
import subprocess
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from e2e.cluster.build import build_go_program
from e2e.fleet import NAMESPACE, Fleet
from e2e.kube import eventually, ready
from e2e.talk import calling, holding

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

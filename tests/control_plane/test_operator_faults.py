"""The operator beside a real API server that fails: what it must survive, and what two of them must never do together."""

import asyncio
import signal
from collections import Counter
from typing import Any

import pytest

from e2e.bare.faults import Fault, faulty
from e2e.bare.fleet import BareFleet
from e2e.bare.operator import leader_and_standby
from e2e.cluster.api_client import MERGE
from e2e.kube import eventually

WRITES = {"POST", "PUT", "PATCH", "DELETE"}


class Pool:
    """A Transceiver, changed and looked at over the API itself."""

    name = "agents"

    def __init__(self, fleet: BareFleet) -> None:
        self._ask = fleet.plane.request
        self.pods_path = f"/api/v1/namespaces/{fleet.namespace}/pods"
        self._pools = f"/apis/voicefleet.dev/v1alpha1/namespaces/{fleet.namespace}/transceivers"

    def scale(self, replicas: int) -> None:
        ports = {"min": 20000, "max": 29999}
        spec = {"replicas": replicas, "ports": ports, "backend": {"type": "Echo"}}
        body = {"apiVersion": "voicefleet.dev/v1alpha1", "kind": "Transceiver", "metadata": {"name": self.name}}
        status, said = self._ask("GET", f"{self._pools}/{self.name}")
        if status == 404:
            status, said = self._ask("POST", self._pools, {**body, "spec": spec})
        else:
            status, said = self.change({"spec": spec})
        assert status in (200, 201), said

    def change(self, patch: Any) -> tuple[int, Any]:
        return self._ask("PATCH", f"{self._pools}/{self.name}", patch, MERGE)

    def status(self) -> Any:
        return self._ask("GET", f"{self._pools}/{self.name}")[1].get("status", {})

    def pods(self) -> list[Any]:
        status, said = self._ask("GET", f"{self.pods_path}?labelSelector=voicefleet.dev%2Fpool%3D{self.name}")
        assert status == 200, said
        return [pod for pod in said["items"] if "deletionTimestamp" not in pod["metadata"]]

    def wait(self, count: int, within_s: float = 40.0) -> None:
        eventually(f"{count} pods", lambda: len(self.pods()) == count, within_s)

    def lose(self) -> str:
        """Delete a pod, as whoever has the right to; gives its name."""
        gone = str(self.pods()[0]["metadata"]["name"])
        self._ask("DELETE", f"{self.pods_path}/{gone}", {"gracePeriodSeconds": 0})
        return gone


@pytest.fixture
def pool(fleet: BareFleet) -> Pool:
    return Pool(fleet)


def created(fleet: BareFleet) -> Counter[str]:
    """Pods by name, as often as the API server let one be made."""
    return Counter(event["objectRef"]["name"] for event in fleet.writes("pods"))


async def test_writes_fail_in_every_way_one_after_the_other_and_the_fleet_gets_there(
    fleet: BareFleet, pool: Pool
) -> None:
    left = [Fault(409), Fault(429, retry_after_s=2), Fault(500), Fault(503), Fault(delay_s=1.0)]

    def storm(method: str, path: str) -> Fault | None:
        spared = "/leases" in path or "/secrets/" in path  # of loops beside the passes: key rotation writes there
        return left.pop(0) if left and method in WRITES and not spared else None

    async with faulty(fleet.plane) as faults:
        with fleet.operator(url=faults.url) as operator:
            await asyncio.to_thread(operator.wait_leading)
            faults.decide = storm
            pool.scale(6)
            await asyncio.to_thread(pool.wait, 6, 40.0)
            metrics = operator.metrics()
    assert set(faults.injected) == {409, 429, 500, 503}
    # What hits one object (409, 500, 503) lets the pass go on, so one pass may meet several.
    assert 1 <= metrics["voicefleet_operator_failed_passes_total"] <= 4
    assert sum(v for k, v in metrics.items() if k.startswith('voicefleet_operator_api_requests_total{code="429"')) == 1
    assert max(created(fleet).values()) == 1


async def test_a_pod_that_vanished_while_the_watch_was_deaf_is_missed_after_410_gone(
    fleet: BareFleet, pool: Pool
) -> None:
    async with faulty(fleet.plane) as faults:
        with fleet.operator(url=faults.url) as operator:
            await asyncio.to_thread(operator.wait_leading)
            pool.scale(3)
            await asyncio.to_thread(pool.wait, 3)
            await asyncio.to_thread(eventually, "the watch", lambda: faults.watches.get(pool.pods_path, 0) > 0)
            faults.stalled.add(pool.pods_path)
            gone = pool.lose()
            faults.stalled.clear()
            faults.expire(pool.pods_path)
            await asyncio.to_thread(pool.wait, 3)
    assert gone not in {pod["metadata"]["name"] for pod in pool.pods()}


async def test_a_watch_that_says_nothing_is_opened_anew(fleet: BareFleet, pool: Pool) -> None:
    async with faulty(fleet.plane) as faults:
        with fleet.operator(url=faults.url, watch_silence_s=2) as operator:
            await asyncio.to_thread(operator.wait_leading)
            pool.scale(2)
            await asyncio.to_thread(pool.wait, 2)
            faults.stalled.add(pool.pods_path)
            pool.lose()
            opened = faults.watches[pool.pods_path]
            await asyncio.to_thread(eventually, "another watch", lambda: faults.watches[pool.pods_path] > opened + 1)
            ages = operator.metrics()
            assert ages['voicefleet_operator_watch_age_seconds{kind="Pod"}'] < 10
            faults.stalled.clear()
            await asyncio.to_thread(pool.wait, 2)


async def test_a_pod_that_is_refused_is_said_and_not_asked_for_at_every_event(fleet: BareFleet, pool: Pool) -> None:
    def quota(method: str, path: str) -> Fault | None:
        return Fault(403) if method == "POST" and path.startswith(pool.pods_path) else None

    async with faulty(fleet.plane) as faults:
        faults.decide = quota
        with fleet.operator(url=faults.url) as operator:
            await asyncio.to_thread(operator.wait_leading)
            pool.scale(2)

            def stalled() -> bool:
                said = {c["type"]: c for c in pool.status().get("conditions", [])}.get("Stalled", {})
                return said.get("reason") == "Refused" and "injected" in said["message"]

            await asyncio.to_thread(eventually, "Stalled: Refused", stalled, 20.0)
            for number in range(3):  # events enough
                pool.change({"metadata": {"labels": {"n": str(number)}}})
                await asyncio.to_thread(pool.scale, 2 + number % 2)
            await asyncio.sleep(2)
    assert (
        faults.injected[403] <= 4
    )  # once for each pod, and not again for half a minute: each attempt burns a generation


def test_the_leader_is_killed_in_mid_creation_and_the_other_takes_over_within_the_leases_life(
    fleet: BareFleet, pool: Pool
) -> None:
    with (
        fleet.operator(name="first", lease="op") as first,
        fleet.operator(name="second", lease="op") as second,
    ):
        leader, other = leader_and_standby(first, second)
        assert other.ask("/readyz") == (200, "standing by\n")
        pool.scale(150)
        eventually("some pods", lambda: len(pool.pods()) > 5, 20.0)
        leader.stop(signal.SIGKILL)
        other.wait_leading(20.0)  # 15 s of the Lease's life, 3 s between looks
        pool.wait(150, 60.0)
    assert max(created(fleet).values()) == 1
    slots = Counter(pod["metadata"]["labels"]["voicefleet.dev/slot"] for pod in pool.pods())
    assert max(slots.values()) == 1


def test_a_leader_that_slept_is_deposed_writes_nothing_more_and_ends(fleet: BareFleet, pool: Pool) -> None:
    with (
        fleet.operator(name="sleeper", lease="op2") as first,
        fleet.operator(name="waker", lease="op2") as second,
    ):
        leader, other = leader_and_standby(first, second)
        pool.scale(3)
        pool.wait(3)
        leader.process.send_signal(signal.SIGSTOP)
        pool.scale(5)  # for the sleeper's eyes too, when it wakes
        other.wait_leading(25.0)
        pool.wait(5)
        leader.process.send_signal(signal.SIGCONT)
        eventually("its end", lambda: leader.process.poll() is not None, 20.0)
        assert leader.process.returncode == 1
        assert len(pool.pods()) == 5
    assert max(created(fleet).values()) == 1


def test_a_leader_that_is_told_to_end_hands_over_at_once(fleet: BareFleet) -> None:
    with fleet.operator(name="one", lease="op3") as first, fleet.operator(name="two", lease="op3") as second:
        leader, other = leader_and_standby(first, second)
        other.process.send_signal(signal.SIGSTOP)  # the Lease is written by the leader alone
        renewed = len(fleet.writes("leases", "update"))
        eventually("the Lease is renewed", lambda: len(fleet.writes("leases", "update")) > renewed, 30.0)
        renewed = len(fleet.writes("leases", "update"))
        assert leader.stop() == 0
        # It gives the Lease back before it would have renewed it once more.
        assert len(fleet.writes("leases", "update")) == renewed + 1
        other.process.send_signal(signal.SIGCONT)
        other.wait_leading(8.0)

"""A relay of two workers in its pod: one public port, calls spread over both."""

import asyncio
import json
import re
from typing import Any

import httpx

from e2e.fleet import Fleet
from e2e.kube import eventually, ready
from e2e.talk import talking

_WORKERS = 2


async def test_calls_are_spread_over_the_workers_of_a_relay(fleet: Fleet) -> None:
    change(fleet, {"datapath": "Userspace", "workers": _WORKERS})
    try:
        eventually("relays with two workers, ready", lambda: running(fleet, _WORKERS), 60.0)
        fleet.wait_ready()
        async with talking(fleet, 10):  # none may be lost
            await asyncio.to_thread(
                eventually, "flows in every worker of a relay", lambda: any(map(spread, fleet.relays())), 30.0
            )
    except AssertionError:
        print(fleet.explain(), *(fleet.kube.run("logs", name) for name in names_of(fleet)), sep="\n")
        raise
    finally:
        change(fleet, {"datapath": None, "workers": None})
        eventually("relays of one process, ready", lambda: running(fleet, 1), 120.0)
        fleet.wait_ready()


def change(fleet: Fleet, spec: dict[str, object]) -> None:
    fleet.kube.run("patch", "voicerelay", "fra", "--type=merge", "-p", json.dumps({"spec": spec}))


def names_of(fleet: Fleet) -> list[str]:
    return [pod["metadata"]["name"] for pod in fleet.kube.pods("app.kubernetes.io/component=relay")]


def running(fleet: Fleet, workers: int) -> bool:
    """Whether every relay pod runs so many workers and is ready."""
    pods = fleet.kube.pods("app.kubernetes.io/component=relay")
    ports = [
        len([port for port in pod["spec"]["containers"][0]["ports"] if port["name"].startswith("inner")])
        for pod in pods
    ]
    return bool(pods) and all(map(ready, pods)) and set(ports) == {workers}


def spread(pod: Any) -> bool:
    """Whether every worker of a relay pod holds a flow."""
    host = pod["status"]["hostIP"]
    text = httpx.get(f"http://{host}:3479/metrics", trust_env=False, timeout=5).text
    flows = {
        worker: float(count)
        for worker, count in re.findall(r'^voicefleet_relay_flows{worker="(\d+)"} (\S+)', text, re.MULTILINE)
    }
    return len(flows) == _WORKERS and all(flows.values())

"""spec.autoscaling on the real cluster: load comes from the calls' own heartbeats, and shrinking is a drain."""

import asyncio
import json
from typing import Any

from e2e.fleet import POOL, Fleet
from e2e.kube import eventually
from e2e.talk import holding, lost, sent

MEMBERS = "app.kubernetes.io/component=transceiver"
# One call is two percent of a transceiver's fifty.
AUTOSCALING = {"minReplicas": 3, "maxReplicas": 5, "targetUtilization": 2, "scaleDownStabilization": "10s"}


async def test_it_grows_with_calls_and_shrinks_by_draining_and_loses_none(fleet: Fleet) -> None:
    try:
        async with holding(fleet, 6) as callers:
            autoscale(fleet, AUTOSCALING)
            await asyncio.to_thread(eventually, "five members", lambda: sizes(fleet) == (5, 5, 5), 40.0)
            # Now each member is to be full: three are enough for six calls, and the window has to pass.
            autoscale(fleet, {**AUTOSCALING, "targetUtilization": 100})
            await asyncio.to_thread(eventually, "three members", lambda: sizes(fleet) == (3, 3, 3), 40.0)
        assert [caller.result.error for caller in callers] == [""] * 6
        print(f"3 → 5 → 3 by load: {len(callers)} calls, {lost(callers)} of {sent(callers)} packets lost")
        assert lost(callers) == 0
    finally:
        autoscale(fleet, None)
        # Also those that are not ready yet or drain: the stories after this one count members.
        eventually("three members and no more", lambda: len(fleet.kube.get("pods", selector=MEMBERS)) == 3, within_s=90)


def autoscale(fleet: Fleet, autoscaling: dict[str, Any] | None) -> None:
    fleet.kube.run(
        "patch", "transceiver", POOL, "--type=merge", "-p", json.dumps({"spec": {"autoscaling": autoscaling}})
    )


def sizes(fleet: Fleet) -> tuple[int, int, int]:
    found = fleet.kube.get("transceiver", POOL)
    return found["spec"]["replicas"], found["status"]["replicas"], found["status"]["readyReplicas"]

"""spec.autoscaling on the real cluster: load comes from the calls' own heartbeats, and shrinking is a drain."""

import asyncio
import json
from typing import Any

from e2e.fleet import POOL, Fleet
from e2e.kube import eventually
from e2e.talk import holding, lost, sent

# One call is two percent of a transceiver's fifty.
AUTOSCALING = {"minReplicas": 3, "maxReplicas": 5, "targetUtilization": 2, "scaleDownStabilization": "10s"}
HPA = f"""\
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {{name: by-cpu}}
spec:
  scaleTargetRef: {{apiVersion: voicefleet.dev/v1alpha1, kind: Transceiver, name: {POOL}}}
  minReplicas: 3
  maxReplicas: 5
  metrics: [{{type: Resource, resource: {{name: cpu, target: {{type: Utilization, averageUtilization: 80}}}}}}]
"""


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


def test_contradictions_are_refused_and_a_horizontal_autoscaler_has_the_say(fleet: Fleet) -> None:
    try:
        autoscale(fleet, AUTOSCALING)
        eventually("the operator scales", lambda: condition(fleet) == ("True", "Active"), 20.0)
        refused = fleet.kube.fails("scale", "transceiver", POOL, "--replicas=9")
        assert "spec.replicas: spec.autoscaling sets it" in refused
        for wrong, said in (
            ({"minReplicas": 6}, "spec.autoscaling: minReplicas must not exceed maxReplicas"),
            ({"maxReplicas": 5000}, "spec.ports: needs more numbers than spec.autoscaling.maxReplicas"),
        ):
            patch = json.dumps({"spec": {"autoscaling": wrong}})
            assert said in fleet.kube.fails("patch", "transceiver", POOL, "--type=merge", "-p", patch)
        fleet.kube.apply(HPA)
        found = ("False", "HorizontalPodAutoscalerFound")
        eventually("the operator yields", lambda: condition(fleet) == found, 20.0)
        fleet.kube.run("delete", "hpa", "by-cpu")
        eventually("the operator scales again", lambda: condition(fleet) == ("True", "Active"), 20.0)
    finally:
        fleet.kube.run("delete", "hpa", "by-cpu", "--ignore-not-found")
        autoscale(fleet, None)
        fleet.kube.run("scale", "transceiver", POOL, "--replicas=3")  # calls of the story before may have made it grow
        eventually("three members again", lambda: len(fleet.transceivers()) == 3, within_s=90.0)


def autoscale(fleet: Fleet, autoscaling: dict[str, Any] | None) -> None:
    fleet.kube.run(
        "patch", "transceiver", POOL, "--type=merge", "-p", json.dumps({"spec": {"autoscaling": autoscaling}})
    )


def sizes(fleet: Fleet) -> tuple[int, int, int]:
    found = fleet.kube.get("transceiver", POOL)
    return found["spec"]["replicas"], found["status"]["replicas"], found["status"]["readyReplicas"]


def condition(fleet: Fleet) -> tuple[str, str]:
    conditions = fleet.kube.get("transceiver", POOL)["status"]["conditions"]
    return next((c["status"], c["reason"]) for c in conditions if c["type"] == "Autoscaling")

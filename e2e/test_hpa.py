"""A HorizontalPodAutoscaler scales a pool on what the sessions API says of it: up under calls, down with a drain."""

import asyncio
import json

from e2e.fleet import Fleet
from e2e.kube import eventually
from e2e.talk import talking

METRIC = "/apis/external.metrics.k8s.io/v1beta1/namespaces/voice/voicefleet_pool_sessions?labelSelector=pool%3Dagents"

HPA = """\
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: agents}
spec:
  scaleTargetRef: {apiVersion: voicefleet.dev/v1alpha1, kind: Transceiver, name: agents}
  minReplicas: 3
  maxReplicas: 4
  metrics:
    - type: External
      external:
        metric: {name: voicefleet_pool_sessions, selector: {matchLabels: {pool: agents}}}
        target: {type: AverageValue, averageValue: 500m}
  behavior: {scaleDown: {stabilizationWindowSeconds: 0}}
"""


async def test_an_hpa_scales_up_under_calls_and_down_when_they_end_and_no_call_is_lost(fleet: Fleet) -> None:
    kube = fleet.kube
    await asyncio.to_thread(fleet.upgrade, fleet.values | {"externalMetrics": {"enabled": True}})
    try:
        await asyncio.to_thread(eventually, "the metric is served", lambda: sessions(fleet) is not None, 60.0)
        async with talking(fleet, 2) as (one, other):
            await asyncio.to_thread(kube.apply, HPA)
            await asyncio.to_thread(eventually, "a fourth member", lambda: len(fleet.transceivers()) == 4, 60.0)
        assert (one.result.error, other.result.error) == ("", "")
        assert one.result.loss == other.result.loss == 0
        await asyncio.to_thread(eventually, "three members again", lambda: len(fleet.transceivers()) == 3, 90.0)
        scaled = [event["message"] for event in kube.get("events") if event["reason"] == "SuccessfulRescale"]
        assert any("New size: 4" in message for message in scaled)
        assert any("New size: 3" in message for message in scaled)
    finally:
        kube.run("delete", "hpa", "agents", "--ignore-not-found")
        kube.run("patch", "transceiver", "agents", "--type=merge", "-p", '{"spec":{"replicas":3}}')
        fleet.upgrade(fleet.values)


def sessions(fleet: Fleet) -> float | None:
    [item] = json.loads(fleet.kube.run("get", "--raw", METRIC, namespaced=False))["items"]
    return float(item["value"].removesuffix("m")) / 1000

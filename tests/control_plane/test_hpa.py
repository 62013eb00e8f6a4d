"""A HorizontalPodAutoscaler scales a pool on what the sessions API says of it: up under load, down with a drain.

The load is heartbeats, written as transceivers write them. That a grown pool moves no call, and a shrinking one ends none:
e2e/test_calls_survive.py, e2e/test_autoscaling.py.
"""

import json
from collections.abc import Iterator

import pytest
import redis

from e2e.bare.fleet import BareFleet
from e2e.bare.kubelets import Kubelets
from e2e.bare.plane import BareControlPlane
from e2e.bare.sessions_api import SessionsApiProcess
from e2e.kube import eventually
from tests.control_plane.conftest import new_fleet
from tests.control_plane.heartbeats import write_heartbeats
from tests.control_plane.pools import make_pool
from voicefleet_contract.names import EXTERNAL_METRICS_API_SERVICE

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


@pytest.fixture
def fleet(plane: BareControlPlane, kubelets: Kubelets, registry: str) -> Iterator[BareFleet]:
    values = {"sessionsApi": {"enabled": True}, "externalMetrics": {"enabled": True}}
    with new_fleet(plane, registry, values) as made:
        yield made


@pytest.mark.usefixtures("operator")
def test_an_hpa_scales_up_under_load_and_down_when_it_ends(fleet: BareFleet, registry: str) -> None:
    with redis.Redis.from_url(registry) as client, SessionsApiProcess(fleet, registry) as api:
        eventually("metrics are Available", lambda: api.available(EXTERNAL_METRICS_API_SERVICE), within_s=60)
        make_pool(fleet)
        write_heartbeats(client, fleet, {pod["metadata"]["name"]: 1 for pod in fleet.transceivers()})
        eventually("the metric is served", lambda: sessions(fleet) == 3, within_s=30)
        fleet.kube.apply(HPA)
        eventually("a fourth member", lambda: len(fleet.transceivers()) == 4, within_s=60)
        write_heartbeats(client, fleet, {})
        eventually("three members again", lambda: len(fleet.transceivers()) == 3, within_s=60)
    scaled = [event["message"] for event in fleet.kube.get("events") if event["reason"] == "SuccessfulRescale"]
    assert any("New size: 4" in message for message in scaled)
    assert any("New size: 3" in message for message in scaled)


def sessions(fleet: BareFleet) -> float:
    metric = "voicefleet_pool_sessions?labelSelector=pool%3Dagents"
    path = f"/apis/external.metrics.k8s.io/v1beta1/namespaces/{fleet.namespace}/{metric}"
    [item] = json.loads(fleet.kube.run("get", "--raw", path, namespaced=False))["items"]
    return float(item["value"].removesuffix("m")) / 1000

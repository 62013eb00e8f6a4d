"""spec.autoscaling: its contradictions are refused, and a HorizontalPodAutoscaler has the say."""

import json
from typing import Any

import pytest

from e2e.bare.fleet import BareFleet
from e2e.kube import eventually
from e2e.resources import POOL
from tests.control_plane.pools import make_pool

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


@pytest.mark.usefixtures("operator")
def test_contradictions_are_refused_and_a_horizontal_autoscaler_has_the_say(fleet: BareFleet) -> None:
    make_pool(fleet)
    fleet.change({"autoscaling": AUTOSCALING})
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


def condition(fleet: BareFleet) -> tuple[Any, Any]:
    return fleet.status_condition("transceiver", POOL, "Autoscaling")[:2]

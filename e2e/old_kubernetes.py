"""`make check-old-kubernetes`: CRDs, CEL, chart, RBAC and the operator's writes against the oldest API server that we support.

The API server alone is of that version (built once from its Go module, minutes); etcd, kubectl and Helm are the local
cluster's. No nodes: what is asked is whether it takes what we write and refuses what it must, with the chart's own rights.
"""

import sys

from e2e.bare.fleet import NAMESPACE, install, install_crds
from e2e.bare.operator import OperatorProcess
from e2e.bare.plane import BareControlPlane
from e2e.cluster.build import build, build_alone
from e2e.cluster.components import OLDEST
from e2e.cluster.steps import ClusterError, fail, run, say, step, wait_until

_API = f"/apis/voicefleet.dev/v1alpha1/namespaces/{NAMESPACE}"
_RELAY = {"location": {"region": "eu", "latitude": 50.1, "longitude": 8.7}}
# (kind, spec, what the refusal must say)
_REFUSED = (
    ("Transceiver", {"ports": {"min": 20000, "max": 20001}, "replicas": 5}, "spec.ports"),
    ("Transceiver", {"ports": {"min": 20000, "max": 20099}, "drain": {"deadline": "90d"}}, "spec.drain.deadline"),
    ("Transceiver", {"ports": {"min": 20000, "max": 20099}, "backend": {"type": "MediaStream"}}, "spec.backend.url"),
    ("VoiceRelay", {**_RELAY, "port": 3478, "innerPort": 3478}, "innerPort"),
)


def check(plane: BareControlPlane) -> None:
    """Raises ClusterError naming what this version does otherwise."""
    version = plane.request("GET", "/version")[1]["gitVersion"]
    with step(f"Kubernetes {version}: CRDs, chart, RBAC"):
        install_crds(plane)
        install(plane, build() / "bin" / "helm")
    with step("impossible specs are refused with the field and the fix"):
        for kind, spec, says in _REFUSED:
            status, answer = post(plane, kind, "wrong", spec)
            if status != 422 or says not in answer["message"]:
                raise ClusterError(f"{kind} {spec}: {status} {answer}")
    with (
        step("the operator, with the chart's rights: pods, topology, status") as line,
        OperatorProcess(plane, NAMESPACE, lease="op") as operator,
    ):
        operator.wait_leading()
        for kind, spec in (
            ("Transceiver", {"replicas": 3, "ports": {"min": 20000, "max": 20099}}),
            ("VoiceRelay", _RELAY),
        ):
            status, answer = post(plane, kind, "right", spec)
            if status != 201:
                raise ClusterError(f"{kind}: {status} {answer}")
        wait_until("pods, topology, status", lambda: done(plane), within_s=30, log=operator.log)
        codes = {s: v for s, v in operator.metrics().items() if "api_requests_total{" in s and 'code="2' not in s}
        unwelcome = {series for series in codes if 'code="404"' not in series and "get" not in series}
        if unwelcome:
            raise ClusterError(f"requests that were not taken: {unwelcome}", operator.log)
        line.note = f"{len(codes)} kinds of answers but 2xx"


def post(plane: BareControlPlane, kind: str, name: str, spec: dict[str, object]) -> tuple[int, dict[str, str]]:
    body = {"apiVersion": "voicefleet.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    return plane.request("POST", f"{_API}/{kind.lower()}s", body)


def done(plane: BareControlPlane) -> bool:
    pods = plane.request("GET", f"/api/v1/namespaces/{NAMESPACE}/pods")[1]["items"]
    slices = plane.request("GET", f"{_API}/topologyslices")[1]["items"]
    status = plane.request("GET", f"{_API}/transceivers/right")[1].get("status", {})
    daemons = plane.request("GET", f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets")[1]["items"]
    return len(pods) == 3 and bool(slices) and len(status.get("conditions", ())) >= 6 and len(daemons) == 1


def main() -> int:
    try:
        apiserver = build_alone(OLDEST) / "kube-apiserver"
        with BareControlPlane(build() / "bin", apiserver=apiserver) as plane:
            check(plane)
    except ClusterError as error:
        return fail(error)
    say(run([apiserver, "--version"]).strip() + ": well")
    return 0


if __name__ == "__main__":
    sys.exit(main())

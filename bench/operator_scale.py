"""`make bench-operator`: what a fleet of thousands costs the operator and the API server.

A control plane of its own on loopback (etcd, kube-apiserver, kube-scheduler of the local cluster's build), the chart with
the chart's own rights, the operator as one process. **One thing is fake**: nodes and kubelets. KWOK says that a bound pod
runs and is Ready; no transceiver runs, no call is placed, and the registry is away. All else is real: pods are made by the
operator, bound by kube-scheduler (host ports included), watched, lost and made again.

Writes are counted by the API server's audit log, not by the operator itself.

    .venv/bin/python -m bench.operator_scale                     # 10,000 pods on 1,000 nodes: about 25 minutes on two cores
    .venv/bin/python -m bench.operator_scale --quick             # a minute; writes no result
"""

import argparse
import json
import queue
import random
import re
import signal
import statistics
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.report import Report
from e2e.bare.fleet import NAMESPACE, install, install_crds, operator_user
from e2e.bare.operator import OperatorProcess
from e2e.bare.plane import BareControlPlane
from e2e.bare.programs import ADMIN
from e2e.cluster.build import build, build_alone
from e2e.cluster.components import KWOK
from e2e.cluster.steps import ClusterError, fail, say, step
from voicefleet_contract.topology import MemberState, TopologySlice

_PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
_POOL = f"/apis/voicefleet.dev/v1alpha1/namespaces/{NAMESPACE}/transceivers/agents"
_SLICES = f"/apis/voicefleet.dev/v1alpha1/namespaces/{NAMESPACE}/topologyslices"
_STAGES = Path(__file__).with_name("kwok_stages.yaml")
FULL_PODS = 10_000
_CONVERGES_WITHIN_S = 3600.0
_LOSS_SEEN_WITHIN_S = 60.0


@dataclass
class Measured:
    """What one run found."""

    converge_s: float = 0.0
    operator_cpu_s: float = 0.0
    rss_bytes: int = 0
    peak_bytes: int = 0
    writes_to_converge: int = 0
    rest_writes_per_minute: float = 0.0
    rest_cpu_percent: float = 0.0
    writes_per_loss: list[int] = field(default_factory=list)
    loss_seen_s: list[float] = field(default_factory=list)
    loss_mended_s: list[float] = field(default_factory=list)
    plan_s: dict[str, float] = field(default_factory=dict)
    reconcile_s: dict[str, float] = field(default_factory=dict)
    restart_s: float = 0.0


class Audit:
    """The operator's writes as the API server logs them."""

    def __init__(self, plane: BareControlPlane) -> None:
        self._path = plane.audit_log

    def writes(self) -> list[dict[str, Any]]:
        """Return every write so far."""
        events = (json.loads(line) for line in self._path.read_text().splitlines() if line.strip())
        # The Lease is what a standby needs; it is renewed whatever the size of the fleet, and this run has none.
        return [e for e in events if e["user"]["username"] == operator_user() and e["stage"] == "ResponseComplete"]

    def count(self) -> int:
        return len(self.writes())


class TopologyWatch:
    """Members as a dataplane process sees them: one watch of the slices."""

    def __init__(self, plane: BareControlPlane) -> None:
        self._plane = plane
        self._by_slice: dict[str, dict[str, MemberState]] = {}
        self.changes: queue.Queue[float] = queue.Queue()
        threading.Thread(target=self._run, daemon=True).start()

    def state(self, pod: str) -> MemberState | None:
        return next((members[pod] for members in list(self._by_slice.values()) if pod in members), None)

    def active(self) -> int:
        return sum(
            state is MemberState.ACTIVE for members in list(self._by_slice.values()) for state in members.values()
        )

    def _run(self) -> None:
        for event in self._plane.watch(_SLICES):
            name = event["object"]["metadata"]["name"]
            if event["type"] == "DELETED":
                self._by_slice.pop(name, None)
            elif event["type"] in ("ADDED", "MODIFIED"):
                part = TopologySlice.load(json.dumps(event["object"]["spec"]))
                self._by_slice[name] = {m.name: m.state for m in part.pool.members} if part.pool else {}
            self.changes.put(time.monotonic())


def wait(what: str, done: Any, within_s: float, every_s: float = 0.01, progress: Any = None) -> float:
    """Wait; return how long it took."""
    began = told = time.monotonic()
    while not done():
        now = time.monotonic()
        if now - began > within_s:
            raise ClusterError(f"{what}: not within {within_s:.0f} s")
        if progress is not None and now - told > 15:
            told = now
            say(f"{now - began:8.0f} s  … {progress()}")
        time.sleep(every_s)
    return time.monotonic() - began


def make_nodes(plane: BareControlPlane, count: int) -> None:
    for number in range(count):
        address = f"127.64.{number // 250}.{number % 250 + 1}"  # whoever asks a member asks loopback
        node = {
            "metadata": {
                "name": f"node-{number:04}",
                "annotations": {"kwok.x-k8s.io/node": "fake", "node.alpha.kubernetes.io/ttl": "0"},
            },
            "status": {
                "allocatable": {"cpu": "64", "memory": "256Gi", "pods": "110"},
                "capacity": {"cpu": "64", "memory": "256Gi", "pods": "110"},
                "addresses": [{"type": "InternalIP", "address": address}],
            },
        }
        status, answer = plane.request("POST", "/api/v1/nodes", node)
        if status != 201:
            raise ClusterError(f"node {number}: {status} {answer}")


def pool(pods: int) -> dict[str, Any]:
    return {
        "apiVersion": "voicefleet.dev/v1alpha1",
        "kind": "Transceiver",
        "metadata": {"name": "agents", "namespace": NAMESPACE},
        "spec": {
            "replicas": pods,
            "ports": {"min": 20000, "max": min(65535, 20000 + 2 * pods + 100)},
            "capacity": {"sessions": 400},
            "backend": {"type": "Echo"},
            "drain": {"deadline": "60s", "policy": "Wait"},
        },
    }


def quantiles(metrics: dict[str, float], name: str, before: dict[str, float]) -> dict[str, float]:
    """p50 and p99 of a histogram's growth, linear within a bucket."""
    pattern = re.compile(rf'{name}_bucket{{le="([^"]+)"}}')
    counts = sorted(
        (float(found[1]), value - before.get(series, 0))
        for series, value in metrics.items()
        if (found := pattern.fullmatch(series))
    )
    total = counts[-1][1] if counts else 0
    answer = {}
    for label, share in (("p50", 0.5), ("p99", 0.99)):
        low, below = 0.0, 0.0
        for bound, count in counts:
            if count >= share * total and total:
                inside = count - below
                upper = bound if bound != float("inf") else low
                answer[label] = low + (upper - low) * ((share * total - below) / inside if inside else 0)
                break
            low, below = bound, count
    return answer


def bench(options: argparse.Namespace) -> Measured:
    found = Measured()
    tree, kwok = build(), build_alone(KWOK)
    chance = random.Random(4)
    with BareControlPlane(tree / "bin", audit=True) as plane:
        plane.start_scheduler()
        with step("the chart, with its own rights"):
            install_crds(plane)
            install(plane, tree / "bin" / "helm")
        audit, topology = Audit(plane), TopologyWatch(plane)
        admin = plane.place.kubeconfig(ADMIN)
        plane.spawn(
            "kwok",
            [
                *(str(kwok / "kwok"), f"--kubeconfig={admin}", "--manage-all-nodes=true"),
                *("--node-ip=10.63.0.1", "--cidr=10.128.0.0/9", f"--config={_STAGES}"),
            ],
        )
        with step(f"{options.nodes} nodes"):
            make_nodes(plane, options.nodes)
        with OperatorProcess(plane, NAMESPACE) as operator:
            operator.wait_leading()
            measure(options, found, plane, operator, audit, topology, chance)
        with step("another operator takes over the whole fleet") as line:
            before = audit.count()
            began = time.monotonic()
            with OperatorProcess(plane, NAMESPACE, name="successor") as successor:
                successor.wait_leading(300)
                found.restart_s = time.monotonic() - began
                time.sleep(10)
            line.note = f"{found.restart_s:.1f} s, {audit.count() - before} writes"
            if audit.count() != before:
                raise ClusterError(f"a restarted operator wrote: {audit.writes()[before:][:3]}")
    return found


def measure(
    options: argparse.Namespace,
    found: Measured,
    plane: BareControlPlane,
    operator: OperatorProcess,
    audit: Audit,
    topology: TopologyWatch,
    chance: random.Random,
) -> None:
    before = audit.count()
    with step(f"{options.pods} pods: made, bound, Ready, in the topology") as line:
        status, answer = plane.request("POST", _POOL.rpartition("/")[0], pool(options.pods))
        if status != 201:
            raise ClusterError(f"Transceiver: {status} {answer}")
        found.converge_s = wait(
            f"{options.pods} active members",
            lambda: topology.active() == options.pods,
            _CONVERGES_WITHIN_S,
            0.2,
            lambda: (
                f"{topology.active()} active, {operator.memory_bytes() / 2**20:.0f} MiB, {operator.cpu_s():.0f} s CPU"
            ),
        )
        found.operator_cpu_s = operator.cpu_s()
        line.note = f"{found.converge_s:.1f} s, operator {operator.memory_bytes() / 2**20:.0f} MiB"
    wait("no more writes", lambda: quiet(audit), 120, 1)
    found.writes_to_converge = audit.count() - before
    with step(f"at rest for {options.rest} s") as line:
        at_rest, cpu_s = audit.count(), operator.cpu_s()
        time.sleep(options.rest)
        written = audit.writes()[at_rest:]
        found.rest_writes_per_minute = len(written) * 60 / options.rest
        found.rest_cpu_percent = (operator.cpu_s() - cpu_s) * 100 / options.rest
        line.note = (
            f"{len(written)} writes {[e['requestURI'] for e in written[:3]]}, {found.rest_cpu_percent:.1f} % CPU"
        )
    histograms = operator.metrics()
    with step(f"{options.losses} pods lost, one at a time") as line:
        for _ in range(options.losses):
            lose_one(found, plane, audit, topology, chance, options.pods)
        line.note = f"in the topology after {statistics.median(found.loss_seen_s) * 1e3:.0f} ms (median), {max(found.loss_seen_s) * 1e3:.0f} ms (worst)"
    metrics = operator.metrics()
    found.reconcile_s = quantiles(metrics, "voicefleet_operator_reconcile_seconds", histograms)
    found.plan_s = quantiles(metrics, "voicefleet_operator_plan_seconds", histograms)
    found.rss_bytes, found.peak_bytes = operator.memory_bytes(), operator.memory_bytes("VmHWM")


def quiet(audit: Audit, for_s: float = 5.0) -> bool:
    before = audit.count()
    time.sleep(for_s)
    return audit.count() == before


def lose_one(
    found: Measured,
    plane: BareControlPlane,
    audit: Audit,
    topology: TopologyWatch,
    chance: random.Random,
    pods: int,
) -> None:
    names = [name for members in topology._by_slice.values() for name in members]
    name, writes = chance.choice(sorted(names)), audit.count()
    began = time.monotonic()
    plane.request("DELETE", f"{_PODS}/{name}", {"gracePeriodSeconds": 0})
    wait(f"{name} lost", lambda: topology.state(name) is not MemberState.ACTIVE, _LOSS_SEEN_WITHIN_S, 0.002)
    found.loss_seen_s.append(time.monotonic() - began)
    wait(f"{name} replaced", lambda: topology.active() == pods, _LOSS_SEEN_WITHIN_S, 0.01)
    found.loss_mended_s.append(time.monotonic() - began)
    wait("no more writes", lambda: quiet(audit, 1.0), 30, 0.1)
    found.writes_per_loss.append(audit.count() - writes)


def p99(values: list[float]) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]


def report(options: argparse.Namespace, found: Measured) -> Report:
    """Put what one run found into the one format."""
    written = Report(
        "operator",
        pods=options.pods,
        nodes=options.nodes,
        fake="nodes and kubelets are KWOK's: a bound pod is said to be Ready; no transceiver runs, no registry",
        real="etcd, kube-apiserver, kube-scheduler and the operator, all on this machine's cores",
        quick=options.pods < FULL_PODS,
    )
    who = f"{options.pods:,} pods, {options.nodes:,} nodes"
    once = written.row
    once("fleet", who, "all made, bound and in the topology", "s", [found.converge_s])
    once("fleet", who, "operator CPU for that", "s", [found.operator_cpu_s])
    once("fleet", who, "API writes for that", "writes", [found.writes_to_converge])
    once("fleet", who, "memory, steady", "MB", [found.rss_bytes / 1e6])
    once("fleet", who, "memory, peak", "MB", [found.peak_bytes / 1e6])
    once("fleet", who, "another operator takes over", "s", [found.restart_s])
    once("rest", who, "API writes at rest", "per minute", [found.rest_writes_per_minute])
    once("rest", who, "CPU at rest", "% of a core", [found.rest_cpu_percent])
    once("loss", who, "a pod's loss in the topology", "ms", [1e3 * one for one in found.loss_seen_s])
    once("loss", who, "the same, p99", "ms", [1e3 * p99(found.loss_seen_s)])
    once("loss", who, "its replacement in the topology", "ms", [1e3 * one for one in found.loss_mended_s])
    once("loss", who, "API writes for both", "writes", [float(one) for one in found.writes_per_loss])
    for name, quantile in (("a plan", found.plan_s), ("change seen to done", found.reconcile_s)):
        for which, value in quantile.items():
            once("loop", who, f"{name}, {which}", "ms", [1e3 * value])
    full = options.pods >= FULL_PODS
    written.target("steady", "10,000 pods under 500 MB", found.rss_bytes / 1e6, met=full and found.rss_bytes < 500e6)
    seen = p99(found.loss_seen_s)
    written.target("a pod's loss", "in the topology under 2 s p99", seen, met=full and seen < 2.0)
    rest = found.rest_writes_per_minute
    written.target("at rest", "no API write", rest, met=full and rest == 0)
    most = max(found.writes_per_loss)
    written.target(
        "one pod's change", "at most 10 API writes, whatever the fleet's size", most, met=full and most <= 10
    )
    return written


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--pods", type=int, default=FULL_PODS)
    arguments.add_argument("--nodes", type=int, default=1_000)
    arguments.add_argument("--quick", action="store_true", help="500 pods on 50 nodes, and nothing is written")
    arguments.add_argument("--rest", type=int, default=180, help="seconds of rest to count writes in")
    arguments.add_argument("--losses", type=int, default=100)
    options = arguments.parse_args()
    if options.quick:
        options.pods, options.nodes, options.rest, options.losses = 500, 50, 20, 10
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        found = bench(options)
    except ClusterError as error:
        return fail(error)
    written = report(options, found)
    for row in written.rows:
        say(f"{row['what']:40} {row['value']:>10} {row['unit']}")
    if options.pods >= FULL_PODS:
        say(str(written.write()))
    return 0 if all(target["met"] for target in written.targets) or options.pods < FULL_PODS else 1


if __name__ == "__main__":
    sys.exit(main())

"""Brings the cluster up: finds a healthy one and leaves it alone, else cleans up and starts anew."""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from e2e.cluster import cgroups, control_plane, daemons, dns, network, node, node_store, pki, system_images
from e2e.cluster.api import Api
from e2e.cluster.build import build
from e2e.cluster.loading import load
from e2e.cluster.nodes import API_SERVICE_ADDRESS, NODES, Node
from e2e.cluster.places import KUBECONFIG, STATE, containerd_socket, node_dir
from e2e.cluster.steps import ClusterError, run, say, step, together, wait_until
from e2e.cluster.teardown import tear_down

PROGRAMS_NEEDED = ("containerd", "ctr", "runc", "nsenter", "unshare", "openssl", "ip", "nft", "gcc")
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
CAP_SYS_RESOURCE = 24
_MARK = STATE / "cluster.json"


def all_daemons() -> list[str]:
    return [*CONTROL_PLANE, *(name for n in NODES for name in node.daemon_names(n))]


def problems() -> list[str]:
    """Why the cluster is not healthy; empty when it is."""
    if not _MARK.is_file():
        return ["not running"]
    if gone := daemons.dead(all_daemons()):
        return [f"{name} has ended (log: {daemons.Daemon(name, ()).log})" for name in gone]
    api = Api(STATE / "pki")
    if not api.ready():
        return ["the API server does not answer /readyz"]
    found = [f"{n.name} is not Ready" for n in NODES if n.name not in api.ready_nodes()]
    if not api.deployment_available(dns.NAMESPACE, dns.NAME):
        found.append("CoreDNS is not available")
    elif dns.resolve("kubernetes.default.svc.cluster.local") != API_SERVICE_ADDRESS:
        found.append("CoreDNS does not answer at its service address")
    return found


def runs() -> bool:
    return _MARK.is_file() and not daemons.dead(all_daemons())


def node_prefix(name: str) -> tuple[str, ...]:
    """What to put before a command that is to run in a node: its network, mounts and host name."""
    if (holder := daemons.pid_of(f"{name}-holder")) is None:
        raise ClusterError(f"no node {name} is running")
    return node.enter(holder)


def may_lower_oom_score() -> bool:
    effective = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) >> CAP_SYS_RESOURCE & 1)


def bring_up() -> None:
    if missing := [program for program in PROGRAMS_NEEDED if shutil.which(program) is None]:
        raise ClusterError(f"not installed: {', '.join(missing)}; `make deps` installs what the cluster needs")
    began = time.monotonic()
    with step("programs of Kubernetes, etcd, CoreDNS, Helm, CNI") as line:
        tree = build()
        line.note = str(tree)
    if _runs_from(tree) and not problems():
        say("            the cluster is running and healthy")
        return
    with step("clean up what an earlier run left") as line:
        line.note = ", ".join(tear_down()) or "nothing"
    try:
        _start(tree)
    except BaseException as error:
        # A failed start keeps its logs and nothing else; so does Ctrl-C.
        if isinstance(error, ClusterError) and error.log is None and (gone := daemons.dead(_started())):
            error.log = daemons.Daemon(gone[0], ()).log
        with contextlib.suppress(ClusterError):
            tear_down(keep_logs=True)
        raise
    say(f"{time.monotonic() - began:8.1f} s  cluster up: export KUBECONFIG={KUBECONFIG}")


def _runs_from(tree: Path) -> bool:
    try:
        return json.loads(_MARK.read_text())["tree"] == str(tree)
    except (OSError, ValueError, KeyError):
        return False


def _started() -> list[str]:
    folder = STATE / "pids"
    return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []


def _alive_and(daemon: str, ready: Callable[[], bool]) -> Callable[[], bool]:
    """Waiting ends at once when what is waited for has died."""

    def check() -> bool:
        if daemons.dead([daemon]):
            raise ClusterError(f"{daemon} has ended", daemons.Daemon(daemon, ()).log)
        return ready()

    return check


def _start(tree: Path) -> None:
    pki_dir = STATE / "pki"
    STATE.mkdir(parents=True, exist_ok=True, mode=0o700)
    STATE.chmod(0o700)
    group = cgroups.make([n.name for n in NODES])
    with step("network, certificates, configuration"):
        together(network.make_network, lambda: pki.make_pki(pki_dir), _write_files)
        pki.write_kubeconfigs(pki_dir)
        shutil.copy(pki_dir / "admin.conf", KUBECONFIG)
        KUBECONFIG.chmod(0o600)
    images = [system_images.pause_archive(), system_images.coredns_archive(tree)]
    holders: dict[str, int] = {}

    def start_runtime(n: Node) -> None:
        node_store.give(tree, n.name)
        holder = daemons.start(node.holder(STATE, tree, n), group)
        holders[n.name] = holder
        entered = node_dir(n.name) / "entered"
        wait_until(
            f"{n.name}: its namespaces", _alive_and(f"{n.name}-holder", entered.is_file), within_s=20, every_s=0.02
        )
        runtime = node.containerd(STATE, n, holder)
        daemons.start(runtime, group)
        wait_until(
            f"{n.name}: containerd",
            _alive_and(runtime.name, containerd_socket(n.name).is_socket),
            within_s=30,
            log=runtime.log,
        )

    api = Api(pki_dir)
    apiserver = control_plane.kube_apiserver(tree, STATE)

    def control() -> None:
        daemons.start(control_plane.etcd(tree, STATE), group)
        daemons.start(apiserver, group)
        with step("API server answers"):
            wait_until("the API server", _alive_and("kube-apiserver", api.ready), within_s=90, log=apiserver.log)
        daemons.start(control_plane.kube_controller_manager(tree, STATE), group)
        daemons.start(control_plane.kube_scheduler(tree, STATE), group)

    def runtimes() -> None:
        with step("containerd on each node, with the pause and CoreDNS images"):
            together(*(lambda n=n: start_runtime(n) for n in NODES))
            load(images)

    together(control, runtimes)
    for n in NODES:
        daemons.start(node.kubelet(STATE, n, holders[n.name]), group)
        daemons.start(node.kube_proxy(STATE, n, holders[n.name]), group)
    with step("CoreDNS applied"):
        kubectl(tree, "apply", "--server-side", "-f", "-", stdin=dns.manifests())
    wanted = {n.name for n in NODES}
    kubelet_log = node.kubelet(STATE, NODES[0], 0).log
    with step("nodes Ready"):
        wait_until("all nodes Ready", lambda: wanted <= api.ready_nodes(), within_s=90, log=kubelet_log, every_s=0.25)
    with step("CoreDNS answers at its service address"):
        wait_until(
            "CoreDNS",
            lambda: api.deployment_available(dns.NAMESPACE, dns.NAME),
            within_s=90,
            log=kubelet_log,
            every_s=0.25,
        )
        name = "kubernetes.default.svc.cluster.local"
        wait_until(
            "the cluster's DNS",
            lambda: dns.resolve(name) == API_SERVICE_ADDRESS,
            within_s=30,
            log=node.kube_proxy(STATE, NODES[0], 0).log,
        )
    _MARK.write_text(json.dumps({"tree": str(tree)}))


def _write_files() -> None:
    (STATE / "resolv.conf").write_text("# no names but the cluster's\n")
    for n in NODES:
        for path, text in node.files(STATE, n, may_lower_oom_score=may_lower_oom_score()).items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


def kubectl(tree: Path, *words: str, stdin: str | None = None) -> str:
    return run(
        [tree / "bin" / "kubectl", "--kubeconfig", KUBECONFIG, *words], stdin=stdin, env=os.environ | {"NO_PROXY": "*"}
    )

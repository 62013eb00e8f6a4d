"""One node's configuration files and command lines. Pure: text in, text out.

A node is a network namespace and, inside it, a mount namespace that hides the machine's /var/lib, /var/log and /run
behind the node's own. containerd, kubelet and the plugins keep their usual paths, three times over, and every mount
they make ends with their processes: after a crash there is nothing to unmount.
"""

import json
import shlex
from pathlib import Path

from e2e.cluster import cgroups
from e2e.cluster.daemons import Daemon
from e2e.cluster.nodes import DNS_ADDRESS, POD_NETWORK, Node

PAUSE_IMAGE = "voicefleet.local/pause:1"
# Plugins of containerd that probe for file systems that no node has, or write outside the node (/opt).
DISABLED_PLUGINS = (
    "io.containerd.internal.v1.opt",
    *(f"io.containerd.snapshotter.v1.{name}" for name in ("aufs", "btrfs", "devmapper", "zfs")),
)


def enter_script(state: Path, tree: Path, node: Node) -> str:
    """What the node's first process does before it sleeps: the node's own file system view."""
    own = state / node.name
    q = {
        name: shlex.quote(str(path))
        for name, path in {"state": state, "tree": tree, "lib": own / "lib", "log": own / "var-log"}.items()
    }
    inside = shlex.quote(str(own / "lib" / state.name))
    return f"""set -e
mkdir -p {inside} {q["log"]} {q["state"]}/tree
mount --bind {q["tree"]} {q["state"]}/tree
mount --rbind {q["state"]} {inside}
mount --rbind {q["lib"]} /var/lib
mount --bind {q["log"]} /var/log
mount -t tmpfs -o mode=755 tmpfs /run
mount --make-rshared /
# Pinned BPF objects belong to the node and go with it.
if [ -d /sys/fs/bpf ]; then mount -t bpf bpf /sys/fs/bpf || true; fi
hostname {node.name}
touch {q["state"]}/{node.name}/entered
exec sleep infinity
"""


def holder(state: Path, tree: Path, node: Node) -> Daemon:
    script = enter_script(state, tree, node)
    namespaces = ("unshare", "--mount", "--uts", "--propagation", "private")
    return Daemon(f"{node.name}-holder", ("nsenter", f"--net=/run/netns/{node.name}", *namespaces, "sh", "-c", script))


def enter(pid: int) -> tuple[str, ...]:
    """Prefix of a command that is to run in the node held by process `pid`."""
    return ("nsenter", f"--target={pid}", "--mount", "--uts", "--net")


def containerd_config(
    socket: Path, *, may_lower_oom_score: bool, root: Path = Path("/var/lib/containerd"), cni: str = ""
) -> str:
    # Root without CAP_SYS_RESOURCE cannot lower a score, and runc then dies without saying why.
    restrict = "false" if may_lower_oom_score else "true"
    return f"""version = 2
root = "{root}"
state = "/run/containerd"
disabled_plugins = {json.dumps(DISABLED_PLUGINS)}
[debug]
  level = "warn"
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = {restrict}
  sandbox_image = "{PAUSE_IMAGE}"
  disable_hugetlb_controller = true
  tolerate_missing_hugetlb_controller = true
{cni}  [plugins."io.containerd.grpc.v1.cri".containerd]
    disable_snapshot_annotations = true
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
"""


def _cni_section(state: Path, node: Node) -> str:
    return f"""  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{state}/tree/cni"
    conf_dir = "{state}/{node.name}/cni"
"""


def cni_config(node: Node) -> str:
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": node.pod_network}]], "routes": [{"dst": "0.0.0.0/0"}]},
    }
    # hostPort of pods that have an address of their own, TCP and UDP; a host-network pod's hostPort only reserves.
    portmap = {"type": "portmap", "backend": "nftables", "capabilities": {"portMappings": True}}
    return json.dumps({"cniVersion": "1.0.0", "name": "voicefleet", "plugins": [bridge, portmap]}, indent=1)


def kubelet_config(state: Path, node: Node) -> str:
    return json.dumps(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "failCgroupV1": False,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": cgroups.pod_root(node.name),
            "cgroupsPerQOS": True,
            "enforceNodeAllocatable": [],
            "failSwapOn": False,
            "containerRuntimeEndpoint": f"unix://{state}/{node.name}/containerd.sock",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": f"{state}/pki/ca.crt"},
            },
            "authorization": {"mode": "Webhook"},
            "clusterDNS": [DNS_ADDRESS],
            "clusterDomain": "cluster.local",
            # There is no way out of the cluster: a host-network pod that needs names asks for ClusterFirstWithHostNet.
            "resolvConf": f"{state}/resolv.conf",
            "maxPods": 60,
            # The machine's disk is the user's business: no eviction, no image collection because it is nearly full.
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {
                "memory.available": "50Mi",
                "nodefs.available": "0%",
                "imagefs.available": "0%",
                "nodefs.inodesFree": "0%",
            },
            "volumeStatsAggPeriod": "-1s",
            "nodeStatusUpdateFrequency": "5s",
            "syncFrequency": "10s",
            "rotateCertificates": False,
        },
        indent=1,
    )


def kube_proxy_config(state: Path, node: Node) -> str:
    return json.dumps(
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": f"{state}/pki/kube-proxy.conf"},
            "mode": "nftables",
            "clusterCIDR": POD_NETWORK,
            "hostnameOverride": node.name,
            # The machine's connection tracking limits stay as they are.
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
            "nftables": {"syncPeriod": "5m", "minSyncPeriod": "200ms"},
        },
        indent=1,
    )


def files(state: Path, node: Node, *, may_lower_oom_score: bool) -> dict[Path, str]:
    own = state / node.name
    return {
        own / "containerd.toml": containerd_config(
            own / "containerd.sock", may_lower_oom_score=may_lower_oom_score, cni=_cni_section(state, node)
        ),
        own / "cni" / "10-voicefleet.conflist": cni_config(node),
        own / "kubelet.json": kubelet_config(state, node),
        own / "kube-proxy.json": kube_proxy_config(state, node),
    }


def containerd(state: Path, node: Node, pid: int) -> Daemon:
    return Daemon(
        f"{node.name}-containerd", (*enter(pid), "containerd", "--config", f"{state}/{node.name}/containerd.toml")
    )


def kubelet(state: Path, node: Node, pid: int) -> Daemon:
    labels = ",".join(f"{key}={value}" for key, value in node.labels.items())
    return Daemon(
        f"{node.name}-kubelet",
        (
            *(*enter(pid), f"{state}/tree/bin/kubelet", f"--config={state}/{node.name}/kubelet.json"),
            *(
                f"--kubeconfig={state}/pki/{node.name}.conf",
                f"--hostname-override={node.name}",
                f"--node-ip={node.address}",
            ),
            *(f"--node-labels={labels}", "--housekeeping-interval=30s"),
        ),
    )


def kube_proxy(state: Path, node: Node, pid: int) -> Daemon:
    return Daemon(
        f"{node.name}-kube-proxy",
        (*enter(pid), f"{state}/tree/bin/kube-proxy", f"--config={state}/{node.name}/kube-proxy.json"),
    )


def daemon_names(node: Node) -> tuple[str, ...]:
    return tuple(f"{node.name}-{part}" for part in ("holder", "containerd", "kubelet", "kube-proxy"))

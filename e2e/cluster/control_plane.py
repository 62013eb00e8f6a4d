"""The control plane's command lines. Pure.

Cheap on purpose: no leader election, no serving ports nobody reads, an etcd that never waits for the disk. Not less
strict on purpose: Node and RBAC authorization, each component as its own user, as on a real cluster.
"""

from pathlib import Path

from e2e.cluster.daemons import Daemon
from e2e.cluster.nodes import API_PORT, HOST_ADDRESS, POD_NETWORK, SERVICE_NETWORK

ETCD_URL = "http://127.0.0.1:12379"
ETCD_PEER_URL = "http://127.0.0.1:12380"


def etcd(tree: Path, state: Path) -> Daemon:
    return Daemon(
        "etcd",
        (
            *(str(tree / "bin" / "etcd"), "--data-dir", str(state / "etcd"), "--unsafe-no-fsync", "--log-level=warn"),
            *(
                f"--listen-client-urls={ETCD_URL}",
                f"--advertise-client-urls={ETCD_URL}",
                f"--listen-peer-urls={ETCD_PEER_URL}",
            ),
            *(f"--initial-advertise-peer-urls={ETCD_PEER_URL}", f"--initial-cluster=default={ETCD_PEER_URL}"),
        ),
    )


def kube_apiserver(tree: Path, state: Path) -> Daemon:
    pki = state / "pki"
    flags = {
        "etcd-servers": ETCD_URL,
        "bind-address": HOST_ADDRESS,
        "advertise-address": HOST_ADDRESS,
        "secure-port": API_PORT,
        "tls-cert-file": pki / "apiserver.crt",
        "tls-private-key-file": pki / "apiserver.key",
        "client-ca-file": pki / "ca.crt",
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "anonymous-auth": "false",
        "service-account-key-file": pki / "service-accounts.pub",
        "service-account-signing-key-file": pki / "service-accounts.key",
        "service-account-issuer": "https://kubernetes.default.svc.cluster.local",
        "service-cluster-ip-range": SERVICE_NETWORK,
        "allow-privileged": "true",
        "kubelet-client-certificate": pki / "admin.crt",
        "kubelet-client-key": pki / "admin.key",
        # Node names resolve nowhere: exec and logs go by address.
        "kubelet-preferred-address-types": "InternalIP",
        # Aggregated API servers and webhooks: straight to pod addresses, for which this machine has routes.
        "enable-aggregator-routing": "true",
        "requestheader-client-ca-file": pki / "ca.crt",
        # The same CA signs everybody's certificate, so the name must be the front proxy's.
        "requestheader-allowed-names": "front-proxy",
        "requestheader-username-headers": "X-Remote-User",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "proxy-client-cert-file": pki / "front-proxy.crt",
        "proxy-client-key-file": pki / "front-proxy.key",
        "event-ttl": "30m",
        "profiling": "false",
    }
    return Daemon("kube-apiserver", _command(tree / "bin" / "kube-apiserver", flags))


def kube_controller_manager(tree: Path, state: Path) -> Daemon:
    pki = state / "pki"
    flags = {
        "kubeconfig": pki / "kube-controller-manager.conf",
        "service-account-private-key-file": pki / "service-accounts.key",
        "root-ca-file": pki / "ca.crt",
        "use-service-account-credentials": "true",
        "cluster-cidr": POD_NETWORK,
        # Each node's CNI configuration states its pod network.
        "allocate-node-cidrs": "false",
        "leader-elect": "false",
        "secure-port": 0,
        "horizontal-pod-autoscaler-sync-period": "5s",
        # A node that is gone is noticed in seconds, not in most of a minute: tests take nodes away.
        "node-monitor-period": "2s",
        "node-monitor-grace-period": "20s",
        "profiling": "false",
    }
    return Daemon("kube-controller-manager", _command(tree / "bin" / "kube-controller-manager", flags))


def kube_scheduler(tree: Path, state: Path) -> Daemon:
    flags = {
        "kubeconfig": state / "pki" / "kube-scheduler.conf",
        "leader-elect": "false",
        "secure-port": 0,
        "profiling": "false",
    }
    return Daemon("kube-scheduler", _command(tree / "bin" / "kube-scheduler", flags))


def _command(program: Path, flags: dict[str, object]) -> tuple[str, ...]:
    return (str(program), *(f"--{name}={value}" for name, value in flags.items()))

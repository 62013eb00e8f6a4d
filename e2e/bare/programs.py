"""The command lines of a control plane without nodes. Pure.

Identities are tokens: `admin` may do everything, the control plane's own programs have the rights that Kubernetes gives them.
Everybody else asks with the token of a service account, bound by RBAC as on a real cluster.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ADMIN = "admin"
CONTROLLERS = "system:kube-controller-manager"
SCHEDULER = "system:kube-scheduler"
GROUPS = {ADMIN: "system:masters", CONTROLLERS: "", SCHEDULER: ""}
_AUDITED = ("create", "update", "patch", "delete")


@dataclass(frozen=True)
class Place:
    """Where a control plane is: its directory, its programs, its ports of loopback."""

    directory: Path
    programs: Path
    apiserver: Path  # of another version, or the one in ``programs``
    client_port: int
    peer_port: int
    port: int

    @property
    def etcd_data(self) -> Path:
        return self.directory / "etcd"

    @property
    def certificates(self) -> Path:
        """What kube-apiserver writes and finds again: its certificate, signed by itself."""
        return self.directory / "pki"

    @property
    def ca(self) -> Path:
        return self.certificates / "apiserver.crt"

    @property
    def tokens(self) -> Path:
        return self.directory / "tokens.csv"

    @property
    def signing_key(self) -> Path:
        return self.directory / "service-accounts.key"

    @property
    def front_proxy(self) -> Path:
        """The certificate with which kube-apiserver passes requests on to aggregated API servers, signed by itself."""
        return self.directory / "front-proxy.crt"

    @property
    def audit_log(self) -> Path:
        return self.directory / "audit.log"

    @property
    def audit_policy(self) -> Path:
        return self.directory / "audit-policy.json"

    def kubeconfig(self, user: str) -> Path:
        return self.directory / f"{user.rpartition(':')[2]}.conf"


def audit_policy() -> str:
    """Log the writes of service accounts, but those of Kubernetes itself."""
    own = {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]}
    writes = {"level": "Metadata", "userGroups": ["system:serviceaccounts"], "verbs": _AUDITED}
    return json.dumps(
        {
            "apiVersion": "audit.k8s.io/v1",
            "kind": "Policy",
            "omitStages": ["RequestReceived"],
            "rules": [own, writes, {"level": "None"}],
        }
    )


def etcd(place: Place) -> list[str]:
    client, peer = (f"http://127.0.0.1:{port}" for port in (place.client_port, place.peer_port))
    return [
        str(place.programs / "etcd"),
        *(f"--data-dir={place.etcd_data}", "--unsafe-no-fsync", "--log-level=warn"),
        "--quota-backend-bytes=8589934592",
        *(f"--listen-client-urls={client}", f"--advertise-client-urls={client}"),
        *(f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}"),
    ]


def kube_apiserver(place: Place, *, audit: bool, controllers: bool) -> list[str]:
    flags: dict[str, Any] = {
        "etcd-servers": f"http://127.0.0.1:{place.client_port}",
        "bind-address": "127.0.0.1",
        "advertise-address": "127.0.0.1",
        "secure-port": place.port,
        "cert-dir": place.certificates,
        "authorization-mode": "RBAC",
        "token-auth-file": place.tokens,
        "anonymous-auth": "false",
        "service-account-key-file": place.signing_key.with_suffix(".pub"),
        "service-account-signing-key-file": place.signing_key,
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-cluster-ip-range": "10.96.0.0/16",
        "allow-privileged": "true",
        "requestheader-client-ca-file": place.front_proxy,
        "requestheader-allowed-names": "front-proxy",
        "requestheader-username-headers": "X-Remote-User",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "proxy-client-cert-file": place.front_proxy,
        "proxy-client-key-file": place.front_proxy.with_suffix(".key"),
        "event-ttl": "10m",
        "profiling": "false",
    }
    if not controllers:  # nobody makes service accounts, or takes the taint from a node that got ready
        flags["disable-admission-plugins"] = "ServiceAccount,TaintNodesByCondition"
    if audit:
        flags |= {"audit-policy-file": place.audit_policy, "audit-log-path": place.audit_log}
    return _command(place.apiserver, flags)


def kube_controller_manager(place: Place) -> list[str]:
    flags = {
        "kubeconfig": place.kubeconfig(CONTROLLERS),
        "service-account-private-key-file": place.signing_key,
        "root-ca-file": place.ca,
        "use-service-account-credentials": "true",
        "allocate-node-cidrs": "false",
        "leader-elect": "false",
        "secure-port": 0,
        "horizontal-pod-autoscaler-sync-period": "2s",
        "node-monitor-period": "1s",
        "node-monitor-grace-period": "10s",
        "profiling": "false",
    }
    return _command(place.programs / "kube-controller-manager", flags)


def kube_scheduler(place: Place) -> list[str]:
    flags = {
        "kubeconfig": place.kubeconfig(SCHEDULER),
        "leader-elect": "false",
        "secure-port": 0,
        "profiling": "false",
        "kube-api-qps": 500,
        "kube-api-burst": 1000,
    }
    return _command(place.programs / "kube-scheduler", flags)


def _command(program: Path, flags: dict[str, Any]) -> list[str]:
    return [str(program), *(f"--{name}={value}" for name, value in flags.items())]

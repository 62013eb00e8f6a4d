"""Which programs the cluster is made of, and the hash that names a build of them. Pure but for reading gomod/.

Kubernetes, etcd, Helm and CoreDNS are one Go module on purpose: etcd's version is the one that Kubernetes itself
requires, this Helm and this CoreDNS build against the same client-go, and so two thirds of their packages are compiled
once instead of four times. The CNI plugins share nothing and stand alone.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.places import GOMOD

BUILD_FLAGS = ("-trimpath", "-buildvcs=false")
# GOGC: the compiler's own garbage collection costs a third of its time at the default, and memory is at hand.
BUILD_ENVIRONMENT = {"CGO_ENABLED": "0", "GOGC": "400", "GOFLAGS": "-mod=readonly"}


@dataclass(frozen=True)
class GoModule:
    """One go.mod under gomod/ and what is built from it."""

    name: str  # the directory under gomod/
    folder: str  # where its programs go in the assembled tree
    packages: tuple[str, ...]
    renames: tuple[tuple[str, str], ...] = ()  # what `go build` calls it → what the world calls it

    @property
    def programs(self) -> tuple[str, ...]:
        renames = dict(self.renames)
        return tuple(renames.get(name, name) for name in map(go_output_name, self.packages))


KUBERNETES = GoModule(
    name="kubernetes",
    folder="bin",
    packages=(
        "./coredns",
        "go.etcd.io/etcd/server/v3",
        "helm.sh/helm/v4/cmd/helm",
        *(
            f"k8s.io/kubernetes/cmd/{program}"
            for program in (
                "kube-apiserver",
                "kube-controller-manager",
                "kube-proxy",
                "kube-scheduler",
                "kubectl",
                "kubelet",
            )
        ),
    ),
    renames=(("server", "etcd"),),
)
CNI = GoModule(
    name="cni",
    folder="cni",
    packages=tuple(
        f"github.com/containernetworking/plugins/plugins/{plugin}"
        for plugin in ("ipam/host-local", "main/bridge", "main/loopback", "meta/portmap")
    ),
)
MODULES = (CNI, KUBERNETES)
# Not part of the cluster: nodes and kubelets that are only said to be there, for the operator's bench. A module of its
# own, built when the bench asks for it, so that neither a cold `make test` nor a bump of it compiles Kubernetes again.
KWOK = GoModule(name="kwok", folder="bin", packages=("sigs.k8s.io/kwok/cmd/kwok",))
# The oldest API server that we say we work with: `make check-old-kubernetes` builds it, nothing else does.
OLDEST = GoModule(name="kubernetes-oldest", folder="bin", packages=("k8s.io/kubernetes/cmd/kube-apiserver",))


def go_output_name(package: str) -> str:
    """The file that `go build -o DIR/` writes for a main package: its last element, major version suffixes left out."""
    elements = package.split("/")
    return elements[-2] if re.fullmatch(r"v\d+", elements[-1]) else elements[-1]


def required_version(go_mod: str, module: str) -> str:
    found = re.search(rf"^\s*(?:require )?{re.escape(module)} (v\S+)", go_mod, re.MULTILINE)
    if found is None:
        raise ValueError(f"go.mod does not require {module}")
    return found.group(1)


def linker_flags(go_mod: str) -> str:
    """-s -w leaves debug tables out; the version is what `kubectl version` and the kubelet's node status report."""
    flags = ["-s", "-w"]
    if "k8s.io/kubernetes " in go_mod:
        version = required_version(go_mod, "k8s.io/kubernetes")
        major, minor = version.removeprefix("v").split(".")[:2]
        package = "k8s.io/component-base/version"
        flags += [
            f"-X {package}.gitVersion={version}",
            f"-X {package}.gitMajor={major}",
            f"-X {package}.gitMinor={minor}",
        ]
    return " ".join(flags)


def module_key(module: GoModule, platform: str, sources: Path = GOMOD) -> str:
    """Covers all that decides the bytes but the Go toolchain: another patch release of Go is no reason to build again."""
    digest = hashlib.sha256(json.dumps([module.packages, BUILD_FLAGS, BUILD_ENVIRONMENT, platform]).encode())
    root = sources / module.name
    for path in sorted(root.rglob("*")):
        if path.is_file() and (path.name in {"go.mod", "go.sum"} or path.suffix == ".go"):
            digest.update(f"\0{path.relative_to(root)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def tree_key(keys: list[str]) -> str:
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()[:16]

"""Where the demo and the stories run: the local cluster, or the one of the current kubectl context.

    VOICEFLEET_USE_CURRENT_CONTEXT=1     use the current context; kubectl and helm are the ones on PATH
    VOICEFLEET_IMAGE_OPERATOR            images that this cluster can pull (`make image` builds them; push them to a registry)
    VOICEFLEET_IMAGE_DATAPLANE
    VOICEFLEET_IMAGE_REDIS
    VOICEFLEET_IMAGE_PIPELINE            the dataplane's with engines, for the stories and the demo of voice pipelines
    VOICEFLEET_IMAGE_OPERATOR_PREVIOUS   the release before this one, for the stories of upgrades
    VOICEFLEET_IMAGE_DATAPLANE_PREVIOUS

Owns: which programs, images and nodes. Does not own: what is installed (fleet.py). What a place cannot do is an error that says
so, never a skip.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e.cluster import previous
from e2e.cluster.__main__ import current_context
from e2e.cluster.api import Api
from e2e.cluster.api_client import ApiClient
from e2e.cluster.build import build
from e2e.cluster.places import KUBECONFIG, STATE
from e2e.cluster.steps import ClusterError, run

PREFIX = "VOICEFLEET_IMAGE_"


@dataclass(frozen=True)
class Node:
    """A node that takes pods: the address that this machine and callers use, and the one that nodes use."""

    name: str
    address: str
    internal: str
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Site:
    """A cluster: how to speak to it, and what images it has."""

    local: bool
    kubeconfig: Path
    kubectl: tuple[str, ...]
    helm: tuple[str, ...]
    images: Mapping[
        str, str
    ]  # operator, dataplane, redis; pipeline, operator_previous, dataplane_previous where there are any
    api: ApiClient | None = None  # the local cluster's API server, read without kubectl

    def image(self, name: str) -> str:
        """Return an image's name. Raises ClusterError naming the variable that is missing."""
        if name not in self.images:
            raise ClusterError(f"{PREFIX}{name.upper()} is not set: name an image that your cluster can pull")
        return self.images[name]

    def only_local(self, why: str) -> None:
        """Refuse what must not or cannot be done to a cluster that is not of this machine's making. Raises ClusterError."""
        if not self.local:
            raise ClusterError(f"{why}; run it on the local cluster, without VOICEFLEET_USE_CURRENT_CONTEXT")


def find_site(environment: Mapping[str, str] = os.environ) -> Site:
    """Return the place that the environment names. Raises ClusterError with everything that is missing."""
    if not current_context():
        tree, config = build(), ("--kubeconfig", str(KUBECONFIG))
        images = {
            "operator": "voicefleet.local/operator:dev",
            "operator_previous": f"voicefleet.local/operator:{previous.TAG}",
            "dataplane": "voicefleet.local/dataplane:dev",
            "dataplane_previous": f"voicefleet.local/dataplane:{previous.TAG}",
            "pipeline": "voicefleet.local/pipeline:dev",
            "redis": "voicefleet.local/redis:7",
        }
        return Site(
            True,
            KUBECONFIG,
            (str(tree / "bin" / "kubectl"), *config),
            (str(tree / "bin" / "helm"), *config),
            images,
            Api(STATE / "pki").client,
        )
    missing = [f"the program {name}" for name in ("kubectl", "helm") if shutil.which(name) is None]
    names = ("operator", "dataplane", "redis")
    missing += [PREFIX + name.upper() for name in names if not environment.get(PREFIX + name.upper())]
    if missing:
        raise ClusterError(
            f"VOICEFLEET_USE_CURRENT_CONTEXT=1 needs {', '.join(missing)}. The variables name images that your cluster can pull: "
            f"build them with `make image`, push them to your registry"
        )
    context = run(["kubectl", "config", "current-context"]).strip()
    images = {
        name: environment[PREFIX + name.upper()]
        for name in (*names, "pipeline", "operator_previous", "dataplane_previous")
        if environment.get(PREFIX + name.upper())
    }
    kubeconfig = Path(environment.get("KUBECONFIG") or Path.home() / ".kube" / "config")
    return Site(False, kubeconfig, ("kubectl", "--context", context), ("helm", "--kube-context", context), images)


def usable_nodes(items: Sequence[Any]) -> list[Node]:
    """Return the nodes that are ready and take pods, in a stable order; external addresses where every node has one."""
    usable = [item for item in items if _takes_pods(item)]
    external = bool(usable) and all(_address(item, "ExternalIP") for item in usable)
    kind = "ExternalIP" if external else "InternalIP"
    found = [
        Node(item["metadata"]["name"], _address(item, kind), _address(item, "InternalIP"), item["metadata"]["labels"])
        for item in usable
    ]
    return sorted(found, key=lambda node: node.name)


def _takes_pods(item: Any) -> bool:
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in item["status"].get("conditions", ()))
    kept_free = any(taint["effect"] in ("NoSchedule", "NoExecute") for taint in item["spec"].get("taints", ()))
    return ready and not kept_free and not item["spec"].get("unschedulable")


def _address(item: Any, kind: str) -> str:
    return next((a["address"] for a in item["status"].get("addresses", ()) if a["type"] == kind), "")

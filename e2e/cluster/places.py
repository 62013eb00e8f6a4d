"""Where the cluster's files are. Paths only: nothing here reads or writes."""

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
CHECKOUT = PACKAGE.parent.parent
GOMOD = PACKAGE / "gomod"

# One cluster a machine: its namespaces and addresses are the machine's, so its state is too.
STATE = Path("/var/lib/voicefleet-cluster")
LOGS = STATE / "log"
KUBECONFIG = STATE / "kubeconfig"
LOCK = Path("/run/lock/voicefleet-cluster.lock")


def cache() -> Path:
    """What is worth keeping between clusters: programs, images, build storage."""
    named = os.environ.get("VOICEFLEET_CACHE")
    base = Path(named) if named else Path.home() / ".cache" / "voicefleet"
    return base.absolute() / "cluster"


def node_dir(node: str) -> Path:
    return STATE / node


def containerd_socket(node: str) -> Path:
    return node_dir(node) / "containerd.sock"

"""Puts image archives into the nodes' containerd, all nodes at once, and remembers what is there already."""

import json
from collections.abc import Sequence
from pathlib import Path

from e2e.cluster.nodes import NODES, Node
from e2e.cluster.places import containerd_socket, node_dir
from e2e.cluster.steps import ClusterError, run, together


def archive_identity(archive: Path) -> str:
    """Which file it is and that it has not been written since; reading hundreds of megabytes to know would cost a second."""
    stat = archive.stat()
    return f"{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}"


def import_command(node: Node, archive: Path) -> list[str]:
    return [
        "ctr",
        "--address",
        str(containerd_socket(node.name)),
        "--namespace",
        "k8s.io",
        "images",
        "import",
        str(archive),
    ]


def load(archives: Sequence[Path]) -> list[Path]:
    """Import the archives that some node lacks; returns those."""
    for archive in archives:
        if not archive.is_file():
            raise ClusterError(f"no such image archive: {archive}")
    loaded: set[Path] = set()
    together(*(lambda n=node: loaded.update(_load_node(n, archives)) for node in NODES))
    return sorted(loaded)


def _load_node(node: Node, archives: Sequence[Path]) -> list[Path]:
    memory = node_dir(node.name) / "loaded.json"
    known = json.loads(memory.read_text()) if memory.is_file() else {}
    fresh = [archive for archive in archives if known.get(str(archive)) != archive_identity(archive)]
    for archive in fresh:
        run(import_command(node, archive))
        known[str(archive)] = archive_identity(archive)
        memory.write_text(json.dumps(known))
    return fresh

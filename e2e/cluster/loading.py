"""Puts image archives into the nodes' containerd, all nodes at once, and remembers what is there already."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from e2e.cluster.archive import is_docker_archive, write_thin_archive
from e2e.cluster.nodes import NODES, Node
from e2e.cluster.places import containerd_socket, node_dir
from e2e.cluster.steps import ClusterError, run, together


def archive_identity(archive: Path) -> str:
    """Which file it is and that it has not been written since; reading hundreds of megabytes to know would cost a second."""
    stat = archive.stat()
    return f"{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}"


def _ctr(node: Node, *words: str) -> list[str]:
    return ["ctr", "--address", str(containerd_socket(node.name)), "--namespace", "k8s.io", *words]


def load(archives: Sequence[Path]) -> list[Path]:
    """Import the archives that some node lacks; returns those."""
    for archive in archives:
        if not archive.is_file():
            raise ClusterError(f"no such image archive: {archive}")
    missing = {node: _missing(node, archives) for node in NODES}
    wanted = [archive for archive in archives if any(archive in lacking for lacking in missing.values())]
    if wanted:
        with tempfile.TemporaryDirectory(prefix="voicefleet-load-") as scratch:
            files = _thinned([archive.absolute() for archive in wanted], Path(scratch))
            together(*(lambda n=node: _load_node(n, files, wanted) for node in NODES))
    return wanted


def _missing(node: Node, archives: Sequence[Path]) -> list[Path]:
    known = _known(node)
    return [archive for archive in archives if known.get(str(archive.absolute())) != archive_identity(archive)]


def _known(node: Node) -> dict[str, str]:
    memory = node_dir(node.name) / "loaded.json"
    return json.loads(memory.read_text()) if memory.is_file() else {}


def _thinned(archives: Sequence[Path], scratch: Path) -> list[Path]:
    """The docker-archives among them as one file without what every node has; the others as they are."""
    convertible = [archive for archive in archives if is_docker_archive(archive)]
    if not convertible:
        return list(archives)
    everywhere = set.intersection(*(set(run(_ctr(node, "content", "ls", "--quiet")).split()) for node in NODES))
    thin = scratch / "images.tar"
    write_thin_archive(thin, convertible, everywhere)
    return [thin, *(archive for archive in archives if archive not in convertible)]


def _load_node(node: Node, files: Sequence[Path], archives: Sequence[Path]) -> None:
    for file in files:
        run(_ctr(node, "images", "import", str(file)))
    known = _known(node) | {str(archive.absolute()): archive_identity(archive) for archive in archives}
    (node_dir(node.name) / "loaded.json").write_text(json.dumps(known))

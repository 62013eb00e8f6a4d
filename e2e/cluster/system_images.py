"""The two images the cluster itself needs: the pause container and CoreDNS. Made from static programs, kept in the cache."""

import hashlib
import tempfile
from pathlib import Path

from e2e.cluster import dns, node
from e2e.cluster.archive import docker_archive, write_atomically
from e2e.cluster.build import target_platform
from e2e.cluster.places import PACKAGE, cache
from e2e.cluster.steps import run

PAUSE_SOURCE = PACKAGE / "images" / "pause" / "pause.c"


def pause_archive() -> Path:
    key = hashlib.sha256(PAUSE_SOURCE.read_bytes()).hexdigest()[:16]
    place = cache() / "images" / f"pause-{key}.tar"
    if not place.is_file():
        with tempfile.TemporaryDirectory() as scratch:
            program = Path(scratch) / "pause"
            run(["gcc", "-Os", "-static", "-s", "-o", program, PAUSE_SOURCE])
            files = {"/pause": program.read_bytes()}
        write_atomically(place, docker_archive(node.PAUSE_IMAGE, files, ["/pause"], _architecture()))
    return place


def coredns_archive(tree: Path) -> Path:
    place = cache() / "images" / f"coredns-{tree.name}.tar"
    if not place.is_file():
        files = {"/coredns": (tree / "bin" / "coredns").read_bytes()}
        write_atomically(place, docker_archive(dns.IMAGE, files, ["/coredns"], _architecture()))
    return place


def _architecture() -> str:
    return target_platform().removeprefix("linux/")

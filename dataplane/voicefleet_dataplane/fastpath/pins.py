"""Where the fast path's maps and links are pinned: what a successor finds, and what is left of whom.

::

    /sys/fs/bpf/voicefleet/<node>/<relay>/v1/          one directory a layout (maps.LAYOUT)
                                            rules      maps
                                            control
                                            counters
                                            TCX-ingress-eth0 …   links (hooks.py)

Several nodes may share one bpffs (nodes that are containers or namespaces), and several relays one node: both names
are in the path. bpffs takes no dot in a name, so names are spelled.

Owns: paths, and finding what is not ours to adopt. Does not own: what hangs on the hooks (hooks.py).
"""

import re
import struct
from pathlib import Path

from voicefleet_dataplane.fastpath.maps import LAYOUT

_ROOT = "voicefleet"


def spell(name: str) -> str:
    """Return a name that bpffs takes; different for different names."""
    return re.sub(r"[^A-Za-z0-9_-]", lambda found: f"={ord(found[0]):02X}", name)


def is_bpffs(path: Path) -> bool:
    """Say whether a BPF file system is mounted at ``path`` or above it."""
    best, kind = "", ""
    for line in Path("/proc/self/mounts").read_text("utf-8").splitlines():
        _, point, found, *_ = line.split()
        under = str(path) == point or str(path).startswith(point.rstrip("/") + "/")
        if under and len(point) >= len(best):
            best, kind = point, found
    return kind == "bpf"


class Pins:
    """The pins of one relay on one node."""

    def __init__(self, bpffs: Path, node: str, relay: str) -> None:
        self.node = bpffs / _ROOT / spell(node)
        self.relay = self.node / spell(relay)
        self.here = self.relay / f"v{LAYOUT}"

    def layouts(self) -> list[Path]:
        """Return the directories of all layouts that are pinned."""
        return _entries(self.relay)

    def of_other_layouts(self) -> list[Path]:
        """Return what a predecessor of another version left: it forwards still, and we cannot read it."""
        return [found for found in self.layouts() if found != self.here]

    def of_node(self) -> list[Path]:
        """Return the directories of all layouts of all relays of this node."""
        return [layout for relay in _entries(self.node) for layout in _entries(relay)]


def prune(directory: Path) -> None:
    """Remove a relay's emptied directory of one layout, and those above it, up to ours, that hold nothing else."""
    for one in (directory, *directory.parents[:3]):
        try:
            one.rmdir()
        except OSError:
            return


def lease_of(control: bytes) -> int:
    """Return until when a control map's rules hold: every layout says so first."""
    return int(struct.unpack_from("=Q", control)[0])


def _entries(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:  # not there, or not for our eyes
        return []

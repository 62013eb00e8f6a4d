"""The cluster's control groups, version 1 and 2: the memory of which processes are ours.

Every process starts inside /voicefleet-cluster/… of one hierarchy and its children inherit that, so that a run that
died without a word leaves processes that the next one finds. Pods are below the same folder in every hierarchy.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from e2e.cluster.steps import ClusterError

ROOT = "voicefleet-cluster"
DAEMONS = f"{ROOT}/daemons"
KILL_WITHIN_S = 20.0


def hierarchies(mounts: str) -> list[Path]:
    """Mount points of every cgroup hierarchy in /proc/self/mounts; the one that is to hold our daemons first."""
    found = []
    for line in mounts.splitlines():
        _, point, kind, options, *_ = line.split()
        if kind == "cgroup2" and point == "/sys/fs/cgroup":
            return [Path(point)]
        if kind in {"cgroup", "cgroup2"} and point.startswith("/sys/fs/cgroup"):
            found.append((kind == "cgroup2", "pids" not in options.split(","), Path(point)))
    return [path for _, _, path in sorted(found)]


def mounted() -> list[Path]:
    found = hierarchies(Path("/proc/self/mounts").read_text())
    if not found:
        raise ClusterError("no control groups are mounted below /sys/fs/cgroup")
    return found


def pod_root(node: str) -> str:
    """The kubelet's cgroupRoot."""
    return f"/{ROOT}/{node}"


def make(nodes: list[str]) -> Path:
    """Make the groups; returns the file that a starting daemon writes its id to."""
    points = mounted()
    for point in points:
        (point / ROOT).mkdir(exist_ok=True)
        _hand_down_controllers(point)
        for node in nodes:
            (point / pod_root(node).lstrip("/")).mkdir(parents=True, exist_ok=True)
    daemons = points[0] / DAEMONS
    daemons.mkdir(parents=True, exist_ok=True)
    return daemons / "cgroup.procs"


def _hand_down_controllers(point: Path) -> None:
    """Version 2 only: a group has the controllers that its parent hands down, and the kubelet insists on them."""
    for parent in (point, point / ROOT):
        with contextlib.suppress(OSError):
            for controller in (parent / "cgroup.controllers").read_text().split():
                # One at a time: some cannot be handed down everywhere, and the others should be all the same.
                with contextlib.suppress(OSError):
                    (parent / "cgroup.subtree_control").write_text(f"+{controller}")


def _groups() -> Iterator[Path]:
    """Deepest first, so that they can be removed in this order."""
    for point in mounted():
        for folder, _, _ in os.walk(point / ROOT, topdown=False):
            yield Path(folder)


def processes() -> set[int]:
    found: set[int] = set()
    for group in _groups():
        with contextlib.suppress(OSError):
            found.update(int(line) for line in (group / "cgroup.procs").read_text().split())
    return found


def kill() -> int:
    """SIGKILL every process of ours until none is left; a frozen one is thawed first. Returns how many there were."""
    killed: set[int] = set()
    deadline = time.monotonic() + KILL_WITHIN_S
    while remaining := {pid for pid in processes() if _alive(pid)}:
        if time.monotonic() > deadline:
            raise ClusterError(f"processes {sorted(remaining)} did not end within {KILL_WITHIN_S:.0f} s of SIGKILL")
        for group in _groups():
            with contextlib.suppress(OSError):
                (group / "freezer.state").write_text("THAWED")
        for pid in remaining:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        killed |= remaining
        time.sleep(0.05)
    return len(killed)


def _alive(pid: int) -> bool:
    """Has it a thread that is not a zombie? A zombie holds nothing, and only its parent can take it away; but the first
    thread of a killed process may be one while others are still on their way out, with files open.
    """
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return False
    return any(_thread_runs(thread / "stat") for thread in threads)


def _thread_runs(stat: Path) -> bool:
    try:
        return stat.read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def remove() -> None:
    """Remove the groups. The kernel may need a moment after the last process has gone."""
    deadline = time.monotonic() + KILL_WITHIN_S
    while True:
        stuck = []
        for group in _groups():
            try:
                group.rmdir()
            except OSError as error:
                stuck.append(error)
        if not stuck:
            return
        if time.monotonic() > deadline:
            raise ClusterError(f"control groups cannot be removed: {stuck[0]}")
        time.sleep(0.05)

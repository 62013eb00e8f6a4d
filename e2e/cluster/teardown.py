"""Takes the cluster away, whatever state it is in and whoever started it."""

import shutil
from pathlib import Path

from e2e.cluster import cgroups, network
from e2e.cluster.places import LOGS, STATE
from e2e.cluster.steps import ClusterError, run

# Usual places of the programs we start, which must stay theirs inside the nodes.
_WATCHED = (
    "/var/lib/kubelet",
    "/var/lib/containerd",
    "/var/lib/cni",
    "/run/containerd",
    "/var/log/pods",
    "/opt/containerd",
    "/etc/cni",
)


def tear_down(*, keep_logs: bool = False) -> list[str]:
    """Returns what was found. Order matters: processes first, for their mounts and namespaces end with them."""
    found = []
    if killed := cgroups.kill():
        found.append(f"{killed} processes")
    found += network.remove_network()
    cgroups.remove()
    if STATE.is_dir():
        found.append(str(STATE))
        for entry in STATE.iterdir():
            if keep_logs and entry == LOGS:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        if not keep_logs:
            STATE.rmdir()
    if left := leftovers():
        raise ClusterError(f"still there after cleaning up: {', '.join(left)}")
    return found


def leftovers() -> list[str]:
    """What of ours exists outside the cache; empty when the machine is as before (kept logs are not counted)."""
    left = [f"process {pid}" for pid in sorted(cgroups.processes())]
    left += [f"network namespace {name}" for name in network.existing_namespaces() if network.ours(name)]
    left += [f"control group {point / cgroups.ROOT}" for point in cgroups.mounted() if (point / cgroups.ROOT).exists()]
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    left += [f"mount {line.split()[1]}" for line in mounts if line.split()[1].startswith(str(STATE))]
    return left


def machine_state() -> set[str]:
    """What a cluster could leave on the machine, whatever its name: for comparing before and after."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    state = {f"mount {line.split()[1]}" for line in lines}
    state |= {f"namespace {name}" for name in network.existing_namespaces()}
    state |= {f"interface {path.name}" for path in Path("/sys/class/net").iterdir()}
    state |= {f"route {line}" for line in run(["ip", "route"]).splitlines()}
    state |= {f"rule {line}" for line in run(["nft", "list", "tables"]).splitlines()}
    state |= {f"folder {path}" for path in map(Path, _WATCHED) if path.exists()}
    state |= {f"control group {path}" for point in cgroups.mounted() for path in point.iterdir() if path.is_dir()}
    return state

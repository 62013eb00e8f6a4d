"""Starts the long-running programs, and knows which of them still run.

A daemon puts itself into our control group before it becomes the program, so there is no moment at which it runs unseen.
"""

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster import cgroups
from e2e.cluster.places import LOGS, STATE
from e2e.cluster.steps import tail

_PIDS = STATE / "pids"
# Not the caller's: a proxy setting would send the API server's webhook calls away from the cluster.
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "GOGC": "200",
}


@dataclass(frozen=True)
class Daemon:
    """A program that runs until the cluster goes down."""

    name: str
    argv: tuple[str, ...]

    @property
    def log(self) -> Path:
        return LOGS / f"{self.name}.log"


def start(daemon: Daemon, group: Path) -> int:
    _PIDS.mkdir(parents=True, exist_ok=True)
    LOGS.mkdir(parents=True, exist_ok=True)
    into_group = ["/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group), *daemon.argv]
    with daemon.log.open("ab") as log:
        # A session of its own: Ctrl-C in the terminal is for us, and we end the daemons in order.
        process = subprocess.Popen(
            into_group,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=ENVIRONMENT,
            start_new_session=True,
            cwd="/",
        )
    process.returncode = 0  # it outlives us by design: no warning from subprocess about it
    record = {"pid": process.pid, "started": _start_time(process.pid)}
    (_PIDS / daemon.name).write_text(json.dumps(record))
    return process.pid


def stop(name: str) -> None:
    """End one daemon (tests take parts of the control plane away)."""
    if (pid := pid_of(name)) is not None:
        os.kill(pid, 9)


def pid_of(name: str) -> int | None:
    """Its process id, if it is the same process still."""
    try:
        record = json.loads((_PIDS / name).read_text())
    except (OSError, ValueError):
        return None
    started = _start_time(record["pid"])
    return record["pid"] if started is not None and started == record["started"] else None


def _start_time(pid: int) -> str | None:
    """Clock ticks since boot: with the id, a process's identity."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def dead(names: Sequence[str]) -> list[str]:
    return [name for name in names if pid_of(name) is None]


def obituary(name: str) -> str:
    return f"{name} has ended:\n{tail(LOGS / f'{name}.log')}"


def any_process() -> bool:
    return bool(cgroups.processes())

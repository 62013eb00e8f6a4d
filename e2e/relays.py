"""Relays of the stories: one location of a story's own, what its relays count, and the kill of a process on its node."""

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import httpx

from e2e.fleet import Fleet
from e2e.kube import eventually, ready


class Location:
    """A VoiceRelay on one node, far from everybody: only callers that name its region come here. A context manager."""

    def __init__(self, fleet: Fleet, name: str, node: str, port: int, datapath: str) -> None:
        self._fleet, self.name, self._node = fleet, name, node
        self.inner_port = port + 1
        self._label = f"voicefleet.dev/relay-{name}"
        self._manifest = f"""\
apiVersion: voicefleet.dev/v1alpha1
kind: VoiceRelay
metadata: {{name: {name}}}
spec:
  location: {{region: {name}, latitude: -47.1, longitude: 170.5}}
  port: {port}
  innerPort: {self.inner_port}
  advertise: {{from: NodeInternalIP}}
  placement: {{nodeSelector: {{{self._label}: "true"}}}}
  datapath: {datapath}
  drain: {{deadline: 120s}}
"""

    def __enter__(self) -> Self:
        self.choose_node()
        self._fleet.kube.apply(self._manifest)
        eventually(f"VoiceRelay {self.name} Ready", lambda: self._fleet.condition("voicerelay", self.name), 60.0)
        return self

    def __exit__(self, *_: object) -> None:
        self._fleet.kube.run("delete", "voicerelay", self.name, "--ignore-not-found", "--wait=false")
        self.withdraw_node()

    def choose_node(self) -> None:
        """Label the node."""
        self._fleet.kube.run("label", "node", self._node, f"{self._label}=true", "--overwrite", namespaced=False)

    def withdraw_node(self) -> None:
        """Take the label away: the node is no longer chosen."""
        self._fleet.kube.run("label", "node", self._node, f"{self._label}-", namespaced=False)

    def all_pods(self) -> list[Any]:
        """Its pods, also those that are being deleted."""
        return list(self._fleet.kube.get("pods", selector=f"voicefleet.dev/relay={self.name}"))

    def pod(self) -> Any:
        """Its one ready pod."""
        found = [one for one in self.all_pods() if ready(one) and "deletionTimestamp" not in one["metadata"]]
        assert len(found) == 1, f"{len(found)} ready relay pods of {self.name}"
        return found[0]

    def draining(self) -> Mapping[str, Any]:
        """The Draining condition."""
        status = self._fleet.kube.get("voicerelay", self.name).get("status", {})
        return next((c for c in status.get("conditions", ()) if c["type"] == "Draining"), {})

    def samples(self, pod: Any) -> dict[str, float]:
        """What a relay counts. Raises httpx.HTTPError while it is away."""
        url = f"http://{pod['status']['hostIP']}:{self.inner_port}/metrics"
        text = httpx.get(url, trust_env=False, timeout=5).text
        lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in lines}


def kill_process(pod: Any, program: str = "relay") -> int:
    """SIGKILL the container's process, as the kernel or a bug would."""
    pid = process_of(pod, program)
    os.kill(pid, signal.SIGKILL)
    return pid


def process_of(pod: Any, program: str = "relay") -> int:
    """Return the number of the container's process. The nodes are namespaces of this machine."""
    mark = f"pod{pod['metadata']['uid']}"
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            groups = (entry / "cgroup").read_text()
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it ended meanwhile
        if (mark in groups or mark.replace("-", "_") in groups) and program.encode() in words:
            return int(entry.name)
    raise AssertionError(f"no process {program!r} of pod {pod['metadata']['name']} on this machine")

"""A program of ours as a process of this machine, with the rights that the chart gives its service account."""

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from e2e.bare.plane import BareControlPlane, free_port
from e2e.cluster.steps import ClusterError


class OurProcess:
    """Started when it is made; a context manager ends it. ``url``: the API server, or what stands in front of it."""

    def __init__(
        self,
        plane: BareControlPlane,
        namespace: str,
        name: str,
        module: str,
        account: str,
        settings: Mapping[str, object],
        url: str = "",
    ) -> None:
        kubeconfig = plane.directory / f"{namespace}-{name}.conf"
        plane.write_kubeconfig(kubeconfig, plane.token_of(namespace, account), url, namespace)
        self.health_port = free_port()
        self.log = plane.log(f"{namespace}-{name}")
        named = {
            "namespace": namespace,
            "kubeconfig": kubeconfig,
            "health_address": "127.0.0.1",
            "health_port": self.health_port,
            **settings,
        }
        environment = {f"VOICEFLEET_{key.upper()}": str(value) for key, value in named.items()}
        environment |= {"USER": account, "PATH": os.environ["PATH"]}
        with self.log.open("ab") as log:  # in the plane's directory: whoever works there ends with it
            self.process = subprocess.Popen(
                [sys.executable, "-m", module],
                env=environment,
                stdout=log,
                stderr=log,
                cwd=plane.directory,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(signal.SIGKILL)  # its good-bye is a story of its own

    def ask(self, path: str) -> tuple[int, str]:
        """GET from its health port; (0, why) when there is no answer."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{self.health_port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def metrics(self) -> dict[str, float]:
        """Series → value, series as the exposition spells them."""
        lines = (line.rpartition(" ") for line in self.ask("/metrics")[1].splitlines() if not line.startswith("#"))
        return {series: float(value) for series, _, value in lines if series}

    def memory_bytes(self, field: str = "VmRSS") -> int:
        """Resident memory now, or its peak (VmHWM)."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
        raise ClusterError("the operator has ended", self.log)

    def cpu_s(self) -> float:
        """Processor time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait()

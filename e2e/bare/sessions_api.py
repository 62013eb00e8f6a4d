"""The sessions API as a process of this machine that kube-apiserver's aggregation layer asks.

Its Service points to this machine instead of to pods, which do not run here. All else is the chart's.
"""

import base64
import json
from pathlib import Path

from e2e.bare.fleet import BareFleet
from e2e.bare.plane import free_port
from e2e.bare.process import OurProcess
from e2e.kube import eventually
from voicefleet_contract import names

SERVICES = (names.SESSIONS_API_SERVICE, names.EXTERNAL_METRICS_API_SERVICE)


class SessionsApiProcess(OurProcess):
    """One replica. The fleet's operator must run: it makes the certificate and tells kube-apiserver its CA."""

    def __init__(self, fleet: BareFleet, redis_url: str) -> None:
        self._fleet, self.port = fleet, free_port()
        folder = fleet.plane.directory / f"{fleet.namespace}-sessions-tls"
        eventually("its certificate", lambda: self._fetch_certificate(folder), within_s=30)
        settings = {
            "cluster_id": fleet.cluster_id,
            "redis_url": redis_url,
            "tls_dir": folder,
            "address": "127.0.0.1",
            "port": self.port,
        }
        super().__init__(
            fleet.plane,
            fleet.namespace,
            "sessions",
            "voicefleet_operator.sessions_api",
            "voicefleet-sessions",
            settings,
        )
        here = {"type": "ExternalName", "externalName": "localhost", "clusterIP": None, "clusterIPs": None}
        fleet.kube.run("patch", "service", "voicefleet-sessions", "--type=merge", "-p", json.dumps({"spec": here}))
        for name in SERVICES:
            port = json.dumps({"spec": {"service": {"port": self.port}}})
            if fleet.kube.run("get", "apiservice", name, "--ignore-not-found", namespaced=False):
                fleet.kube.run("patch", "apiservice", name, "--type=merge", "-p", port, namespaced=False)

    def available(self, name: str = names.SESSIONS_API_SERVICE) -> bool:
        """Tell whether kube-apiserver passes requests on."""
        service = json.loads(self._fleet.kube.run("get", "apiservice", name, "-o", "json", namespaced=False))
        return any(c["type"] == "Available" and c["status"] == "True" for c in service["status"].get("conditions", ()))

    def _fetch_certificate(self, folder: Path) -> bool:
        """Do what a kubelet does with a mounted Secret."""
        data = self._fleet.kube.get("secret", names.tls_secret("sessions"))["data"]
        folder.mkdir(exist_ok=True)
        for name, value in data.items():
            (folder / name).write_bytes(base64.b64decode(value))
        return True

"""Reads the API server with the standard library: polling through kubectl would cost half a processor."""

import http.client
import json
import ssl
from pathlib import Path
from typing import Any

from e2e.cluster.nodes import API_PORT, HOST_ADDRESS

TIMEOUT_S = 5.0


class Api:
    """The API server as the administrator."""

    def __init__(self, pki: Path) -> None:
        self._tls = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        self._tls.load_cert_chain(pki / "admin.crt", pki / "admin.key")

    def get(self, path: str) -> Any:
        """The parsed answer, or None when there is none: not up yet, or not found."""
        connection = http.client.HTTPSConnection(HOST_ADDRESS, API_PORT, context=self._tls, timeout=TIMEOUT_S)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        if answer.status != 200:
            return None
        return json.loads(body) if body[:1] in b"{[" else body.decode()

    def ready(self) -> bool:
        return self.get("/readyz") == "ok"

    def ready_nodes(self) -> set[str]:
        return ready_nodes(self.get("/api/v1/nodes"))

    def deployment_available(self, namespace: str, name: str) -> bool:
        found = self.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}")
        return found is not None and found.get("status", {}).get("availableReplicas", 0) >= found["spec"]["replicas"]


def ready_nodes(nodes: Any) -> set[str]:
    """Names of the nodes in a NodeList whose Ready condition is True."""
    return {
        item["metadata"]["name"]
        for item in (nodes or {}).get("items", [])
        for condition in item.get("status", {}).get("conditions", [])
        if condition["type"] == "Ready" and condition["status"] == "True"
    }

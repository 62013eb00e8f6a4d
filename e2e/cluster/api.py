"""Reads the API server with the standard library: polling through kubectl would cost half a processor."""

import functools
import ssl
from pathlib import Path
from typing import Any

from e2e.cluster.api_client import ApiClient
from e2e.cluster.nodes import API_PORT, HOST_ADDRESS


class Api:
    """The API server as the administrator."""

    def __init__(self, pki: Path) -> None:
        @functools.cache
        def tls() -> ssl.SSLContext:
            context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
            context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
            return context

        self.client = ApiClient(HOST_ADDRESS, API_PORT, tls)

    def get(self, path: str) -> Any:
        """The parsed answer, or None when there is none: not up yet, or not found."""
        status, said = self.client.request("GET", path)
        return said if status == 200 else None

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

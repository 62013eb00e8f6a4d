"""A few verbs on Kubernetes objects as plain dictionaries, over the official asyncio client.

Typed models would cost memory and a conversion for each object that passes by; plans and observations are dictionaries
and small records anyway. Errors carry the status code and the server's words.
"""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio import config as client_config
from kubernetes.aio.client import ApiClient, Configuration

from voicefleet_contract import names

Object = dict[str, Any]
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"

# kind → (path of its group and version, plural)
_KINDS = {
    "Pod": ("/api/v1", "pods"),
    "Node": ("/api/v1", "nodes"),
    "ConfigMap": ("/api/v1", "configmaps"),
    "Secret": ("/api/v1", "secrets"),
    "Service": ("/api/v1", "services"),
    "DaemonSet": ("/apis/apps/v1", "daemonsets"),
    "Deployment": ("/apis/apps/v1", "deployments"),
    "PodDisruptionBudget": ("/apis/policy/v1", "poddisruptionbudgets"),
    "HorizontalPodAutoscaler": ("/apis/autoscaling/v2", "horizontalpodautoscalers"),
    "Lease": ("/apis/coordination.k8s.io/v1", "leases"),
    "Namespace": ("/api/v1", "namespaces"),
    "SubjectAccessReview": ("/apis/authorization.k8s.io/v1", "subjectaccessreviews"),
    "APIService": ("/apis/apiregistration.k8s.io/v1", "apiservices"),
    "VoiceRelay": (f"/apis/{names.GROUP}/{names.API_VERSION}", "voicerelays"),
    "Transceiver": (f"/apis/{names.GROUP}/{names.API_VERSION}", "transceivers"),
    "TopologySlice": (f"/apis/{names.GROUP}/{names.API_VERSION}", "topologyslices"),
}
_CLUSTER_WIDE = frozenset({"Node", "Namespace", "SubjectAccessReview", "APIService"})
_PAGE = 500
_TIMEOUT_S = 30


class KubeError(Exception):
    """The API server refused, failed or did not answer. ``status`` is the HTTP code; 0: no answer."""

    def __init__(self, status: int, what: str, message: str) -> None:
        super().__init__(f"{what}: {status} {message}")
        self.status = status


class KubeApi:
    """One namespace's objects (and nodes) on one API server."""

    def __init__(self, client: ApiClient, namespace: str) -> None:
        self._client, self.namespace = client, namespace

    @classmethod
    async def connect(cls, namespace: str, kubeconfig: str = "") -> "KubeApi":
        """Connect with a kubeconfig file, or as the pod's service account. Raises OSError or ConfigException."""
        configuration = Configuration()
        if kubeconfig:
            await client_config.load_kube_config(config_file=kubeconfig, client_configuration=configuration)
        else:
            client_config.load_incluster_config(client_configuration=configuration)
        return cls(ApiClient(configuration), namespace)

    def elsewhere(self, namespace: str) -> "KubeApi":
        """Return the same connections for another namespace."""
        return KubeApi(self._client, namespace)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def list(self, kind: str, labels: str = "") -> list[Object]:
        """Return all objects of a kind. Raises KubeError."""
        return [item async for page in self.pages(kind, labels) for item in page]

    async def pages(
        self, kind: str, labels: str = "", fields: str = "", *, everywhere: bool = False
    ) -> AsyncIterator[Sequence[Object]]:
        """Yield the objects of a kind page by page, of our namespace or of all. Raises KubeError."""
        query = {"limit": str(_PAGE), "labelSelector": labels, "fieldSelector": fields}
        query = {key: value for key, value in query.items() if value}
        path = "/".join(_KINDS[kind]) if everywhere else self._path(kind)
        while True:
            page = await self._request("GET", path, query)
            yield page.get("items", [])
            token = page.get("metadata", {}).get("continue")
            if not token:
                return
            query["continue"] = token

    async def get(self, kind: str, name: str) -> Object | None:
        """Return an object, or None if there is none. Raises KubeError."""
        try:
            return await self._request("GET", self._path(kind, name))
        except KubeError as error:
            if error.status == 404:
                return None
            raise

    async def create(self, kind: str, body: Object) -> Object:
        """Make an object. Raises KubeError (409: it exists)."""
        return await self._request("POST", self._path(kind), {"fieldManager": names.FIELD_MANAGER}, body)

    async def apply(self, kind: str, body: Object, *, subresource: str = "") -> Object:
        """Server-side apply under our field manager, taking fields that others changed. Raises KubeError."""
        query = {"fieldManager": names.FIELD_MANAGER, "force": "true"}
        path = self._path(kind, body["metadata"]["name"], subresource)
        return await self._request("PATCH", path, query, body, APPLY)

    async def merge(self, kind: str, name: str, patch: Object) -> Object:
        """Merge-patch some fields; with ``metadata.resourceVersion`` in it the write is fenced. Raises KubeError."""
        query = {"fieldManager": names.FIELD_MANAGER}
        return await self._request("PATCH", self._path(kind, name), query, patch, MERGE)

    async def replace(self, kind: str, body: Object) -> Object:
        """Replace an object, fenced by its resourceVersion. Raises KubeError (409: somebody else wrote)."""
        query = {"fieldManager": names.FIELD_MANAGER}
        return await self._request("PUT", self._path(kind, body["metadata"]["name"]), query, body)

    async def delete(self, kind: str, name: str, *, uid: str = "", grace_s: int | None = None) -> None:
        """Delete an object; with a uid only that very one. One that is gone is fine. Raises KubeError."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid:
            options["preconditions"] = {"uid": uid}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        try:
            await self._request("DELETE", self._path(kind, name), {}, options)
        except KubeError as error:
            if error.status not in (404, 409):  # 409: the name is another object's by now
                raise

    def _path(self, kind: str, name: str = "", subresource: str = "") -> str:
        prefix, plural = _KINDS[kind]
        place = "" if kind in _CLUSTER_WIDE else f"/namespaces/{quote(self.namespace)}"
        return f"{prefix}{place}/{plural}" + "".join(f"/{quote(part)}" for part in (name, subresource) if part)

    async def _request(
        self, verb: str, path: str, query: dict[str, str] | None = None, body: Object | None = None, kind: str = ""
    ) -> Object:
        method, url, headers, content, _ = await self._client.param_serialize(
            verb,
            path + (f"?{urlencode(query)}" if query else ""),
            header_params={"Accept": "application/json", "Content-Type": kind or "application/json"},
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            response = await self._client.call_api(method, url, headers, content, _request_timeout=_TIMEOUT_S)
            raw = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:  # a server that is away is no reason to end
            raise KubeError(0, f"{verb} {path}", f"{type(error).__name__}: {error}") from None
        if not 200 <= response.status <= 299:
            raise KubeError(response.status, f"{verb} {path}", _message(raw))
        found: Object = json.loads(raw) if raw else {}
        return found


def _message(raw: bytes) -> str:
    try:
        return str(json.loads(raw)["message"])
    except (ValueError, KeyError, TypeError):
        return raw[:200].decode("utf-8", "replace")

"""A few verbs on Kubernetes objects as plain dictionaries, over the official asyncio client.

Typed models would cost memory and a conversion for each object that passes by; plans and observations are dictionaries
and small records anyway. Errors carry the status code and the server's words.
"""

from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio import config as client_config
from kubernetes.aio.client import ApiClient, Configuration

from voicefleet_contract import names
from voicefleet_contract.outside import is_digits, parse_integer, parse_json, parse_number

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
NAMES_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
_TIMEOUT_S = 30
_MAX_ANSWER_BYTES = 256 << 20  # a page of 500 objects of the largest that etcd takes
_WEBHOOK = "failed calling webhook"


# (verb, HTTP code or 0) of each request that ended: a metric's labels.
Counted = Callable[[str, int], None]
Page = tuple[list[Object], int]  # objects, and the resourceVersion of the list that they are of


class KubeError(Exception):
    """The API server refused, failed or did not answer. ``status`` is the HTTP code; 0: no answer.

    ``retry_after_s`` is what a server that is overloaded asked for.
    """

    def __init__(self, status: int, what: str, message: str, retry_after_s: float = 0.0, *, said: bool = True) -> None:
        """``said``: the answer was a Status of Kubernetes, not a page of whatever stands in front of it."""
        super().__init__(f"{what}: {status} {message}")
        self.status, self.message, self.retry_after_s, self._said = status, message, retry_after_s, said

    @property
    def is_refusal(self) -> bool:
        """The server understood and says no to this very object: asking the same again at once changes nothing.

        An admission webhook that is away is one too: it stands between us and one kind of object, not the whole server.
        """
        return self.status in (400, 403, 405, 413, 422) or (self.status == 500 and _WEBHOOK in self.message)

    @property
    def is_gone(self) -> bool:
        """The object is not there. A path that is not served (a CRD that is just being replaced) says nothing of objects."""
        return self.status == 404 and self._said

    @property
    def is_away(self) -> bool:
        """The server answers nothing, or asked for a pause: what else there is to ask waits."""
        return self.status in (0, 429)


def version_of(body: Object) -> int:
    """Return an object's or a list's resourceVersion; 0 where there is none, or none that can be compared."""
    text = str(body.get("metadata", {}).get("resourceVersion", ""))
    return parse_integer(text, (1 << 63) - 1) if is_digits(text) else 0


def collection_path(kind: str, namespace: str = "") -> str:
    """Return the URL path of all objects of a kind, in a namespace or everywhere."""
    prefix, plural = _KINDS[kind]
    return f"{prefix}{f'/namespaces/{quote(namespace)}' if namespace and kind not in _CLUSTER_WIDE else ''}/{plural}"


class KubeApi:
    """One namespace's objects (and nodes) on one API server."""

    def __init__(self, client: ApiClient, namespace: str, counted: Counted | None = None) -> None:
        self._client, self.namespace, self._counted = client, namespace, counted or _not_counted
        # Asked before each write but the Lease's own: a process that slept through its Lease writes nothing when it wakes.
        self.may_write: Callable[[], bool] = _always

    @classmethod
    async def connect(cls, namespace: str, kubeconfig: str = "", counted: Counted | None = None) -> "KubeApi":
        """Connect with a kubeconfig file, or as the pod's service account. Raises OSError or ConfigException."""
        configuration = Configuration()
        if kubeconfig:
            await client_config.load_kube_config(config_file=kubeconfig, client_configuration=configuration)
        else:
            client_config.load_incluster_config(client_configuration=configuration)
        return cls(ApiClient(configuration), namespace, counted)

    def elsewhere(self, namespace: str) -> "KubeApi":
        """Return the same connections for another namespace."""
        other = KubeApi(self._client, namespace, self._counted)
        other.may_write = lambda: self.may_write()  # noqa: PLW0108  # ours may be set later
        return other

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def list(self, kind: str, labels: str = "") -> list[Object]:
        """Return all objects of a kind. Raises KubeError."""
        return [body async for page, _ in self.pages(kind, labels) for body in page]

    async def pages(
        self,
        kind: str,
        labels: str = "",
        fields: str = "",
        *,
        everywhere: bool = False,
        accept: str = "application/json",
    ) -> AsyncIterator[Page]:
        """Yield the objects of a kind page by page, of our namespace or of all, with the list's resourceVersion.

        Whole pods of a large fleet at once would cost more memory than everything that is kept of them. Raises KubeError;
        410 when the list grew too old while it was read: begin again.
        """
        query = {"limit": str(_PAGE), "labelSelector": labels, "fieldSelector": fields}
        query = {key: value for key, value in query.items() if value}
        path = collection_path(kind, "" if everywhere else self.namespace)
        while True:
            page = await self._request("GET", path, query, verb="list", accept=accept)
            metadata = page.get("metadata", {})
            yield page.pop("items", None) or [], version_of(page)
            token = metadata.get("continue")
            if not token:
                return
            query["continue"] = token

    async def names(self, kind: str, labels: str = "") -> tuple[set[str], int]:
        """Return the names of all objects of a kind, and the resourceVersion of that list. Raises KubeError."""
        found: set[str] = set()
        version = 0
        async for page, as_of in self.pages(kind, labels, accept=NAMES_ONLY):
            found |= {body["metadata"]["name"] for body in page}
            version = as_of
        return found, version

    async def get(self, kind: str, name: str) -> Object | None:
        """Return an object, or None if there is none. Raises KubeError."""
        try:
            return await self._request("GET", self._path(kind, name))
        except KubeError as error:
            if error.is_gone:
                return None
            raise

    async def create(self, kind: str, body: Object) -> Object:
        """Make an object. Raises KubeError (409: it exists)."""
        query = {"fieldManager": names.FIELD_MANAGER}
        return await self._request("POST", self._path(kind), query, body, verb="create")

    async def apply(self, kind: str, body: Object, *, subresource: str = "") -> Object:
        """Server-side apply under our field manager, taking fields that others changed. Raises KubeError."""
        query = {"fieldManager": names.FIELD_MANAGER, "force": "true"}
        path = self._path(kind, body["metadata"]["name"], subresource)
        return await self._request("PATCH", path, query, body, APPLY, verb="apply")

    async def merge(self, kind: str, name: str, patch: Object) -> Object:
        """Merge-patch some fields; with ``metadata.resourceVersion`` in it the write is fenced. Raises KubeError."""
        query = {"fieldManager": names.FIELD_MANAGER}
        return await self._request("PATCH", self._path(kind, name), query, patch, MERGE, verb="patch")

    async def replace(self, kind: str, body: Object) -> Object:
        """Replace an object, fenced by its resourceVersion. Raises KubeError (409: somebody else wrote)."""
        query = {"fieldManager": names.FIELD_MANAGER}
        return await self._request("PUT", self._path(kind, body["metadata"]["name"]), query, body, verb="update")

    async def delete(self, kind: str, name: str, *, uid: str = "", grace_s: int | None = None) -> None:
        """Delete an object; with a uid only that very one. One that is gone is fine. Raises KubeError."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid:
            options["preconditions"] = {"uid": uid}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        try:
            await self._request("DELETE", self._path(kind, name), {}, options, verb="delete")
        except KubeError as error:
            if not error.is_gone and error.status != 409:  # 409: the name is another object's by now
                raise

    def _path(self, kind: str, name: str = "", subresource: str = "") -> str:
        path = collection_path(kind, self.namespace)
        return path + "".join(f"/{quote(part)}" for part in (name, subresource) if part)

    async def _request(
        self,
        http: str,
        path: str,
        query: dict[str, str] | None = None,
        body: Object | None = None,
        content_type: str = "application/json",
        *,
        verb: str = "get",
        accept: str = "application/json",
    ) -> Object:
        if http != "GET" and not self.may_write() and not path.startswith(collection_path("Lease", self.namespace)):
            raise KubeError(
                0, f"{http} {path}", "not sent: the Lease was not renewed in time, another operator may lead"
            )
        method, url, headers, content, _ = await self._client.param_serialize(
            http,
            path + (f"?{urlencode(query)}" if query else ""),
            header_params={"Accept": accept, "Content-Type": content_type},
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            response = await self._client.call_api(method, url, headers, content, _request_timeout=_TIMEOUT_S)
            raw = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:  # a server that is away is no reason to end
            self._counted(verb, 0)
            raise KubeError(0, f"{http} {path}", f"{type(error).__name__}: {error}") from None
        self._counted(verb, response.status)
        if not 200 <= response.status <= 299:
            asked_s = _retry_after_s(response.headers.get("Retry-After"))
            message, said = _message(raw)
            raise KubeError(response.status, f"{http} {path}", message, asked_s, said=said)
        try:
            found: Object = parse_json(raw, _MAX_ANSWER_BYTES) if raw else {}
        except ValueError as error:  # a proxy's page, or half an answer
            raise KubeError(0, f"{http} {path}", f"the answer is not JSON: {error}") from None
        return found


def _always() -> bool:
    return True


def _not_counted(verb: str, code: int) -> None:
    pass


def _retry_after_s(value: str | None) -> float:
    try:
        return min(120.0, max(0.0, parse_number(value or "0")))  # dates are allowed too; Kubernetes sends seconds
    except ValueError:
        return 0.0


def _message(raw: bytes) -> tuple[str, bool]:
    """Return the server's words, and whether they are a Status of Kubernetes."""
    try:
        return str(parse_json(raw, _MAX_ANSWER_BYTES)["message"]), True
    except (ValueError, KeyError, TypeError):
        return raw[:200].decode("utf-8", "replace"), False

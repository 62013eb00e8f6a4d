"""Where a process gets its topology: from Kubernetes (TopologySlice objects, listed and watched) or from a file.

Either way the last good one stays in use whatever happens to its source (fail static): an unreachable API server, a
deleted or corrupt object, a half-written file. What is wrong is in ``problem``, for readiness and logs.

Kubernetes is spoken over httpx with the pod's ServiceAccount: list, then watch from there; a list again when the watch
is refused (410 Gone), after errors with a back-off. One resource does not justify a client package in these images.

Owns: reading. Does not own: what a topology means (voicefleet_contract.topology).
"""

import asyncio
import contextlib
import json
import logging
import os
import random
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from voicefleet_contract import names
from voicefleet_contract.topology import Topology, TopologyError, TopologyIndex, TopologySlice, join

log = logging.getLogger("voicefleet.topology")

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_WATCH_S = 290  # the API server ends a watch after five minutes; ending it ourselves is not an error
_BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0)


class TopologyFile:
    """The topology in a file, looked at when asked."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._index: TopologyIndex | None = None
        self.problem = ""

    def __call__(self) -> TopologyIndex | None:
        """Return the last good topology; None before the first."""
        try:
            status = self._path.stat()
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
            if stamp != self._seen:
                self._seen = stamp
                self._index = TopologyIndex(Topology.load(self._path.read_bytes()))
                self.problem = ""
                log.info("topology revision %d from %s", self._index.topology.revision, self._path)
        except FileNotFoundError:
            self._seen, self.problem = None, f"{self._path} is missing"
        except (OSError, TopologyError) as error:
            self.problem = f"{self._path}: {error}"
            log.error("%s; the topology read before stays in use", self.problem)
        return self._index


class KubernetesTopology:
    """The TopologySlice objects of one namespace, followed by `run`."""

    def __init__(self, client: httpx.AsyncClient, namespace: str, token: Path | None = None) -> None:
        self._client = client
        self._token = token
        self._path = f"/apis/{names.GROUP}/{names.API_VERSION}/namespaces/{namespace}/topologyslices"
        self._slices: dict[str, TopologySlice] = {}
        self._index: TopologyIndex | None = None
        self._revision = 0
        self.problem = "not read yet"

    def __call__(self) -> TopologyIndex | None:
        """Return the last good topology; None before the first."""
        return self._index

    async def run(self) -> None:
        """List and watch until cancelled."""
        failures = 0
        while True:
            try:
                version = await self._list()
                failures = 0
                while True:
                    version = await self._watch(version)
            except _ListAgain:
                continue
            except (httpx.HTTPError, OSError, ValueError, KeyError) as error:
                self.problem = f"TopologySlices cannot be read: {type(error).__name__} {error}".strip()
                log.warning("%s; the topology read before stays in use", self.problem)
                pause = _BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)]
                failures += 1
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))

    async def _list(self) -> str:
        answer = await self._client.get(self._path, headers=self._headers())
        answer.raise_for_status()
        document = answer.json()
        listed = {item["metadata"]["name"]: item for item in document["items"]}
        for gone in self._slices.keys() - listed.keys():
            del self._slices[gone]
        for item in listed.values():
            self._take(item)
        self._publish()
        return str(document["metadata"]["resourceVersion"])

    async def _watch(self, version: str) -> str:
        parameters = {
            "watch": "1",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(_WATCH_S),
        }
        # A watch that says nothing for longer than it may live is dead, whatever TCP believes.
        timeout = httpx.Timeout(10.0, read=_WATCH_S + 15.0)
        async with self._client.stream(
            "GET", self._path, params=parameters, headers=self._headers(), timeout=timeout
        ) as answer:
            if answer.status_code == httpx.codes.GONE:
                raise _ListAgain
            answer.raise_for_status()
            async for line in answer.aiter_lines():
                if line.strip():
                    version = self._event(json.loads(line), version)
        return version

    def _event(self, event: Any, version: str) -> str:
        kind, item = event["type"], event["object"]
        if kind == "ERROR":  # 410 arrives inside the stream too
            raise _ListAgain
        if kind in ("ADDED", "MODIFIED"):
            self._take(item)
        elif kind == "DELETED":
            self._slices.pop(item["metadata"]["name"], None)
        if kind != "BOOKMARK":
            self._publish()
        return str(item["metadata"]["resourceVersion"])

    def _take(self, item: Any) -> None:
        name = item["metadata"]["name"]
        try:
            self._slices[name] = TopologySlice.load(json.dumps(item.get("spec")))
        except TopologyError as error:
            # The slice read before stays: its members are more likely there than not.
            self.problem = f"TopologySlice {name}: {error}"
            log.error("%s; what was read before stays in use", self.problem)

    def _publish(self) -> None:
        if not self._slices:
            # An operator that was uninstalled, or an accident. Calls in progress must not end by it.
            self.problem = "no TopologySlice: has the operator published one?"
            return
        try:
            topology = join(self._slices.values(), revision=self._revision + 1)
        except TopologyError as error:
            self.problem = str(error)
            log.error("%s; the topology joined before stays in use", error)
            return
        self._revision += 1
        self._index = TopologyIndex(topology)
        self.problem = ""

    def _headers(self) -> dict[str, str]:
        # The kubelet renews the token in place: read it for each request.
        return {"Authorization": f"Bearer {self._token.read_text().strip()}"} if self._token else {}


class _ListAgain(Exception):  # noqa: N818  not an error: the API server's way to say "from the start, please"
    pass


Source = TopologyFile | KubernetesTopology


@contextlib.asynccontextmanager
async def open_topology(topology: str, namespace: str) -> AsyncIterator[Source]:
    """Open the source that the settings name (``kubernetes`` or a path) and follow it while the context lasts."""
    if topology != "kubernetes":
        yield TopologyFile(Path(topology))
        return
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or not namespace:
        raise ValueError(
            "VOICEFLEET_TOPOLOGY=kubernetes needs a pod with a ServiceAccount and VOICEFLEET_NAMESPACE; "
            "outside Kubernetes set VOICEFLEET_TOPOLOGY to the path of a topology file"
        )
    context = ssl.create_default_context(cafile=_SERVICE_ACCOUNT / "ca.crt")
    base = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    async with httpx.AsyncClient(base_url=base, verify=context, timeout=10.0, trust_env=False) as client:
        source = KubernetesTopology(client, namespace, _SERVICE_ACCOUNT / "token")
        follower = asyncio.create_task(source.run())
        try:
            yield source
        finally:
            follower.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await follower

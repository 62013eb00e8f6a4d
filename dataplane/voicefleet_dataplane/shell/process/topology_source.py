"""Where a process gets its topology: from Kubernetes (TopologySlice objects, listed and watched) or from a file.

Either way the last good one stays in use whatever happens to its source (fail static): an unreachable API server, a
deleted or corrupt object, a half-written file. What is wrong is in ``problem``, for readiness and logs.

Kubernetes is spoken over httpx with the pod's ServiceAccount: list, then watch from there; a list again, with a back-off,
when the watch is refused (410 Gone) or anything fails. One resource does not justify a client package in these images.
Events are put together a moment after the last one: a change of the fleet touches several slices, and half of a change
(a slice deleted, its successor not yet there) would end flows of members that exist.

Owns: reading. Does not own: what a topology means (voicefleet_contract.topology).
"""

import asyncio
import contextlib
import json
import logging
import os
import random
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx

from voicefleet_contract import names
from voicefleet_contract.outside import is_digits, parse_integer, parse_json
from voicefleet_contract.topology import MAX_TOPOLOGY_BYTES, Topology, TopologyError, TopologyIndex, TopologySlice, join

log = logging.getLogger("voicefleet.topology")

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_WATCH_S = 290  # the API server ends a watch after five minutes; ending it ourselves is not an error
_ASK_WITHIN_S = 1.5  # a relay's grace is two seconds
_BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0)
_SETTLE_S = 0.2  # silence after an event before the slices are put together …
_SETTLE_AT_MOST_S = 1.0  # … but a fleet in constant change is followed too
# A node that dies says nothing: without keepalives a watch on its API server would be believed until _WATCH_S.
_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)


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

    async def relay_is_gone(self, name: str) -> bool | None:
        """Nobody to ask: the topology says all there is."""
        return None


class KubernetesTopology:
    """The TopologySlice objects of one namespace, followed by `run`."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        namespace: str,
        token: Path | None = None,
        *,
        backoff_s: Sequence[float] = _BACKOFF_S,
        settle_s: float = _SETTLE_S,
    ) -> None:
        self._client = client
        self._token = token
        self._backoff_s = backoff_s
        self._settle_s = settle_s
        self._namespace = f"/apis/{names.GROUP}/{names.API_VERSION}/namespaces/{namespace}"
        self._path = f"{self._namespace}/topologyslices"
        self._slices: dict[str, TopologySlice] = {}
        self._bad_slices: dict[str, str] = {}
        self._index: TopologyIndex | None = None
        self._revision = 0
        self._failures = 0
        self._away = ""
        self._not_joined = "not read yet"
        self._settled: asyncio.TimerHandle | None = None
        self._settle_by = 0.0

    def __call__(self) -> TopologyIndex | None:
        """Return the last good topology; None before the first."""
        return self._index

    @property
    def problem(self) -> str:
        """What is wrong with the source, in words; empty when all is well."""
        return "; ".join(filter(None, [self._away, self._not_joined, *self._bad_slices.values()]))

    async def relay_is_gone(self, name: str) -> bool | None:
        """Say whether a VoiceRelay is deleted; None when nobody answers, or we may not know.

        The operator, which puts that into the topology, may be away; a pod that is told to end can ask for itself.
        """
        try:
            answer = await self._client.get(
                f"{self._namespace}/voicerelays/{name}", headers=self._headers(), timeout=_ASK_WITHIN_S
            )
            if answer.status_code == httpx.codes.NOT_FOUND:
                return True
            answer.raise_for_status()
            return "deletionTimestamp" in parse_json(answer.content, MAX_TOPOLOGY_BYTES)["metadata"]
        except (httpx.HTTPError, OSError, ValueError, KeyError, TypeError) as error:
            log.warning("VoiceRelay %s cannot be read: %s %s", name, type(error).__name__, error)
            return None

    async def run(self) -> None:
        """List and watch until cancelled."""
        try:
            while True:
                try:
                    version = await self._list()
                    while True:
                        version = await self._watch(version)
                except _ListAgain as again:
                    log.info("%s: listing again", again)
                except Exception as error:  # whatever an API server, or what stands before it, answers: try again
                    self._away = f"TopologySlices cannot be read: {type(error).__name__} {error}".strip()
                    log.warning("%s; the topology read before stays in use", self._away)
                pause = self._backoff_s[min(self._failures, len(self._backoff_s) - 1)]
                self._failures += 1
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))
        finally:
            if self._settled is not None:
                self._settled.cancel()

    async def _list(self) -> str:
        answer = await self._client.get(self._path, headers=self._headers())
        answer.raise_for_status()
        document = parse_json(answer.content, MAX_TOPOLOGY_BYTES)
        version = str(document["metadata"]["resourceVersion"])
        listed = {item["metadata"]["name"]: item for item in document["items"]}
        self._revision = max(self._revision, *map(_revision_of, listed.values()), 0)
        for gone in (self._slices.keys() | self._bad_slices.keys()) - listed.keys():
            self._drop(gone)
        for item in listed.values():
            self._take(item)
        self._away = ""
        self._publish()
        return version

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
                raise _ListAgain("the watch is too old")
            answer.raise_for_status()
            async for line in answer.aiter_lines():
                if line.strip():
                    version = self._event(parse_json(line, MAX_TOPOLOGY_BYTES), version)
                    self._failures = 0  # only a watch that works ends a back-off
        return version

    def _event(self, event: Any, version: str) -> str:
        kind, item = event["type"], event["object"]
        if kind == "ERROR":  # 410 arrives inside the stream too
            raise _ListAgain(f"the watch ended with {item.get('code')} {item.get('reason')}")
        if kind in {"ADDED", "MODIFIED"}:
            self._take(item)
        elif kind == "DELETED":
            self._drop(item["metadata"]["name"])
        if kind != "BOOKMARK":
            self._revision = max(self._revision, _revision_of(item))
            self._publish_when_settled()
        return str(item["metadata"]["resourceVersion"])

    def _take(self, item: Any) -> None:
        name = item["metadata"]["name"]
        try:
            self._slices[name] = TopologySlice.load(json.dumps(item.get("spec")))
        except TopologyError as error:
            # The slice read before stays: its members are more likely there than not.
            self._bad_slices[name] = f"TopologySlice {name}: {error}"
            log.error("%s; what was read before stays in use", self._bad_slices[name])
        else:
            self._bad_slices.pop(name, None)

    def _drop(self, name: str) -> None:
        self._slices.pop(name, None)
        self._bad_slices.pop(name, None)

    def _publish_when_settled(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._settled is None:
            self._settle_by = now + _SETTLE_AT_MOST_S
        else:
            self._settled.cancel()
        self._settled = loop.call_at(min(now + self._settle_s, self._settle_by), self._publish)

    def _publish(self) -> None:
        if self._settled is not None:
            self._settled.cancel()
            self._settled = None
        if not self._slices:
            # An operator that was uninstalled, or an accident. Calls in progress must not end by it.
            self._not_joined = "no TopologySlice: has the operator published one?"
            return
        try:
            topology = join(self._slices.values(), revision=self._revision)
            if self._index is None or topology != self._index.topology:  # a list after an outage may bring nothing new
                self._index = TopologyIndex(topology)
        except TopologyError as error:
            self._not_joined = str(error)
            log.error("%s; the topology joined before stays in use", error)
            return
        self._not_joined = ""

    def _headers(self) -> dict[str, str]:
        # The kubelet renews the token in place: read it for each request.
        return {"Authorization": f"Bearer {self._token.read_text().strip()}"} if self._token else {}


def _revision_of(item: Any) -> int:
    """Return the object's resource version: the one number about slices that every process and the operator agree on."""
    version = str(item["metadata"]["resourceVersion"])
    return parse_integer(version, (1 << 63) - 1) if is_digits(version) else 0


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
    transport = httpx.AsyncHTTPTransport(verify=context, socket_options=_KEEPALIVE, trust_env=False)
    async with httpx.AsyncClient(base_url=base, transport=transport, timeout=10.0, trust_env=False) as client:
        source = KubernetesTopology(client, namespace, _SERVICE_ACCOUNT / "token")
        follower = asyncio.create_task(source.run())
        try:
            yield source
        finally:
            follower.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await follower

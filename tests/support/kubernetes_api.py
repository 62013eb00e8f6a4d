"""The least of a Kubernetes API server that a client of TopologySlices can tell from a real one: list and watch.

Objects have resource versions that only grow, a watch starts at one, and each behaviour that hurts clients can be asked
for: errors, 410, ended and silent streams.
"""

import asyncio
import json
from contextlib import asynccontextmanager

import httpx
from aiohttp import web

from voicefleet_contract import names


class FakeApi:
    """Start it with `serving`; change it with put, delete and the attributes."""

    def __init__(self, namespace="voice"):
        self.path = f"/apis/{names.GROUP}/{names.API_VERSION}/namespaces/{namespace}/topologyslices"
        self.version = 10
        self.objects = {}
        self.lists = self.watches = 0
        self.refuse = 0  # a status for every request while it is set
        self.watch_status = 0  # a status for watches only
        self.tokens = set()
        self.relays = {}  # VoiceRelays by name: their metadata
        self._watchers = set()

    def put(self, name, spec):
        self.version += 1
        kind = "MODIFIED" if name in self.objects else "ADDED"
        self.objects[name] = self._object(name, spec)
        self._tell(kind, self.objects[name])

    def delete(self, name):
        self.version += 1
        gone = self.objects.pop(name)
        self._tell("DELETED", {**gone, "metadata": {"name": name, "resourceVersion": str(self.version)}})

    def send(self, line):
        """Put a line into every watch, whatever it is."""
        for queue in self._watchers:
            queue.put_nowait(line)

    def end_watches(self):
        self.send(None)

    def expire(self):
        """What etcd's compaction does to a watch."""
        self.send(json.dumps({"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}}))

    def _object(self, name, spec):
        return {"metadata": {"name": name, "resourceVersion": str(self.version)}, "spec": spec}

    def _tell(self, kind, item):
        self.send(json.dumps({"type": kind, "object": item}))

    async def _handle(self, request):
        self.tokens.add(request.headers.get("Authorization"))
        if self.refuse:
            return web.Response(status=self.refuse, text="no")
        if "watch" in request.query:
            return await self._watch(request)
        self.lists += 1
        return web.json_response(
            {"metadata": {"resourceVersion": str(self.version)}, "items": list(self.objects.values())}
        )

    async def _relay(self, request):
        if self.refuse:
            return web.Response(status=self.refuse, text="no")
        metadata = self.relays.get(request.match_info["name"])
        return web.json_response({"metadata": metadata}, status=404 if metadata is None else 200)

    async def _watch(self, request):
        self.watches += 1
        if self.watch_status:
            return web.Response(status=self.watch_status, text="no")
        response = web.StreamResponse()
        queue = asyncio.Queue()
        for item in self.objects.values():  # what changed between the list and this request
            if int(item["metadata"]["resourceVersion"]) > int(request.query["resourceVersion"]):
                queue.put_nowait(json.dumps({"type": "MODIFIED", "object": item}))
        self._watchers.add(queue)
        try:
            await response.prepare(request)
            while (line := await queue.get()) is not None:
                await response.write(line.encode() + b"\n")
        finally:
            self._watchers.discard(queue)
        return response

    @asynccontextmanager
    async def serving(self):
        """Listen on loopback; gives a client of this server."""
        app = web.Application()
        app.router.add_get(self.path, self._handle)
        app.router.add_get(self.path.replace("topologyslices", "voicerelays/{name}"), self._relay)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        try:
            async with httpx.AsyncClient(base_url=f"http://{host}:{port}", trust_env=False) as client:
                yield client
        finally:
            self.end_watches()
            await runner.cleanup()

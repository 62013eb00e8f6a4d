"""A proxy in front of a real API server that fails on purpose: for what the operator must survive.

It passes requests on, watches as they stream, and lets a test decide about each. What it injects looks as Kubernetes says
it: a Status with code and reason, a Retry-After header, an ERROR event in a watch.
"""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

from e2e.bare.plane import BareControlPlane

_REASONS = {409: "Conflict", 410: "Expired", 429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable"}


@dataclass(frozen=True)
class Fault:
    """What happens to a request: ``status`` instead of an answer, or ``delay_s`` before it."""

    status: int = 0
    retry_after_s: int = 0
    delay_s: float = 0.0


@dataclass
class Faults:
    """The rules of now. ``decide`` sees method and path with query; watches can be stalled or told to expire by path."""

    decide: Callable[[str, str], Fault | None] = lambda method, path: None
    stalled: set[str] = field(default_factory=set)  # paths whose watches pass nothing on
    url: str = ""
    injected: dict[int, int] = field(default_factory=dict)
    watches: dict[str, int] = field(default_factory=dict)  # path → watches opened so far
    _open: dict[str, set["asyncio.Queue[bytes]"]] = field(default_factory=dict)

    def expire(self, path: str) -> None:
        """Tell every watch of a path that its resourceVersion is too old, as after etcd's compaction."""
        status = {"kind": "Status", "apiVersion": "v1", "code": 410, "reason": "Expired", "message": "too old"}
        for queue in self._open.get(path, ()):
            queue.put_nowait(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")


@asynccontextmanager
async def faulty(plane: BareControlPlane) -> AsyncIterator[Faults]:
    """Listen on loopback in front of a control plane."""
    faults = Faults()
    tls = ssl.create_default_context(cafile=str(plane.ca))
    connector = aiohttp.TCPConnector(ssl=tls, limit=0)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:

        async def handle(request: web.Request) -> web.StreamResponse:
            fault = faults.decide(request.method, request.path_qs)
            if fault is not None and fault.status:
                faults.injected[fault.status] = faults.injected.get(fault.status, 0) + 1
                return _refusal(fault)
            if fault is not None:
                await asyncio.sleep(fault.delay_s)
            return await _pass_on(faults, session, plane.url, request)

        app = web.Application(client_max_size=1 << 26)
        app.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        faults.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield faults
        finally:
            for queue in [queue for queues in faults._open.values() for queue in queues]:
                queue.put_nowait(b"")  # aiohttp would wait a minute for these handlers
            await runner.cleanup()


def _refusal(fault: Fault) -> web.Response:
    headers = {"Retry-After": str(fault.retry_after_s)} if fault.retry_after_s else {}
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": fault.status,
        "reason": _REASONS.get(fault.status, "Unknown"),
        "message": "injected",
    }
    return web.json_response(status, status=fault.status, headers=headers)


async def _pass_on(
    faults: Faults, session: aiohttp.ClientSession, base: str, request: web.Request
) -> web.StreamResponse:
    headers = {key: value for key, value in request.headers.items() if key.lower() not in ("host", "content-length")}
    body = await request.read()
    timeout = aiohttp.ClientTimeout(total=None)
    async with session.request(
        request.method, base + request.path_qs, headers=headers, data=body or None, timeout=timeout
    ) as answer:
        kept = ("content-type", "content-encoding", "retry-after")
        passed = {key: value for key, value in answer.headers.items() if key.lower() in kept}
        response = web.StreamResponse(status=answer.status, headers=passed)
        if "watch=true" not in request.query_string:
            return web.Response(status=answer.status, headers=passed, body=await answer.read())
        await response.prepare(request)
        faults.watches[request.path] = faults.watches.get(request.path, 0) + 1
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        faults._open.setdefault(request.path, set()).add(queue)

        async def read() -> None:
            async for chunk in answer.content.iter_any():
                if request.path not in faults.stalled:
                    queue.put_nowait(chunk)
            queue.put_nowait(b"")

        reader = asyncio.create_task(read())
        try:
            with contextlib.suppress(ConnectionError):
                while chunk := await queue.get():
                    await response.write(chunk)
        finally:
            reader.cancel()
            faults._open[request.path].discard(queue)
        return response

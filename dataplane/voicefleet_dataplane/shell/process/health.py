"""Health of a gateway: is it up (/healthz), could it place a call now (/readyz), what did it count (/metrics).

The inner listener says what is wrong in words and serves the metrics; the public one says only yes or no, for load
balancers.
"""

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

from voicefleet_contract.release import BUILD_INFO, BUILD_INFO_HELP, release
from voicefleet_contract.topology import TopologyIndex
from voicefleet_dataplane.core.gateway.placement import ready_relays
from voicefleet_dataplane.shell.gateway.api.openapi import NO_KEY, Paths, ok, operation

Problems = Callable[[], list[str]]


def topology_problems(index: TopologyIndex | None, pool: str) -> list[str]:
    """Return why a call to ``pool`` could not be placed now; empty when it could."""
    if index is None:
        return ["no topology: nothing was read yet"]
    found = []
    relays = index.topology.relays
    if not ready_relays(relays):
        found.append(f"no ready relay: {len(relays)} in the topology")
    if index.pool(pool) is None:
        found.append(f"no pool {pool!r} in the topology")
    elif not index.active(pool):
        found.append(f"no active member in pool {pool!r}")
    return found


class PublicHealth:
    """/healthz and /readyz that tell nothing but the state."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Serve them."""
        router.add_get("/healthz", _alive)
        router.add_get("/readyz", self.ready)

    def describe(self) -> Paths:
        """Return the paths."""
        text = {"text/plain": {"schema": {"type": "string"}}}
        ready = {200: ok("Yes.", text), 503: ok("No.", text)}
        return {
            "/healthz": {"get": operation("healthz", "Does it run", {200: ok("Yes.", text)}, (), security=NO_KEY)},
            "/readyz": {"get": operation("readyz", "Could a call be placed now", ready, (), security=NO_KEY)},
        }

    async def ready(self, request: web.Request) -> web.Response:
        """Say whether a call could be placed."""
        return web.Response(status=503, text="not ready\n") if self._problems() else web.Response(text="ready\n")


def tell_release(registry: CollectorRegistry) -> CollectorRegistry:
    """Add the release that this process is of to its metrics."""
    Gauge(BUILD_INFO, BUILD_INFO_HELP, ["release"], registry=registry).labels(release()).set(1)
    return registry


def inner_app(problems: Problems, registry: CollectorRegistry, before_metrics: Callable[[], None]) -> web.Application:
    """Return the inner listener's application."""

    async def ready(request: web.Request) -> web.Response:
        found = problems()
        if found:
            return web.Response(status=503, text="".join(f"{problem}\n" for problem in found))
        return web.Response(text="ready\n")

    async def metrics(request: web.Request) -> web.Response:
        before_metrics()
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/healthz", _alive)
    app.router.add_get("/readyz", ready)
    app.router.add_get("/metrics", metrics)
    return app


async def _alive(request: web.Request) -> web.Response:
    return web.Response(text="ok\n")

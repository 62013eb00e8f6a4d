"""Health of a gateway, in public: only yes or no, for load balancers; and why a call could not be placed, for the inner listener."""

from aiohttp import web

from voicefleet_contract.topology import TopologyIndex
from voicefleet_dataplane.core.gateway.placement import ready_relays
from voicefleet_dataplane.shell.gateway.api.openapi import NO_KEY, Paths, ok, operation
from voicefleet_dataplane.shell.process.health import Problems, alive


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
        router.add_get("/healthz", alive)
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

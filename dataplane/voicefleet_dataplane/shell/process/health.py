"""Health of a process: does it run (/healthz), could it do its work now (/readyz), what did it count (/metrics).

The inner listener says what is wrong in words and serves the metrics.
"""

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

from voicefleet_contract.release import BUILD_INFO, BUILD_INFO_HELP, release

Problems = Callable[[], list[str]]


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
    app.router.add_get("/healthz", alive)
    app.router.add_get("/readyz", ready)
    app.router.add_get("/metrics", metrics)
    return app


async def alive(request: web.Request) -> web.Response:
    """Answer that the process runs."""
    return web.Response(text="ok\n")

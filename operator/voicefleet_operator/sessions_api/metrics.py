"""What the sessions API counts of itself."""

import contextlib
import time
from collections.abc import Iterator

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from voicefleet_operator.sessions_api.hub import Hub
from voicefleet_operator.sessions_api.registry import SessionRegistry

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class _Said:
    code = 500


class Metrics:
    """One registry for one process."""

    def __init__(self, registry: SessionRegistry, hub: Hub) -> None:
        self._registry = CollectorRegistry()
        self.seconds = Histogram(
            "voicefleet_sessions_api_request_duration_seconds",
            "How long answers took, watches left out",
            ["verb", "code"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self.hang_ups = Counter(
            "voicefleet_sessions_api_hang_ups", "Calls hung up through the API", registry=self._registry
        )
        self._watches = Gauge("voicefleet_sessions_api_watches", "Watches open now", registry=self._registry)
        for name, text, value in (
            ("registry_away", "1 while the registry does not answer", lambda: float(bool(hub.away))),
            ("events", "Session events read since the start", lambda: float(hub.delivered)),
            ("malformed_records", "Registry records skipped since the start", lambda: float(registry.malformed)),
        ):
            Gauge(f"voicefleet_sessions_api_{name}", text, registry=self._registry).set_function(value)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Count a watch while it is open."""
        with self._watches.track_inprogress():
            yield

    @contextlib.contextmanager
    def request(self, request: web.Request) -> Iterator[_Said]:
        """Time a request; whoever answers says the code."""
        said, began = _Said(), time.perf_counter()
        try:
            yield said
        finally:
            if "watch" not in request.query:
                self.seconds.labels(request.method, str(said.code)).observe(time.perf_counter() - began)

    def write(self) -> web.Response:
        """Return the exposition."""
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

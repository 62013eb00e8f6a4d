"""What the sessions API counts of itself."""

import contextlib
import time
from collections.abc import Iterator, Mapping

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from voicefleet_contract.release import BUILD_INFO, BUILD_INFO_HELP, release
from voicefleet_operator.sessions_api.external_metrics import GROUP, METRICS, PoolLoad
from voicefleet_operator.sessions_api.hub import Hub
from voicefleet_operator.sessions_api.registry import SessionRegistry
from voicefleet_operator.sessions_api.resource import PLURAL

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class _Said:
    code = 500


def _kind(request: web.Request) -> tuple[str, str]:
    """Return (what was asked of, how), as few words as there are kinds of request."""
    if f"/{PLURAL}" not in request.path:
        return ("external metrics" if GROUP in request.path else "discovery"), request.method.lower()
    if request.method == "GET":
        watching = request.query.get("watch") in ("true", "1")
        return "sessions", "watch" if watching else "get" if "name" in request.match_info else "list"
    return "sessions", request.method.lower()


class _Read(Collector):
    """What the registry's reader and the hub have counted, told when somebody asks."""

    def __init__(self, registry: SessionRegistry, hub: Hub) -> None:
        self._registry, self._hub = registry, hub

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Return both counters."""
        prefix = "voicefleet_sessions_api_"
        yield CounterMetricFamily(f"{prefix}events_read", "Session events read from Redis", value=self._hub.delivered)
        skipped = "Records in Redis that were malformed and skipped"
        yield CounterMetricFamily(f"{prefix}records_skipped", skipped, value=self._registry.malformed)


class Metrics:
    """One registry for one process."""

    def __init__(self, registry: SessionRegistry, hub: Hub) -> None:
        self.registry = CollectorRegistry()
        Gauge(BUILD_INFO, BUILD_INFO_HELP, ["release"], registry=self.registry).labels(release()).set(1)
        self.seconds = Histogram(
            "voicefleet_sessions_api_request_duration_seconds",
            "How long answers took; a watch is counted when it ends",
            ["verb", "of", "code"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.hang_ups = Counter(
            "voicefleet_sessions_api_hang_ups", "Calls hung up through the API", registry=self.registry
        )
        self.expired_watches = Counter(
            "voicefleet_sessions_api_expired_watches",
            "Watches that were told to list again",
            registry=self.registry,
        )
        self._watches = Gauge("voicefleet_sessions_api_watches", "Watches open now", registry=self.registry)
        self.registry.register(_Read(registry, hub))
        for name, text, value in (
            ("registry_away", "1 while the registry does not answer", lambda: float(bool(hub.away))),
            # Names of 0.2.0, for one release: counters that said that they were gauges.
            ("events", "Use voicefleet_sessions_api_events_read_total", lambda: float(hub.delivered)),
            (
                "malformed_records",
                "Use voicefleet_sessions_api_records_skipped_total",
                lambda: float(registry.malformed),
            ),
        ):
            Gauge(f"voicefleet_sessions_api_{name}", text, registry=self.registry).set_function(value)

        self._pools = {
            metric: Gauge(metric, text, ["pool"], registry=self.registry) for metric, text in METRICS.items()
        }

    def show_pools(self, loads: Mapping[str, PoolLoad]) -> None:
        """Say how full pools are; one that is gone says nothing any more."""
        for metric, gauge in self._pools.items():
            gauge.clear()
            for pool, load in loads.items():
                gauge.labels(pool).set(load.value(metric))

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
            of, verb = _kind(request)
            self.seconds.labels(verb, of, str(said.code)).observe(time.perf_counter() - began)

    def write(self) -> web.Response:
        """Return the exposition."""
        return web.Response(body=generate_latest(self.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

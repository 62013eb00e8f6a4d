"""The operator's own metrics: its loop, its API calls, its watches; and the fleet's numbers when somebody asks.

Served on the health port. Names follow Prometheus' conventions; `desired.gauges` owns those of the fleet.
"""

import time
from collections.abc import Callable, Iterator

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from voicefleet_contract.release import BUILD_INFO, BUILD_INFO_HELP, release
from voicefleet_operator.cluster.key_rotation import KeyRotation
from voicefleet_operator.cluster.watching import Watches
from voicefleet_operator.desired.gauges import HELP, fleet_gauges
from voicefleet_operator.handlers.store import FleetStore

_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_PREFIX = "voicefleet_operator_"


class LoopMetrics:
    """What happens in this process. A registry of its own: tests make several."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        Gauge(BUILD_INFO, BUILD_INFO_HELP, ["release"], registry=self.registry).labels(release()).set(1)
        self.plan = Histogram(
            f"{_PREFIX}plan_seconds", "Time to make one plan.", buckets=_BUCKETS_S, registry=self.registry
        )
        self.reconcile = Histogram(
            f"{_PREFIX}reconcile_seconds",
            "From a change that was seen to the end of the pass that acted on it.",
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self.failures = Counter(
            f"{_PREFIX}failed_passes_total", "Passes that the API server ended.", registry=self.registry
        )
        self.refusals = Counter(
            f"{_PREFIX}refused_objects_total", "Objects that the API server refused.", registry=self.registry
        )
        self._requests = Counter(
            f"{_PREFIX}api_requests_total",
            "Requests to the API server by verb and HTTP code (0: no answer).",
            ["verb", "code"],
            registry=self.registry,
        )

        self._key_epochs = Gauge(
            f"{_PREFIX}key_epoch",
            "The epochs of a key ring: the one that signs, the one published to sign next, those that are retiring.",
            ["ring", "state", "epoch"],
            registry=self.registry,
        )
        self._rotation_waits_for = Gauge(
            f"{_PREFIX}key_rotation_waits_for",
            "Processes that have not acknowledged the published epoch.",
            ["ring"],
            registry=self.registry,
        )

    def count_keys(self, rotation: KeyRotation | None) -> None:
        """Say which epochs the key rings hold now."""
        self._key_epochs.clear()
        for ring, decision in rotation.decisions.items() if rotation is not None else ():
            for epoch in decision.ring.epochs:
                self._key_epochs.labels(ring, decision.ring.state(epoch), str(epoch)).set(1)
            self._rotation_waits_for.labels(ring).set(len(decision.waits_for))

    def count_request(self, verb: str, code: int) -> None:
        """Count a request that ended."""
        self._requests.labels(verb, str(code)).inc()

    def show(self, store: FleetStore, watches: Watches, leads: Callable[[], bool]) -> None:
        """Add what is looked up when somebody asks."""
        Gauge(f"{_PREFIX}leader", "1 while this process leads.", registry=self.registry).set_function(leads)
        Gauge(f"{_PREFIX}queue_depth", "Changes that no pass has taken up.", registry=self.registry).set_function(
            lambda: store.waiting
        )
        Gauge(
            f"{_PREFIX}queue_age_seconds", "How long the first of them has waited.", registry=self.registry
        ).set_function(lambda: queue_age_s(store))
        self.registry.register(_Watched(watches))
        self.registry.register(_Fleet(store))

    def write(self) -> tuple[bytes, str]:
        """The exposition and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST


def queue_age_s(store: FleetStore) -> float:
    """How long the oldest change that no pass has taken up has waited."""
    return 0.0 if store.waiting_since is None else time.monotonic() - store.waiting_since


class _Watched(Collector):
    def __init__(self, watches: Watches) -> None:
        self._watches = watches

    def collect(self) -> Iterator[Metric]:
        ages = GaugeMetricFamily(
            f"{_PREFIX}watch_age_seconds",
            "Since the last byte of a kind's watch; the server sends a bookmark each minute.",
            labels=["kind"],
        )
        for kind, age_s in sorted(self._watches.ages_s().items()):
            ages.add_metric([kind], age_s)
        yield ages


class _Fleet(Collector):
    def __init__(self, store: FleetStore) -> None:
        self._store = store

    def describe(self) -> list[Metric]:
        return []  # or the registry would collect to learn the names

    def collect(self) -> Iterator[Metric]:
        fleet = self._store.fleet()
        families: dict[str, GaugeMetricFamily] = {}
        for sample in fleet_gauges(fleet, time.time()) if fleet is not None else ():
            family = families.get(sample.name)
            if family is None:
                family = families[sample.name] = GaugeMetricFamily(
                    sample.name, HELP[sample.name], labels=list(sample.labels)
                )
            family.add_metric(list(sample.labels.values()), sample.value)
        yield from families.values()

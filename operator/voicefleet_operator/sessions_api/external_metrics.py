"""A pool's load as external metrics (external.metrics.k8s.io/v1beta1), for a HorizontalPodAutoscaler. Pure.

Only one provider in a cluster can own that API group, so serving it is the chart's `externalMetrics.enabled`, off by default.
Draining transceivers count for nothing: neither their calls nor their capacity help to place the next call.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from voicefleet_operator.sessions_api.pages import SlotView
from voicefleet_operator.sessions_api.status import StatusError

GROUP = "external.metrics.k8s.io"
VERSION = "v1beta1"
API_VERSION = f"{GROUP}/{VERSION}"

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class PoolLoad:
    """The transceivers of a pool that take calls, together."""

    sessions: int = 0
    capacity: int = 0
    setups_per_s: float = 0.0

    def value(self, metric: str) -> float:
        """Return one of `METRICS`."""
        if metric == "voicefleet_pool_utilization":
            return self.sessions / self.capacity if self.capacity else 1.0  # nobody takes calls: as full as it gets
        if metric == "voicefleet_pool_free_sessions":
            return float(max(0, self.capacity - self.sessions))
        return float(self.sessions) if metric == "voicefleet_pool_sessions" else self.setups_per_s


METRICS = {
    "voicefleet_pool_utilization": "Sessions over capacity, of the members that take calls; 1 when none does",
    "voicefleet_pool_free_sessions": "Sessions that fit, in the members that take calls",
    "voicefleet_pool_sessions": "Sessions in the members that take calls",
    "voicefleet_pool_setups_per_second": "New sessions a second, over the last half minute",
}


def pool_loads(slots: Iterable[SlotView]) -> dict[str, PoolLoad]:
    """Return pool → load."""
    loads: dict[str, PoolLoad] = {}
    for slot in slots:
        if slot.known and slot.state == "active":
            before = loads.get(slot.pool, PoolLoad())
            loads[slot.pool] = PoolLoad(
                before.sessions + slot.sessions,
                before.capacity + slot.capacity,
                before.setups_per_s + slot.setups_per_s,
            )
    return loads


def values(loads: Mapping[str, PoolLoad], metric: str, label_selector: str, unix_now: float) -> Object:
    """Return ExternalMetricValueList. Raises StatusError 404 for another metric, 400 for another selector."""
    if metric not in METRICS:
        raise StatusError(404, f"no metric {metric}; there are {', '.join(METRICS)}")
    wanted = _pool_of(label_selector)
    return {
        "kind": "ExternalMetricValueList",
        "apiVersion": API_VERSION,
        "metadata": {},
        "items": [
            {
                "metricName": metric,
                "metricLabels": {"pool": pool},
                "timestamp": f"{datetime.fromtimestamp(unix_now, UTC):%Y-%m-%dT%H:%M:%SZ}",
                "value": f"{round(load.value(metric) * 1000)}m",
            }
            for pool, load in sorted(loads.items())
            if wanted in (None, pool)
        ],
    }


def api_resources() -> Object:
    """Return /apis/external.metrics.k8s.io/v1beta1."""
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": API_VERSION,
        "resources": [
            {
                "name": metric,
                "singularName": "",
                "namespaced": True,
                "kind": "ExternalMetricValueList",
                "verbs": ["get"],
            }
            for metric in METRICS
        ],
    }


def _pool_of(selector: str) -> str | None:
    if not selector:
        return None
    key, equals, value = selector.replace("==", "=").partition("=")
    if key.strip() != "pool" or not equals or "," in value:
        raise StatusError(400, f"label selector {selector[:80]!r}: these metrics have one label, write pool=NAME")
    return value.strip()

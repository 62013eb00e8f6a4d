"""Metrics of a relay: the core counts, this only writes it down when somebody asks."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from voicefleet_dataplane.core.relay.relay import Relay
from voicefleet_dataplane.shell.process.health import tell_release
from voicefleet_dataplane.shell.relay.datapath import Datapath
from voicefleet_dataplane.shell.relay.flow_cache import FlowCache
from voicefleet_dataplane.shell.relay.pressure import Pressure


def relay_registry(
    core: Relay,
    sources: Callable[[], Mapping[str, str]],
    pressure: Pressure,
    datapath: Datapath,
    cache: FlowCache | None = None,
) -> CollectorRegistry:
    """Return a registry over one relay. ``sources`` names what the relay works from, and each one's problem if any."""
    registry = tell_release(CollectorRegistry())
    registry.register(_Core(core, sources))
    registry.register(_Pressure(pressure))
    registry.register(_Datapath(datapath))
    if cache is not None:
        registry.register(_Cache(cache))
    return registry


class _Pressure(Collector):
    def __init__(self, pressure: Pressure) -> None:
        self._pressure = pressure

    def collect(self) -> Iterator[Metric]:
        text = "Share of one core that the process uses: alert at 0.7, packets are lost near 1"
        yield GaugeMetricFamily("voicefleet_relay_busy_share", text, value=self._pressure.busy)
        text = "Datagrams that a socket's queue had no room for: nobody read in time"
        drops = CounterMetricFamily("voicefleet_relay_queue_drops", text, labels=["socket"])
        for name, count in self._pressure.queue_drops.items():
            drops.add_metric([name], count)
        yield drops


class _Core(Collector):
    def __init__(self, core: Relay, sources: Callable[[], Mapping[str, str]]) -> None:
        self._core, self._sources = core, sources

    def collect(self) -> Iterator[Metric]:
        core = self._core
        for name, text, value in (
            ("flows", "Flows held now", len(core.flows)),
            ("flows_max", "Flows held at most", core.flows.max_flows),
            ("topology_revision", "The topology in use", core.topology.topology.revision if core.topology else 0),
        ):
            yield GaugeMetricFamily(f"voicefleet_relay_{name}", text, value=value)
        for name, text, value in (
            ("flows_bound", "Flows bound by a check", core.flows_bound),
            ("flows_expired", "Flows forgotten after their idle time", core.flows_expired),
        ):
            yield CounterMetricFamily(f"voicefleet_relay_{name}", text, value=value)
        for name, text, inward, outward in (
            ("packets", "Datagrams forwarded", core.inward.packets, core.outward.packets),
            ("bytes", "Bytes of clients' datagrams forwarded, without SPP", core.inward.bytes, core.outward.bytes),
        ):
            family = CounterMetricFamily(f"voicefleet_relay_{name}", text, labels=["direction"])
            family.add_metric(["inward"], inward)
            family.add_metric(["outward"], outward)
            yield family
        drops = CounterMetricFamily("voicefleet_relay_drops", "Packets dropped, by reason", labels=["reason"])
        for reason, count in core.drops.items():
            drops.add_metric([reason.value], count)
        yield drops
        stale = GaugeMetricFamily(
            "voicefleet_relay_source_stale",
            "1: the last good copy is in use, the source has a problem",
            labels=["what"],
        )
        for what, problem in self._sources().items():
            stale.add_metric([what], int(bool(problem)))
        yield stale


class _Cache(Collector):
    def __init__(self, cache: FlowCache) -> None:
        self._cache = cache

    def collect(self) -> Iterator[Metric]:
        recovery = self._cache.recovery
        yield GaugeMetricFamily(
            "voicefleet_relay_lookups_pending", "Clients that the cache is asked about now", value=len(recovery.lookups)
        )
        lookups = CounterMetricFamily(
            "voicefleet_relay_lookups", "Clients that the cache was asked about, by what came of it", labels=["outcome"]
        )
        for outcome, count in recovery.lookups.outcomes.items():
            lookups.add_metric([outcome.value], count)
        yield lookups
        for name, text, value in (
            ("announcements", "Restored flows announced to their owners", recovery.announced),
            ("cache_records", "Flows written to the cache", self._cache.written),
        ):
            yield CounterMetricFamily(f"voicefleet_relay_{name}", text, value=value)


class _Datapath(Collector):
    def __init__(self, datapath: Datapath) -> None:
        self._datapath = datapath

    def collect(self) -> Iterator[Metric]:
        datapath, kernel = self._datapath, self._datapath.kernel
        mode = GaugeMetricFamily(
            "voicefleet_relay_datapath", "1: how media moves, and why so", labels=["mode", "reason"]
        )
        mode.add_metric([datapath.mode.value, datapath.reason], 1)
        yield mode
        packets = CounterMetricFamily(
            "voicefleet_relay_kernel_packets",
            "What the kernel did with packets to the public port and of flows; up_…: left to the process, and why",
            labels=["what"],
        )
        for what, count in datapath.counters().items():
            packets.add_metric([what], count)
        yield packets
        for name, text, value in (
            ("kernel_rules", "Rules in the kernel, one for each direction of a flow", len(kernel) if kernel else 0),
            ("flows_adopted", "Flows of a predecessor that went on", datapath.adopted),
        ):
            yield GaugeMetricFamily(f"voicefleet_relay_{name}", text, value=value)
        refused = kernel.refused if kernel else 0
        yield CounterMetricFamily(
            "voicefleet_relay_kernel_refused", "Flows that the kernel had no room for", value=refused
        )

"""Metrics of a transceiver: the core counts, this only writes it down when somebody asks.

Nothing on the packet path touches prometheus-client, whose counters take a lock each.
"""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from voicefleet_contract.topology import MemberState
from voicefleet_contract.trace_context import parse_traceparent
from voicefleet_dataplane.core.transceiver.transceiver import Transceiver
from voicefleet_dataplane.shell.process.health import tell_release
from voicefleet_dataplane.shell.transceiver.control_api import ControlRefusal

# Milliseconds matter: fine below a second.
_SETUP_BUCKETS_S = (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0)


class TransceiverMetrics:
    """A registry of its own: several transceivers may live in one process."""

    def __init__(
        self,
        pool: str,
        core: Transceiver,
        packets_out: Callable[[], int],
        refused: Mapping[ControlRefusal, int],
        records: Callable[[], Mapping[tuple[str, str], int]],
        engines: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        self._core = core
        self.registry = tell_release(CollectorRegistry())
        self.registry.register(_Core(pool, core, packets_out, refused, records, engines))
        self.voices = Counter(
            "voicefleet_transceiver_voice_packets",
            "Packets of clients that came to a listener otherwise than in order and in time, of calls that have ended",
            ["pool", "what"],
            registry=self.registry,
        )
        self.events = Counter(
            "voicefleet_transceiver_client_events",
            "Events for clients that went without their large content or were lost, of calls that have ended",
            ["pool", "what"],
            registry=self.registry,
        )
        self._pool = pool
        self._setup = Histogram(
            "voicefleet_transceiver_setup_seconds",
            "Time from the answered offer to a stage of the call",
            ["pool", "stage"],
            buckets=_SETUP_BUCKETS_S,
            registry=self.registry,
        )
        self._rtt = Histogram(
            "voicefleet_transceiver_rtt_seconds",
            "Round-trip times of connected calls, each call once in some seconds",
            ["pool"],
            buckets=_SETUP_BUCKETS_S,
            registry=self.registry,
        ).labels(pool)

    def sample(self) -> None:
        """Take every connected call's round-trip time; called every few seconds, never for a packet."""
        for session in self._core.calls.sessions.values():
            if session.reports.rtt_s is not None:
                self._rtt.observe(session.reports.rtt_s)

    def note_stage(self, stage: str, seconds: float, traceparent: str) -> None:
        """A call reached a stage of its set-up; where it is traced, its bucket's exemplar leads to the trace."""
        trace = parse_traceparent(traceparent)
        exemplar = {"trace_id": f"{trace.trace_id:032x}"} if trace is not None else None
        self._setup.labels(self._pool, stage).observe(seconds, exemplar)

    def write(self, accept: str) -> tuple[bytes, str]:
        """The exposition and its content type; exemplars are in OpenMetrics only."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type


class _Core(Collector):
    def __init__(
        self,
        pool: str,
        core: Transceiver,
        packets_out: Callable[[], int],
        refused: Mapping[ControlRefusal, int],
        records: Callable[[], Mapping[tuple[str, str], int]],
        engines: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        self._pool, self._core = pool, core
        self._records, self._engines = records, engines
        self._packets_out = packets_out
        self._refused = refused

    def collect(self) -> Iterator[Metric]:
        core, calls = self._core, self._core.calls
        is_draining = calls.state is MemberState.DRAINING
        for name, text, value in (
            ("sessions", "Calls of this moment", len(calls.sessions)),
            ("capacity", "Calls that are taken at most", core.place.capacity),
            ("draining", "1 while no new call is taken and those that are left may end", int(is_draining)),
            ("topology_revision", "The revision of the topology in use", core.topology_revision),
        ):
            gauge = GaugeMetricFamily(f"voicefleet_transceiver_{name}", text, labels=["pool"])
            gauge.add_metric([self._pool], value)
            yield gauge
        for name, text, value in (
            ("sessions_started", "Offers answered", calls.tally.started),
            ("packets_in", "Datagrams read", core.packets_in),
            ("packets_out", "Datagrams sent", self._packets_out()),
            ("ice_restarts", "ICE restarts of running calls", calls.tally.ice_restarts),
            ("announcements_followed", "Paths led to another relay by its word", core.announcements_followed),
        ):
            yield CounterMetricFamily(f"voicefleet_transceiver_{name}", text, value=value)
        drops = CounterMetricFamily("voicefleet_transceiver_drops", "Packets dropped, by reason", labels=["reason"])
        for reason, count in core.drops.items():
            drops.add_metric([reason.value], count)
        yield drops
        refused = CounterMetricFamily(
            "voicefleet_transceiver_control_refused",
            "Who got no answer of the control API, by reason",
            labels=["reason"],
        )
        for refusal, count in self._refused.items():
            refused.add_metric([refusal.value], count)
        yield refused
        records = CounterMetricFamily(
            "voicefleet_transceiver_call_records", "Records of ended calls", labels=["destination", "outcome"]
        )
        for (destination, outcome), count in self._records().items():
            records.add_metric([destination, outcome], count)
        yield records
        engines = CounterMetricFamily(
            "voicefleet_transceiver_engines",
            "What became of the engines of voice pipelines: utterances, sentences, failed or refused ones, restarts",
            labels=["what"],
        )
        for what, count in self._engines().items():
            engines.add_metric([what], count)
        yield engines
        ended = CounterMetricFamily(
            "voicefleet_transceiver_sessions_ended", "Calls ended, by reason", labels=["pool", "reason"]
        )
        for end, count in calls.tally.ended.items():
            ended.add_metric([self._pool, end.value], count)
        yield ended

"""What is left of a call: the spans of its set-up, its stages in the metrics, its record, and one line in the log.

Owns: what is written and when. Does not own: the stages (core.call.session notes them), where spans go (shell/process/tracing.py),
where records go (call_records.py), the metrics' registry (metrics.py).
"""

import asyncio
import logging
import time
from collections.abc import Callable

from voicefleet_contract.settings import TransceiverSettings
from voicefleet_contract.topology import TopologyIndex
from voicefleet_contract.trace_context import parse_traceparent
from voicefleet_dataplane.core.call.session import Session
from voicefleet_dataplane.core.call.status import session_status
from voicefleet_dataplane.shell.process.tracing import Span, open_tracer
from voicefleet_dataplane.shell.transceiver.call_records import CallRecords, make_record
from voicefleet_dataplane.shell.transceiver.metrics import TransceiverMetrics
from voicefleet_dataplane.shell.transceiver.running_call import RunningCall
from voicefleet_dataplane.shell.transceiver.session_records import relay_name

log = logging.getLogger("voicefleet.transceiver")


class CallTrace:
    """Writes of every call of one transceiver; a packet costs it nothing."""

    def __init__(
        self,
        settings: TransceiverSettings,
        topology: Callable[[], TopologyIndex | None],
        records: CallRecords,
        metrics: TransceiverMetrics,
    ) -> None:
        self._settings = settings
        self._topology = topology
        self._records = records
        self._metrics = metrics
        self._tracer = open_tracer(
            settings.otlp_endpoint,
            "voicefleet-transceiver",
            {
                "k8s.pod.name": settings.process_name,
                "k8s.node.name": settings.node_name,
                "voicefleet.pool": settings.pool,
            },
        )
        self._set_ups: dict[str, Span] = {}

    def begin(self, call_id: str, traceparent: str) -> str:
        """A call's set-up begins; returns the traceparent that its backend is told, "" for none."""
        span = self._set_ups[call_id] = self._tracer.start("call set-up", parse_traceparent(traceparent))
        return str(span.context or "")

    def end_set_up(self, session: Session) -> None:
        """Write the stages that were reached. A call's span ends with its set-up, or with the call when that came first."""
        span = self._set_ups.pop(session.agreed.call_id, None)
        if span is None:
            return
        reached = session.lifetime.started_at
        for name, at in (
            ("answer to first check", session.checked_at),
            ("check to DTLS", session.connected_at),
            ("DTLS to first audio", session.audio_at),
        ):
            if at is not None:
                span.child(name, reached, at)
                reached = at
        error = "" if session.connected_at is not None else str(session.end_reason or "")
        span.end({"voicefleet.call": session.agreed.call_id, "voicefleet.relay": session.agreed.relay}, error=error)

    def end_set_ups(self, calls: dict[str, RunningCall]) -> None:
        """Do so for each of these calls that has had its first audio; called every second."""
        for call_id in list(self._set_ups):
            call = calls.get(call_id)
            if call is not None and call.session.audio_at is not None:
                self.end_set_up(call.session)

    def ended(self, call: RunningCall) -> None:
        """A call has ended."""
        session = call.session
        for stage, at in (
            ("checked", session.checked_at),
            ("connected", session.connected_at),
            ("audio", session.audio_at),
        ):
            if at is not None:
                self._metrics.note_stage(stage, at - session.lifetime.started_at, call.config.traceparent)
        for what, count in call.voice_counts().items():
            self._metrics.voices.labels(self._settings.pool, what).inc(count)
        for what, count in call.hub.counts.items():
            self._metrics.events.labels(self._settings.pool, what).inc(count)
        now = time.monotonic()
        status = session_status(session, now)
        self.end_set_up(session)
        relay = relay_name(session, self._topology())
        self._records.put(make_record(self._settings, session, relay, now, time.time()))
        log.info(
            "call %s ended: %s%s after %.1f s, packets in %d out %d, loss %s, rtt %s ms",
            call.call_id,
            status.ended_reason,
            f" ({status.ended_detail})" if status.ended_detail else "",
            status.age_s,
            status.packets_in,
            status.packets_out,
            status.loss,
            status.rtt_ms,
        )

    async def close(self) -> None:
        """Export the spans that wait."""
        await asyncio.to_thread(self._tracer.close)

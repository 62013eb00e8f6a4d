"""Spans of a call's set-up, for whoever switched tracing on; else a caller's traceparent is only passed on.

::

    caller's POST ──▶ gateway "call" ──▶ owner "call set-up" ─┬─ "answer to first check"
                                             │                ├─ "check to DTLS"
                                             ▼                └─ "DTLS to first audio"
                                    traceparent to the backend

Spans are written when they are over, with the times that were noted anyway: tracing costs a call a few objects at its
set-up, and a packet nothing.

Owns: spans and their export (OpenTelemetry's SDK, OTLP over HTTP). Does not own: when a stage was reached.
"""

import logging
import time
from collections.abc import Mapping
from typing import Any, Protocol

from voicefleet_contract.trace_context import TraceParent

log = logging.getLogger("voicefleet.tracing")

_EXPORT_TIMEOUT_S = 5


class Span(Protocol):
    """A span under way. ``context`` is what children and the next process are told."""

    @property
    def context(self) -> TraceParent | None:
        """Where children belong."""

    def child(self, name: str, start: float, end: float) -> None:
        """Write a child that is over; times are of the monotonic clock."""

    def end(self, attributes: Mapping[str, str | int | float | bool], *, error: str = "") -> None:
        """It is over."""


class Tracer(Protocol):
    """Makes spans."""

    def start(self, name: str, parent: TraceParent | None) -> Span:
        """Begin a span now."""

    def close(self) -> None:
        """Export what waits."""


class PassOn:
    """No spans: what came is passed on."""

    def __init__(self, context: TraceParent | None) -> None:
        self.context = context

    def child(self, name: str, start: float, end: float) -> None:
        """Nothing."""

    def end(self, attributes: Mapping[str, str | int | float | bool], *, error: str = "") -> None:
        """Nothing."""


class NoTracer:
    """Tracing is off."""

    def start(self, name: str, parent: TraceParent | None) -> PassOn:
        """Pass the parent on."""
        return PassOn(parent)

    def close(self) -> None:
        """Nothing waits."""


def open_tracer(endpoint: str, service: str, attributes: Mapping[str, str]) -> Tracer:
    """Return a tracer that exports to an OTLP endpoint (http://collector:4318); without one, `NoTracer`."""
    return _OtlpTracer(endpoint, service, attributes) if endpoint else NoTracer()


class _OtlpTracer:
    def __init__(self, endpoint: str, service: str, attributes: Mapping[str, str]) -> None:
        # Imported when it is used: it is half a second that no other process should wait.
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=_EXPORT_TIMEOUT_S)
        self._provider = TracerProvider(resource=Resource.create({"service.name": service, **attributes}))
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("voicefleet")
        self._wall_offset_ns = time.time_ns() - time.monotonic_ns()

    def start(self, name: str, parent: TraceParent | None) -> "_OtlpSpan":
        return _OtlpSpan(self._tracer, self._wall_offset_ns, name, parent)

    def close(self) -> None:
        self._provider.shutdown()


class _OtlpSpan:
    def __init__(self, tracer: Any, wall_offset_ns: int, name: str, parent: TraceParent | None) -> None:
        from opentelemetry import trace  # noqa: PLC0415

        self._tracer, self._offset_ns, self._trace = tracer, wall_offset_ns, trace
        self._span = tracer.start_span(name, context=self._under(parent), start_time=self._unix_ns(time.monotonic()))

    @property
    def context(self) -> TraceParent:
        made = self._span.get_span_context()
        return TraceParent(made.trace_id, made.span_id, bool(made.trace_flags & 1))

    def child(self, name: str, start: float, end: float) -> None:
        above = self._trace.set_span_in_context(self._span)
        self._tracer.start_span(name, context=above, start_time=self._unix_ns(start)).end(self._unix_ns(end))

    def end(self, attributes: Mapping[str, str | int | float | bool], *, error: str = "") -> None:
        self._span.set_attributes(dict(attributes))
        if error:
            self._span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, error))
        self._span.end(self._unix_ns(time.monotonic()))

    def _under(self, parent: TraceParent | None) -> Any:
        if parent is None:
            return None
        flags = self._trace.TraceFlags(int(parent.sampled))
        context = self._trace.SpanContext(parent.trace_id, parent.span_id, is_remote=True, trace_flags=flags)
        return self._trace.set_span_in_context(self._trace.NonRecordingSpan(context))

    def _unix_ns(self, monotonic_s: float) -> int:
        return int(monotonic_s * 1e9) + self._offset_ns

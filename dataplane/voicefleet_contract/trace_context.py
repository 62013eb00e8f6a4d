"""W3C Trace Context: the header ``traceparent`` of a caller's POST, as it travels to the owner and on to the backend.

``00-<32 hex: trace id>-<16 hex: span id>-<2 hex: flags>`` (W3C Recommendation, §3.2). It is passed on whether or not we record spans
ourselves: a caller's trace must not break at a fleet that does not trace.
"""

import re
from dataclasses import dataclass

HEADER = "traceparent"
_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


@dataclass(frozen=True, slots=True)
class TraceParent:
    """Where a span belongs: its trace, and the span above it."""

    trace_id: int
    span_id: int
    sampled: bool

    def __str__(self) -> str:
        """Return the header's value."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{int(self.sampled):02x}"


def parse_traceparent(value: str | None) -> TraceParent | None:
    """Return the parent, or None for no header or one that §3.2 says to ignore."""
    match = _FORM.fullmatch(value.strip()) if value else None
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == "ff" or (version == "00" and more) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    return TraceParent(int(trace_id, 16), int(span_id, 16), bool(int(flags, 16) & 1))

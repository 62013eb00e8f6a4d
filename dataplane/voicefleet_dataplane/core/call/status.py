"""One call in numbers, for the control API, the registry and the call's record.

Owns: which number stands in which field, and its unit. Does not own: the counting (core/call/session.py, core/call/reports.py).
"""

from voicefleet_contract.http_api import SessionStatus
from voicefleet_dataplane.core.call.session import Session


def session_status(session: Session, now: float) -> SessionStatus:
    """Say how a call does. Loss and jitter are those of what the client sends."""
    path, reports = session.ice.selected, session.reports
    rtt_s, jitter_s = reports.rtt_s, reports.jitter_s
    return SessionStatus(
        call_id=session.agreed.call_id,
        ufrag=session.ice.ufrag,
        state=session.state,
        client=str(path.client) if path else None,
        relay=str(path.destination) if path and path.prefix else None,
        age_s=round(now - session.lifetime.began_at, 3),
        rtt_ms=None if rtt_s is None else round(rtt_s * 1e3, 2),
        jitter_ms=None if jitter_s is None else round(jitter_s * 1e3, 2),
        loss=reports.loss,
        packets_in=session.packets_in,
        packets_out=session.packets_out,
        bytes_in=session.bytes_in,
        bytes_out=session.bytes_out,
        ended_reason=session.end_reason,
        ended_detail=session.end_detail or None,
    )

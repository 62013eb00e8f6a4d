"""The record of a call that has ended: one JSON line, the same in a log, a Redis stream and a webhook.

It says where a call was, how it came up, how it went and why it ended; never what was said. A client is its network
(/24, /48) unless somebody decided to keep addresses. ``event_id`` follows from the call id, so whoever gets a record twice knows.
"""

import base64
import hashlib
import hmac
import uuid
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

VERSION = 1
TYPE = "call.ended"
_EVENTS = uuid.UUID("2c6b1f0e-5c55-5f0f-9c6b-6b0d6f0e3c11")


class Addresses(StrEnum):
    """What a record keeps of a client's address."""

    TRUNCATED = "Truncated"
    FULL = "Full"


class CallRecord(BaseModel):
    """One call. Times are Unix seconds; stages are milliseconds after the answer, None for one that never came."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    version: int = VERSION
    type: str = TYPE
    event_id: str
    call_id: str
    cluster: int
    pool: str
    slot: int
    generation: int
    pod: str
    node: str
    relay: str
    region: str
    client: str  # a network, or an address where that was decided
    backend: str
    started_at: float
    ended_at: float
    duration_s: float
    checked_ms: float | None = None
    connected_ms: float | None = None
    audio_ms: float | None = None
    ended_reason: str
    ended_detail: str = ""
    rtt_ms: float | None = None
    loss: float | None = None
    jitter_ms: float | None = None
    mos: float | None = None
    packets_in: int = 0
    packets_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


def event_id(call_id: str) -> str:
    """Return the id of a call's end: the same however often it is told."""
    return str(uuid.uuid5(_EVENTS, call_id))


def sign_webhook(secret: bytes, message_id: str, unix_now: int, body: bytes) -> dict[str, str]:
    """Return the headers of a delivery as Standard Webhooks has them: the receiver checks id, time and body together."""
    signed = b"%s.%d.%s" % (message_id.encode(), unix_now, body)
    signature = base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(unix_now),
        "webhook-signature": f"v1,{signature}",
    }

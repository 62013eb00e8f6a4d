"""The words of a call: where it is, why it ended, how long it may take, and who uses it.

Owns: these types. Does not own: what moves a call from one state to the next (core/call/session.py).
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from voicefleet_contract.drops import DropReason
from voicefleet_dataplane.wire.rtp import RtpPacket


class SessionState(StrEnum):
    """Where a call is."""

    NEW = "new"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    ENDING = "ending"  # over for all but its client, who hears how its data channels close
    ENDED = "ended"


class EndReason(StrEnum):
    """Why a call ended: a metric label and a field of its record."""

    HANG_UP = "hang_up"  # the control API, or the backend
    BACKEND_CLOSED = "backend_closed"  # the agent went away without a word
    CLOSED_BY_CLIENT = "closed_by_client"  # DTLS close_notify, or its SCTP says so
    CONSENT_EXPIRED = "consent_expired"
    SETUP_TIMEOUT = "setup_timeout"
    MAX_DURATION = "max_duration"
    IDLE = "idle"  # neither side has said anything
    SRTP_FAILED = (
        "srtp_failed"  # idle, and its client's SRTP did not open: its numbers began anew, or its keys are others
    )
    ABANDONED = "abandoned"  # its client has sent nothing but checks
    FINGERPRINT_MISMATCH = "fingerprint_mismatch"
    DTLS_FAILED = "dtls_failed"
    DRAIN_DEADLINE = "drain_deadline"
    REPLACED = "replaced"  # its client has made another peer connection, and another call
    BACKEND_FAILED = "backend_failed"


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a call may take over what (core/call/lifetime.py); idle 0 switches idle and abandoned off."""

    setup_s: float = 30.0
    idle_s: float = 60.0
    abandoned_s: float = 900.0
    duration_s: float = 3_600.0


LAST_WORDS_S = 1.0


class Listener(Protocol):
    """Who uses the call: the shell, which joins it to SCTP and a backend."""

    def on_connected(self) -> None:
        """Media and data can be sent."""

    def on_audio(self, packet: RtpPacket) -> None:
        """An authentic audio packet."""

    def on_padding(self, packet: RtpPacket) -> None:
        """An authentic packet without audio: it has taken a sequence number, and that is all."""

    def on_telephone_event(self, packet: RtpPacket) -> None:
        """An authentic packet of the client's keypad (RFC 4733)."""

    def on_sctp(self, packet: bytes) -> DropReason | None:
        """An authentic SCTP packet; gives why it was dropped."""

    def on_ends_soon(self, reason: EndReason, seconds: float) -> None:
        """Nobody uses the call: it ends in so many seconds if that goes on."""

    def on_ending(self) -> bool:
        """Last words can be sent now. True asks for LAST_WORDS_S more, in which SCTP packets come and go."""

    def on_ended(self, reason: EndReason) -> None:
        """The call is over. Said once."""

    def on_left(self) -> None:
        """After this nothing can be sent. Said once, after `on_ended`."""

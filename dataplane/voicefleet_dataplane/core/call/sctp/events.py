"""What an association says to whoever uses it."""

from collections.abc import Callable
from dataclasses import astuple, dataclass
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """Where an association is (RFC 9260 section 4). ENDED is for good; CLOSED may still be called."""

    CLOSED = "closed"
    COOKIE_WAIT = "cookie_wait"
    COOKIE_ECHOED = "cookie_echoed"
    ESTABLISHED = "established"
    SHUTDOWN_RECEIVED = "shutdown_received"
    SHUTDOWN_ACK_SENT = "shutdown_ack_sent"
    ENDED = "ended"


class Dropped(StrEnum):
    """Why a packet was dropped, or one of its chunks."""

    MALFORMED = "malformed"
    WRONG_TAG = "wrong_tag"
    NO_ROOM = "no_room"  # past the window, too far ahead, or one stream too many
    TOO_MANY_STEPS = "too_many_steps"  # the association has had its share of CPU


@dataclass(frozen=True, slots=True)
class Up:
    """Messages can be sent."""


@dataclass(frozen=True, slots=True)
class Restarted:
    """The peer has started again: streams begin anew, what was on its way is gone."""


@dataclass(frozen=True, slots=True)
class PeerReset:
    """The peer has reset its side of these streams; none named: all of them."""

    streams: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StreamReset:
    """Our side of a stream is reset, or the peer would not have it."""

    stream: int


@dataclass(frozen=True, slots=True)
class PeerLeft:
    """The peer has said SHUTDOWN, or ABORT without a cause: it will say and take nothing new (RFC 9260 section 9)."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The association is over."""

    reason: str


Event = Up | Restarted | PeerReset | StreamReset | PeerLeft | Ended

_KINDS: dict[str, Callable[..., Event]] = {
    kind.__name__: kind for kind in (Up, Restarted, PeerReset, StreamReset, PeerLeft, Ended)
}


def export_event(event: Event) -> list[Any]:
    """Return an event as a list."""
    return [type(event).__name__, *(list(one) if isinstance(one, tuple) else one for one in astuple(event))]


def restore_event(state: list[Any]) -> Event:
    """Make the event of an export."""
    name, *fields = state
    return _KINDS[name](*(tuple(one) if isinstance(one, list) else one for one in fields))

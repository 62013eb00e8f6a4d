"""Events on their way to the client: sent, or kept until they can be; shortened where it takes no more; nothing lost unsaid.

Before its channel is open, and while more waits in it than it takes, events wait here. Where even that is full, deltas go first,
and what ends something (`response.done`, errors) last; how many were lost is told by an `events_lost` error as soon as
something can be told. Whoever speaks is slowed down before that by the channel itself (`Call.is_behind`).

Owns: what waits, what is left out, the counts. Does not own: channels (which one is the events': media/event_channels.py).
Invariant: at most MAX_WAITING events and MAX_WAITING_BYTES wait, and as many again while the channel is a guess.
"""

from collections import deque
from dataclasses import dataclass

from voicefleet_contract.outside import JsonError, parse_json
from voicefleet_dataplane.media.agent import MAX_MESSAGE_BYTES
from voicefleet_dataplane.media.backend import Channel
from voicefleet_dataplane.media.event_errors import build_error
from voicefleet_dataplane.media.shortening import shorten

MAX_WAITING = 256
MAX_WAITING_BYTES = 1 << 20
_LAST_WORDS = frozenset(("response.done", "error", "session.created"))


@dataclass(frozen=True, slots=True)
class _Waiting:
    event: str
    size: int
    is_delta: bool = False
    is_last_word: bool = False


class ClientEvents:
    """One call's."""

    def __init__(self) -> None:
        self._channel: Channel | None = None
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._kept: deque[str] | None = None  # what an adopted channel was told, while it may be the wrong one
        self._kept_bytes = 0
        self._lost = 0
        self.counts = {"shortened": 0, "lost": 0}

    def open(self, channel: Channel, *, is_sure: bool) -> None:
        """Tell this channel from now on, beginning with what waits, and with what the one before it got by mistake."""
        kept, self._kept, self._kept_bytes = self._kept, None if is_sure else deque(), 0
        self._channel = channel
        self._waiting.extendleft(_Waiting(event, len(event)) for event in reversed(kept or ()))
        self._waiting_bytes += sum(map(len, kept or ()))
        self.flush()

    def trust(self) -> None:
        """The adopted channel is the right one."""
        self._kept = None

    def close(self) -> None:
        """The channel is gone, and another may come."""
        self._channel = self._kept = None

    def tell(self, event: str) -> bool:
        """Send an event, or keep it; False if it is lost."""
        self.flush()
        if self._channel is not None and not self._waiting:
            outcome = self._send(event)
            if outcome is not None:
                return outcome
        return self._wait(event)

    def flush(self) -> None:
        """There may be room: send what waits, in its order."""
        while self._channel is not None and (self._waiting or self._lost):
            if self._lost:
                message = f"{self._lost} events could not be kept for this client and are lost"
                if not self._channel.send(build_error("events_lost", message, kind="server_error")):
                    return
                self._lost = 0
                continue
            if self._send(self._waiting[0].event) is None:
                return
            self._waiting_bytes -= self._waiting.popleft().size

    def _send(self, event: str) -> bool | None:
        """None: not now. False: never, and the client knows."""
        channel = self._channel
        assert channel is not None
        most = channel.takes_bytes
        size = len(event) if event.isascii() else len(event.encode())
        shorter: str | None = event
        if most and size > most:
            shorter = shorten(event, most)
            if shorter is None:
                self.counts["lost"] += 1
                message = f"an event of {size} bytes is not sent: this client takes {most}"
                channel.send(build_error("event_too_large", message))
                return False
        if shorter is None or not channel.send(shorter):
            return None
        self.counts["shortened"] += shorter is not event
        if self._kept is not None:
            self._keep(event)
        return True

    def _keep(self, event: str) -> None:
        assert self._kept is not None
        self._kept_bytes += len(event)
        if len(self._kept) >= MAX_WAITING or self._kept_bytes > MAX_WAITING_BYTES:
            self._kept = None  # a channel that was told so much and stayed is the right one
        else:
            self._kept.append(event)

    def _wait(self, event: str) -> bool:
        if len(event) > MAX_WAITING_BYTES // 4:
            shorter = shorten(event, MAX_WAITING_BYTES // 4)
            self.counts["shortened"] += shorter is not None
            event = event if shorter is None else shorter
        kind = _kind_of(event)
        new = _Waiting(event, len(event), kind.endswith(".delta"), kind in _LAST_WORDS)
        while self._is_full(new):
            if not self._make_room(new):
                self._lose()
                return False
        self._waiting.append(new)
        self._waiting_bytes += new.size
        return True

    def _is_full(self, new: _Waiting) -> bool:
        return len(self._waiting) >= MAX_WAITING or self._waiting_bytes + new.size > MAX_WAITING_BYTES

    def _make_room(self, new: _Waiting) -> bool:
        """Let go the oldest of what matters less than the new one."""
        found = None
        if not new.is_delta:
            found = next((one for one in self._waiting if one.is_delta), None)
        if found is None and new.is_last_word:
            found = next((one for one in self._waiting if not one.is_last_word), None)
        if found is None:
            return False
        self._waiting.remove(found)
        self._waiting_bytes -= found.size
        self._lose()
        return True

    def _lose(self) -> None:
        self._lost += 1
        self.counts["lost"] += 1


def _kind_of(event: str) -> str:
    try:
        value = parse_json(event, MAX_MESSAGE_BYTES)
    except JsonError:
        return ""
    kind = value.get("type") if isinstance(value, dict) else None
    return kind if isinstance(kind, str) else ""

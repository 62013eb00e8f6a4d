"""Data channels of one call: our SCTP (core/call/sctp) over its DTLS association, with a clock.

Owns: the timer, and when packets go out. Does not own: channels and bounds (core/call/sctp/channels.py), DTLS
(core/call/dtls.py), what a message means.
Invariant: no SCTP packet ends a call but the client's SHUTDOWN, or its ABORT without a cause, whatever is in it.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from typing import Protocol

from voicefleet_contract.drops import DropReason
from voicefleet_dataplane.core.call.sctp import channels as sctp
from voicefleet_dataplane.core.call.sctp.events import Dropped
from voicefleet_dataplane.core.call.session import Session
from voicefleet_dataplane.media.backend import Channel, Message
from voicefleet_dataplane.wire.sdp.answer import MAX_MESSAGE_BYTES, SCTP_PORT

log = logging.getLogger("voicefleet.transceiver")

_WAIT_S = 0.05  # for a client that says too much
_DROPS = {
    Dropped.MALFORMED: DropReason.SCTP_MALFORMED,
    Dropped.WRONG_TAG: DropReason.SCTP_WRONG_TAG,
    Dropped.NO_ROOM: DropReason.SCTP_NO_ROOM,
    Dropped.TOO_MANY_STEPS: DropReason.DATA_RATE,
}


class ChannelListener(Protocol):
    """Who is told about channels and messages."""

    def on_channel(self, channel: Channel) -> None:
        """A channel was opened."""

    def on_data(self, channel: Channel, message: Message) -> None:
        """A message has come."""

    def on_all_closed(self) -> None:
        """`close_all` is done."""

    def on_client_left(self) -> None:
        """The client has ended the association because it wanted to."""


class DataChannel:
    """A channel as a backend sees it."""

    def __init__(self, owner: "DataChannels", channel: sctp.DataChannel) -> None:
        self._owner = owner
        self._channel = channel
        self.takes_bytes = owner.takes_bytes

    @property
    def label(self) -> str:
        """The name that its opener gave it."""
        return self._channel.terms.label

    def send(self, message: Message) -> bool:
        """Queue a message; False if it is too long, the channel closed, or too much waits already."""
        return self._owner.send(self._channel, message)


class DataChannels:
    """The SCTP association of one call, from its DTLS handshake to its end."""

    def __init__(self, session: Session, listener: ChannelListener, wake: Callable[[], None]) -> None:
        self._session = session
        self._listener = listener
        self._wake = wake
        self._seen: dict[sctp.DataChannel, DataChannel] = {}
        self._is_over = self._is_closing = self._is_busy = self._flush_scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._wait_until: float | None = None
        self._loop = asyncio.get_running_loop()
        agreed, now = session.agreed, time.monotonic()
        self.takes_bytes = agreed.max_message_bytes
        self._channels = sctp.Channels(
            (SCTP_PORT, agreed.sctp_port), (MAX_MESSAGE_BYTES, agreed.max_message_bytes), secrets.token_bytes, now
        )
        self._flush(now)

    def receive(self, packet: bytes) -> DropReason | None:
        """Take one SCTP packet of the client; gives why it was dropped."""
        if self._is_over:
            return None
        now = time.monotonic()
        dropped = self._channels.receive(packet, now)
        self._go_on(now)
        return None if dropped is None else _DROPS[dropped]

    def send(self, channel: sctp.DataChannel, message: Message) -> bool:
        """Queue a message. What is queued in one turn of the loop shares packets."""
        outcome = self._channels.send(channel, message, time.monotonic())
        if outcome is not sctp.Outcome.QUEUED:
            log.info(
                "call %s: a message of %d was not sent in the channel %r: %s (the client takes %d bytes)",
                self._session.agreed.call_id,
                len(message),
                channel.terms.label[:64],
                outcome,
                self.takes_bytes,
            )
            return False
        if not self._is_busy and not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self.flush)
        return True

    @property
    def is_behind(self) -> bool:
        """Whether so much waits for the client that whoever speaks to it should wait, too."""
        return self._channels.is_behind

    def flush(self) -> None:
        """Send what was said just now, before the loop comes to it."""
        self._flush_scheduled = False
        if not self._is_over:
            self._flush(time.monotonic())

    def close_all(self) -> bool:
        """Close each channel after what was said in it (RFC 8831 section 6.7); False if there is none to be closed.

        What the client says from now on is not told.
        """
        channels = self._channels.open_channels
        if self._is_over or not channels or not self._channels.is_up:
            return False
        self._is_closing = True
        for channel in channels:
            self._channels.close(channel)
        self._flush(time.monotonic())
        return True

    def close(self, *, silently: bool = False) -> None:
        """Abort the association and cancel its timer."""
        if self._is_over:
            return
        if not silently:
            self._channels.abort("the call is over")
            self._flush(time.monotonic())
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()

    def _go_on(self, now: float) -> None:
        """Tell what the client says, then send what that has caused."""
        if self._is_busy:
            return
        self._is_busy = True
        try:
            self._wait_until = None
            while not self._is_over:
                if not self._session.may_hear_message(now):
                    self._wait_until = now + _WAIT_S
                    break
                event = self._channels.next_event()
                if event is None:
                    break
                self._tell(event, now)
        finally:
            self._is_busy = False
        if self._is_over:
            return
        self._flush(now)
        if self._is_closing and not self._channels.open_channels:
            self._listener.on_all_closed()

    def _tell(self, event: sctp.ChannelEvent, now: float) -> None:
        if self._is_closing:
            if isinstance(event, sctp.Opened):
                self._channels.close(event.channel)
            elif isinstance(event, sctp.Left):
                self._listener.on_all_closed()
        elif isinstance(event, sctp.Opened):
            channel = self._seen[event.channel] = DataChannel(self, event.channel)
            self._listener.on_channel(channel)
        elif isinstance(event, sctp.Closed):
            self._seen.pop(event.channel, None)
        elif isinstance(event, sctp.Left):
            self._listener.on_client_left()
        else:
            self._session.note_message(now)
            self._listener.on_data(self._seen[event.channel], event.message)

    def _flush(self, now: float) -> None:
        packets = self._channels.poll(now)
        for packet in packets:
            self._session.send_sctp(packet, now)
        if packets:
            self._wake()
        self._arm(now)

    def _arm(self, now: float) -> None:
        times = [at for at in (self._channels.deadline(), self._wait_until) if at is not None]
        if not times or (self._timer is not None and self._timer_at <= min(times)):
            return  # a timer that is too early arms itself again
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = min(times)
        self._timer = self._loop.call_later(max(0.0, self._timer_at - now), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._is_over:
            return
        now = time.monotonic()
        due = self._channels.deadline()
        if due is not None and due <= now:
            self._channels.advance(now)
        self._go_on(now)

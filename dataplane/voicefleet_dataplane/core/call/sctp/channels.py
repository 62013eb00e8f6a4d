"""Data channels on one association (RFC 8831): opened by the client with DCEP, or known to it beforehand (`negotiated: true`).

A channel that the client's application knows beforehand says nothing when it opens: it is there with its first message, with
an empty label. A channel closes when the streams of both directions are reset; whoever begins, the other follows.

Nothing is lost in silence: who sends is told what cannot be sent, and why. While more than HOLD_BYTES wait for the client to
acknowledge them, its own messages wait, too: its window closes, and its sender learns that it is too fast.

Owns: channels, what they may keep. Does not own: the association below, what a message means.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from voicefleet_dataplane.core.call.sctp.association import Association
from voicefleet_dataplane.core.call.sctp.dcep import ACK, DCEP, Terms, decode_message, encode_message, parse_open
from voicefleet_dataplane.core.call.sctp.events import (
    Dropped,
    Ended,
    PeerLeft,
    PeerReset,
    Restarted,
    State,
    StreamReset,
)
from voicefleet_dataplane.core.call.sctp.outstanding import Message

MAX_CHANNELS = 64
MAX_QUEUED_BYTES = 1 << 20  # of messages that the client has not acknowledged
HOLD_BYTES = MAX_QUEUED_BYTES >> 1
_MAX_ANSWERED = 256


class ChannelState(StrEnum):
    """Where a channel is."""

    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


class Outcome(StrEnum):
    """What became of a message that was to be sent."""

    QUEUED = "queued"
    CLOSED = "closed"  # the channel is
    FULL = "full"  # the client does not take what is queued already
    TOO_LONG = "too_long"  # for what the client takes


class DataChannel:
    """One channel, by its stream."""

    __slots__ = ("closed_by_client", "closed_by_us", "state", "stream", "terms")

    def __init__(self, stream: int, terms: Terms) -> None:
        self.stream = stream
        self.terms = terms
        self.state = ChannelState.OPEN
        self.closed_by_us = self.closed_by_client = False  # which streams are reset


@dataclass(frozen=True, slots=True)
class Opened:
    """The client opened a channel."""

    channel: DataChannel


@dataclass(frozen=True, slots=True)
class Said:
    """The client said something in it."""

    channel: DataChannel
    message: str | bytes


@dataclass(frozen=True, slots=True)
class Closed:
    """It can be used no more; both sides have closed it, or the association is over."""

    channel: DataChannel


@dataclass(frozen=True, slots=True)
class Left:
    """The client has ended the association, after all that it had to say: so some stacks hang up."""


ChannelEvent = Opened | Said | Closed | Left


class Channels:
    """Feed packets and time in; after each call drain `next_event`, then `poll`.

    ``max_message_bytes`` are ours, and the client's (0: any number).
    """

    def __init__(
        self,
        ports: tuple[int, int],
        max_message_bytes: tuple[int, int],
        random_bytes: Callable[[int], bytes],
        now: float,
    ) -> None:
        self._association = Association(ports, max_message_bytes[0], random_bytes, now)
        self._client_takes_bytes = max_message_bytes[1]
        self._hold_bytes = HOLD_BYTES
        self._channels: dict[int, DataChannel] = {}
        self._events: list[ChannelEvent] = []
        self._answered: set[int] = set()  # streams without a channel whose reset we asked for: the client's is no news
        self.ended = ""  # why the association is over
        self._association.connect(now)

    @property
    def open_channels(self) -> list[DataChannel]:
        """Return the channels that are not closed, the closing ones among them."""
        return list(self._channels.values())

    @property
    def is_up(self) -> bool:
        """Whether the client can be told anything."""
        return self._association.state is State.ESTABLISHED

    @property
    def is_behind(self) -> bool:
        """Whether so much waits for the client that its own messages wait, too."""
        return self._association.held_bytes > self._hold_bytes

    @property
    def steps(self) -> int:
        """What it has cost so far (meter.py)."""
        return self._association.steps

    # ---- what we do

    def send(self, channel: DataChannel, message: str | bytes, now: float) -> Outcome:
        """Queue a message."""
        if channel.state is not ChannelState.OPEN:
            return Outcome.CLOSED
        protocol, data = encode_message(message)
        if self._client_takes_bytes and len(data) > self._client_takes_bytes:
            return Outcome.TOO_LONG
        if self._association.held_bytes > MAX_QUEUED_BYTES:
            return Outcome.FULL
        terms = channel.terms
        expires_at = None if terms.lifetime_ms is None else now + terms.lifetime_ms / 1e3
        sent = self._association.send(
            Message(
                channel.stream,
                protocol,
                data,
                ordered=terms.ordered,
                max_resends=terms.max_resends,
                expires_at=expires_at,
            )
        )
        return Outcome.QUEUED if sent else Outcome.CLOSED

    def close(self, channel: DataChannel) -> None:
        """Close a channel after all that was said in it (RFC 8831 section 6.7)."""
        if channel.state is ChannelState.OPEN:
            channel.state = ChannelState.CLOSING
            self._association.reset_stream(channel.stream)

    def abort(self, reason: str) -> None:
        """End everything at once, and tell the client."""
        self._association.abort(reason)

    # ---- packets and time

    def receive(self, packet: bytes, now: float) -> Dropped | None:
        """Take an SCTP packet; gives why it was dropped."""
        return self._association.receive(packet, now)

    def poll(self, now: float) -> list[bytes]:
        """Return the packets to send."""
        return self._association.poll(now)

    def deadline(self) -> float | None:
        """When `advance` wants to be called."""
        return self._association.deadline()

    def advance(self, now: float) -> None:
        """Do what is due."""
        self._association.advance(now)

    # ---- what the client does

    def next_event(self) -> ChannelEvent | None:
        """Return what has happened next. Messages that wait for room come in a later call."""
        while not self._events:
            if self._holds_back:
                return None
            received = self._association.take()
            if received is not None:
                self._hear(*received)
                continue
            happened = self._association.take_events()
            if not happened:
                return None
            for event in happened:
                if isinstance(event, PeerReset):
                    self._reset_by_client(event.streams)
                elif isinstance(event, StreamReset):
                    self._reset_by_us(event.stream)
                elif isinstance(event, PeerLeft):
                    self._events.append(Left())
                elif isinstance(event, Ended | Restarted):
                    self._forget_all(event.reason if isinstance(event, Ended) else "")
        return self._events.pop(0)

    @property
    def _holds_back(self) -> bool:
        """Whether the client's messages wait. Where all channels close none is answered, and two ends that close would wait for each other."""
        return (
            self.is_behind
            and not self._association.peer_has_left
            and any(channel.state is ChannelState.OPEN for channel in self._channels.values())
        )

    def _hear(self, stream: int, protocol: int, data: bytes) -> None:
        channel = self._channels.get(stream)
        if protocol == DCEP:
            terms = parse_open(data)
            if channel is None and terms is not None and self._open(stream, terms) is not None:
                self._association.send(Message(stream, DCEP, ACK))
            return
        message = decode_message(protocol, data)
        if message is None:  # of a kind that nobody uses any more, or broken text: its sender should hear of it
            if channel is not None:
                self.close(channel)
            return
        channel = channel or self._open(stream, Terms())
        if channel is not None:  # one that we close may still be told what was on its way
            self._events.append(Said(channel, message))

    def _open(self, stream: int, terms: Terms) -> DataChannel | None:
        if len(self._channels) >= MAX_CHANNELS:
            self._reset_without_channel(stream)
            return None
        self._answered.discard(stream)
        channel = self._channels[stream] = DataChannel(stream, terms)
        self._events.append(Opened(channel))
        return channel

    def _reset_without_channel(self, stream: int) -> None:
        if len(self._answered) < _MAX_ANSWERED:
            self._answered.add(stream)
            self._association.reset_stream(stream)

    def _reset_by_client(self, streams: tuple[int, ...]) -> None:
        for stream in streams or tuple(self._channels):
            channel = self._channels.get(stream)
            if channel is not None:
                channel.closed_by_client = True
                self.close(channel)
                self._forget_if_closed(channel)
            elif stream in self._answered:
                self._answered.discard(stream)
            else:  # one that nobody used: the client waits for our half all the same
                self._reset_without_channel(stream)

    def _reset_by_us(self, stream: int) -> None:
        channel = self._channels.get(stream)
        if channel is not None:
            channel.closed_by_us = True
            self._forget_if_closed(channel)

    def _forget_if_closed(self, channel: DataChannel) -> None:
        if channel.closed_by_us and channel.closed_by_client:
            del self._channels[channel.stream]
            self._say_closed(channel)

    def _forget_all(self, reason: str) -> None:
        self.ended = reason
        for channel in self._channels.values():
            self._say_closed(channel)
        self._channels.clear()
        self._answered.clear()

    def _say_closed(self, channel: DataChannel) -> None:
        channel.state = ChannelState.CLOSED
        self._events.append(Closed(channel))

    # ---- its state elsewhere

    def export(self, now: float) -> dict[str, Any]:
        """Return all that `restore` needs, when `next_event` has given all that it gives."""
        return {
            "association": self._association.export(now),
            "answered": sorted(self._answered),
            "channels": [
                [
                    channel.stream,
                    channel.state.value,
                    channel.closed_by_us,
                    channel.closed_by_client,
                    [getattr(channel.terms, name) for name in Terms.__slots__],
                ]
                for channel in self._channels.values()
            ],
        }

    def restore(self, state: dict[str, Any], now: float) -> None:
        """Go on from an export, as new channels with the same arguments. Raises ValueError for another version."""
        self._association.restore(state["association"], now)
        self._answered = set(state["answered"])
        for stream, made, by_us, by_client, terms in state["channels"]:
            channel = self._channels[stream] = DataChannel(stream, Terms(*terms))
            channel.state = ChannelState(made)
            channel.closed_by_us, channel.closed_by_client = by_us, by_client

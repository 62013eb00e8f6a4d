"""What stands behind a call: the seam between the wire and an agent.

A Backend is made for each call and told what the client says; it answers through the Call that it was given. All of it
happens on the event loop of the transceiver, so nothing here may block: a backend with work to do hands it elsewhere.

Owns the two protocols. Does not own transport, codecs or time.
"""

from collections.abc import Callable
from typing import Protocol

from voicefleet_dataplane.wire.rtp import RtpPacket

Message = str | bytes


class Channel(Protocol):
    """One data channel."""

    @property
    def label(self) -> str:
        """The name that its opener gave it."""

    def send(self, message: Message) -> bool:
        """Send text or bytes; False if the channel is closed, or the client does not take what is queued already."""


class Call(Protocol):
    """What a backend may do."""

    @property
    def call_id(self) -> str:
        """Which call it is."""

    def send_audio(self, payload: bytes, sequence: int, timestamp: int, *, marker: bool = False) -> bool:
        """Send one Opus packet. Sequence (mod 2^16) and timestamp (48 kHz, mod 2^32) are the backend's own numbering."""

    def hang_up(self) -> None:
        """End the call."""


class Backend(Protocol):
    """What a backend is told."""

    def on_connected(self) -> None:
        """The client can be heard and spoken to."""

    def on_audio(self, packet: RtpPacket) -> None:
        """One audio packet of the client, in the order of arrival."""

    def on_channel(self, channel: Channel) -> None:
        """The client opened a data channel."""

    def on_data(self, channel: Channel, message: Message) -> None:
        """The client said something in it."""

    def on_ended(self) -> None:
        """The call is over; nothing can be sent any more."""


BackendFactory = Callable[[Call], Backend]

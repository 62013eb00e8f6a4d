"""Data channels of one call (RFC 8831, 8832): aiortc's SCTP over our DTLS association.

aiortc's RTCSctpTransport asks its DTLS transport for a few things by duck typing; `_DtlsSide` has just those. Its methods
are coroutines that wait for nothing but our send, which never waits: so a packet is carried through by stepping the
coroutine once, without a task.

Owns: that seam, and bounds on what a client may make us keep. Does not own: DTLS (core/call/dtls.py), what a message means.
Invariant: no SCTP packet ends a call, whatever is in it.
"""

import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from aiortc import rtcsctptransport
from aiortc.rtcdatachannel import RTCDataChannel
from aiortc.rtcsctptransport import RTCSctpCapabilities, RTCSctpTransport

from voicefleet_dataplane.core.call.dtls import DTLS_MTU_BYTES
from voicefleet_dataplane.core.call.session import Session
from voicefleet_dataplane.media.backend import Channel, Message
from voicefleet_dataplane.wire.sdp.answer import SCTP_PORT

log = logging.getLogger("voicefleet.transceiver")

MAX_CHANNELS = 64
MAX_QUEUED_BYTES = 1 << 20  # of messages that the client has not acknowledged
MAX_UNFINISHED_BYTES = 2 << 20  # of messages whose end has not come: aiortc announces a window and does not enforce it

# DTLS record with explicit nonce and tag (37), SCTP header (12), DATA chunk header (16); chunks are padded to four.
_USER_DATA_BYTES = (DTLS_MTU_BYTES - 37 - 12 - 16) // 4 * 4
# aiortc takes it from its module, for all associations of the process.
rtcsctptransport.USERDATA_MAX_LENGTH = min(rtcsctptransport.USERDATA_MAX_LENGTH, _USER_DATA_BYTES)


class ChannelListener(Protocol):
    """Who is told about channels and messages: a backend has these methods."""

    def on_channel(self, channel: Channel) -> None:
        """A channel was opened."""

    def on_data(self, channel: Channel, message: Message) -> None:
        """A message has come."""


class _DtlsSide:
    """What RTCSctpTransport uses of an RTCDtlsTransport."""

    def __init__(self, session: Session, wake: Callable[[], None]) -> None:
        self.state = "connected"
        self._role = "client" if session.we_are_client else "server"
        self._session = session
        self._wake = wake

    def _register_data_receiver(self, receiver: object) -> None:
        pass  # DataChannels hands packets over itself

    def _unregister_data_receiver(self, receiver: object) -> None:
        pass

    async def _send_data(self, data: bytes) -> None:
        if self.state == "connected":
            self._session.send_sctp(data, time.monotonic())
            self._wake()


class DataChannel:
    """A channel as a backend sees it."""

    def __init__(self, channel: RTCDataChannel) -> None:
        self._channel = channel

    @property
    def label(self) -> str:
        """The name that its opener gave it."""
        return self._channel.label

    def send(self, message: Message) -> bool:
        """Queue a message; False if it is too long, the channel closed, or too much waits already."""
        if self._channel.readyState != "open" or self._channel.bufferedAmount > MAX_QUEUED_BYTES:
            return False
        try:
            self._channel.send(message)
        except ValueError:
            return False
        return True


class DataChannels:
    """The SCTP association of one call, from its DTLS handshake to its end."""

    def __init__(self, session: Session, listener: ChannelListener, wake: Callable[[], None]) -> None:
        self._session = session
        self._listener = listener
        self._side = _DtlsSide(session, wake)
        self._association = RTCSctpTransport(self._side, port=SCTP_PORT)  # type: ignore[arg-type]  # by duck typing
        self._association.on("datachannel", self._on_channel)
        self._channels = 0
        agreed = session.agreed
        self._step(
            self._association.start(RTCSctpCapabilities(maxMessageSize=agreed.max_message_bytes), agreed.sctp_port)
        )

    def receive(self, packet: bytes) -> None:
        """Take one SCTP packet of the client."""
        if self._side.state != "connected":
            return
        self._step(self._association._handle_data(packet))  # noqa: SLF001  # aiortc's own seam has this name
        if self._association._advertised_rwnd < -MAX_UNFINISHED_BYTES:  # noqa: SLF001
            log.info("call %s: SCTP ended: the client ignores our window", self._session.agreed.call_id)
            self.close()

    def flush(self) -> None:
        """Send what was said just now, before the loop comes to it."""
        if self._side.state == "connected":
            self._step(self._association._data_channel_flush())  # noqa: SLF001

    def close(self) -> None:
        """Abort the association and cancel its timers."""
        if self._side.state == "connected":
            self._step(self._association.stop())
            self._side.state = "closed"

    def _step(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            work.send(None)
        except StopIteration:
            return
        except Exception as error:  # a packet from outside: aiortc asserts what a peer should not do
            log.debug("call %s: SCTP packet refused: %r", self._session.agreed.call_id, error)
            return
        work.close()
        raise RuntimeError("aiortc's SCTP waited for something: it was written for a version that does not")

    def _on_channel(self, channel: RTCDataChannel) -> None:
        self._channels += 1
        if self._channels > MAX_CHANNELS:
            channel.close()
            return
        ours = DataChannel(channel)

        def on_message(message: Message) -> None:
            if self._session.note_message(time.monotonic()):
                self._listener.on_data(ours, message)

        channel.on("message", on_message)
        self._listener.on_channel(ours)

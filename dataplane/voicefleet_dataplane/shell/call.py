"""One running call: joins the session on the wire, its data channels and its backend.

Owns: who is told what, and that a backend's mistake ends its own call and nothing else. Does not own: any of the three.
"""

import logging
from collections.abc import Callable

from voicefleet_dataplane.core.session import EndReason, Session
from voicefleet_dataplane.media.backend import BackendFactory, Channel, Message
from voicefleet_dataplane.shell.sctp import DataChannels
from voicefleet_dataplane.wire.rtp import RtpPacket

log = logging.getLogger("voicefleet.transceiver")


class RunningCall:
    """Listener of a session and Call of a backend."""

    def __init__(
        self,
        session: Session,
        make_backend: BackendFactory,
        wake: Callable[[], None],
        ended: Callable[["RunningCall"], None],
    ) -> None:
        self.session = session
        self._wake = wake
        self._ended = ended
        self._channels: DataChannels | None = None
        self._backend = make_backend(self)
        session.attach(self)

    # ---- what the backend may do

    @property
    def call_id(self) -> str:
        """Which call it is."""
        return self.session.agreed.call_id

    def send_audio(self, payload: bytes, sequence: int, timestamp: int, *, marker: bool = False) -> bool:
        """Send one Opus packet."""
        sent = self.session.send_audio(payload, sequence, timestamp, marker=marker)
        self._wake()
        return sent

    def hang_up(self) -> None:
        """End the call."""
        self.session.end(EndReason.HANG_UP)
        self._wake()

    # ---- what the session says

    def on_connected(self) -> None:
        """DTLS is up: open SCTP, tell the backend."""
        if self.session.agreed.with_data:
            self._channels = DataChannels(self.session, self, self._wake)
        self._guard(self._backend.on_connected)

    def on_audio(self, packet: RtpPacket) -> None:
        """The hot path: straight to the backend."""
        try:
            self._backend.on_audio(packet)
        except Exception as error:
            self._fail(error)

    def on_sctp(self, packet: bytes) -> None:
        """To SCTP, if data channels were offered."""
        if self._channels is not None:
            self._channels.receive(packet)

    def on_ended(self, reason: EndReason) -> None:
        """Put everything away."""
        if self._channels is not None:
            self._channels.close()
            self._channels = None
        self._guard(self._backend.on_ended)
        self._ended(self)
        self._wake()

    # ---- what the data channels say

    def on_channel(self, channel: Channel) -> None:
        """To the backend."""
        self._guard(lambda: self._backend.on_channel(channel))

    def on_data(self, channel: Channel, message: Message) -> None:
        """To the backend."""
        self._guard(lambda: self._backend.on_data(channel, message))

    def _guard(self, tell: Callable[[], None]) -> None:
        try:
            tell()
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        log.error("call %s: its backend failed", self.call_id, exc_info=error)
        self.session.end(EndReason.BACKEND_FAILED)
        self._wake()

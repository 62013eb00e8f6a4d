"""One running call: joins the session on the wire, its data channels, its events and its backend.

Owns: who is told what, and that a backend's mistake ends its own call and nothing else. Does not own: any of the four.
"""

import datetime as dt
import logging
from collections.abc import Callable

from voicefleet_contract.drops import DropReason
from voicefleet_dataplane.core.call.model import EndReason, SessionState
from voicefleet_dataplane.core.call.session import Session
from voicefleet_dataplane.media.backend import (
    BackendFactory,
    CallConfig,
    Channel,
    Digit,
    Ending,
    Message,
    RateHz,
    Voice,
    VoiceListener,
)
from voicefleet_dataplane.media.dtmf import DtmfReceiver
from voicefleet_dataplane.media.event_channels import EventChannels
from voicefleet_dataplane.media.event_errors import build_notice
from voicefleet_dataplane.media.events import EventHub
from voicefleet_dataplane.media.listening import Audience
from voicefleet_dataplane.media.outgoing import Codec
from voicefleet_dataplane.media.rtvi import CHAT_LABEL, Rtvi
from voicefleet_dataplane.media.voice import CallVoice, Clock
from voicefleet_dataplane.shell.transceiver.data_channels import DataChannels
from voicefleet_dataplane.wire.rtp import RtpPacket

_LIMITS = frozenset({EndReason.IDLE, EndReason.ABANDONED, EndReason.SRTP_FAILED, EndReason.MAX_DURATION})

log = logging.getLogger("voicefleet.transceiver")

_NOBODY_LISTENS = frozenset({EndReason.REPLACED, EndReason.CLOSED_BY_CLIENT, EndReason.CONSENT_EXPIRED})


class RunningCall:
    """Listener of a session and Call of a backend. `hub` is where a sideband attaches."""

    def __init__(
        self,
        session: Session,
        config: CallConfig,
        make_backend: BackendFactory,
        codec: Codec,
        clock: Clock,
        wake: Callable[[], None],
        ended: Callable[["RunningCall"], None],
    ) -> None:
        self.session = session
        self.config = config
        self.hub = EventHub(self._on_event)
        self._codec = codec
        self._clock = clock
        self._wake = wake
        self._ended = ended
        self._voice: CallVoice | None = None
        self._channels: DataChannels | None = None
        self._chat_channel: Channel | None = None
        self._rtvi: Rtvi | None = None
        self._was_connected = False
        self._keypad = DtmfReceiver()
        self.audience = Audience()
        self._backend = make_backend(self)
        self._event_channels = self._new_event_channels()
        session.attach(self)

    # ---- what the backend may do

    @property
    def call_id(self) -> str:
        """Which call it is."""
        return self.session.agreed.call_id

    def open_voice(self, rate: RateHz, listener: VoiceListener, hear: RateHz | None = None) -> Voice:
        """Hear and speak in PCM, or speak in Opus on our clock."""
        if self._voice is not None:
            raise RuntimeError("a call has one voice")
        self._voice = CallVoice(
            rate,
            _Guarded(listener, self._fail),
            self.send_audio,
            self._codec,
            self._clock,
            lambda: self.session.sending.loss,
            hear,
            lambda: self.session.agreed.wishes,
        )
        return self._voice

    def voice_counts(self) -> dict[str, int]:
        """What became of the client's packets on their way to a listener; empty without a voice."""
        return self._voice.counts() if self._voice is not None and self._voice.wants_packets else {}

    def send_audio(self, payload: bytes, sequence: int, timestamp: int, *, marker: bool = False) -> bool:
        """Send one Opus packet."""
        sent = self.session.send_audio(payload, sequence, timestamp, marker=marker)
        sent |= self.audience.hear(payload, sequence, timestamp, marker=marker)
        self._wake()
        return sent

    def send_event(self, event: str) -> bool:
        """Tell the client and whoever watches."""
        return self.hub.tell(event)

    @property
    def is_behind(self) -> bool:
        """Whether so much waits for the client's data channels that whoever speaks to it should wait."""
        return self._channels is not None and self._channels.is_behind

    def hang_up(self, ending: Ending = Ending.HANG_UP, detail: str = "") -> None:
        """End the call."""
        self.session.end(EndReason(ending.value), detail)
        self._wake()

    # ---- what the session says

    def on_connected(self) -> None:
        """DTLS is up: open SCTP, tell the backend."""
        self.on_agreed()
        if not self._was_connected:
            self._was_connected = True
            self._guard(self._backend.on_connected)

    def move(self, session: Session) -> None:
        """The client has another peer connection: its agent and whoever watches or listens notice silence, and nothing else."""
        if self._channels is not None:
            self._channels.close()
            self._channels = None
        if self._rtvi is not None:
            self.hub.unwatch(self._rtvi)
            self._rtvi = None
        self.hub.close_channel()
        self._chat_channel = None
        self._event_channels = self._new_event_channels()
        self._keypad = DtmfReceiver()
        self.session = session
        session.attach(self)

    def on_agreed(self) -> None:
        """An offer has been answered: it may be the first one with data channels."""
        session = self.session
        if session.agreed.with_data and self._channels is None and session.state is SessionState.CONNECTED:
            self._channels = DataChannels(session, self, self._wake)

    def on_audio(self, packet: RtpPacket) -> None:
        """The hot path: straight to the backend, or to its voice."""
        voice = self._voice
        try:
            if voice is not None and voice.wants_packets:
                voice.receive(packet)
            else:
                self._backend.on_audio(packet)
        except Exception as error:
            self._fail(error)

    def on_padding(self, packet: RtpPacket) -> None:
        """No audio: its number is not missing, and that is all."""
        if self._voice is not None and self._voice.wants_packets:
            self._voice.receive(packet, is_audio=False)

    def on_telephone_event(self, packet: RtpPacket) -> None:
        """A packet of the keypad; to the backend when a press is complete."""
        self.on_padding(packet)
        digit = self._keypad.receive(packet, self.session.agreed.telephone_event_hz)
        if digit is not None:
            self._guard(lambda: self._backend.on_digit(digit))

    def on_sctp(self, packet: bytes) -> DropReason | None:
        """To SCTP, if data channels were offered."""
        if self._channels is None:
            return None
        dropped = self._channels.receive(packet)
        self.hub.flush()
        return dropped

    def on_ends_soon(self, reason: EndReason, seconds: float) -> None:
        """Warn the client, and whoever watches."""
        self.hub.tell(build_notice("voicefleet.call.ends_soon", reason=reason.value, seconds=round(seconds, 1)))
        self._wake()

    def on_ending(self) -> bool:
        """Close the data channels after what waits in them, an error event perhaps: True while that is under way."""
        if self._channels is None or self.session.end_reason in _NOBODY_LISTENS:
            return False
        reason = self.session.end_reason
        if reason in _LIMITS:
            self.hub.tell(build_notice("voicefleet.call.ended", reason=reason.value))
        if self._rtvi is not None:
            self._rtvi.say_goodbye()
        self.hub.flush()
        return self._channels.close_all()

    def on_left(self) -> None:
        """SCTP's last word is ABORT, before DTLS says its own. A client that is in another call already is told nothing."""
        if self._channels is not None:
            self._channels.close(silently=self.session.end_reason is EndReason.REPLACED)
            self._channels = None

    def on_ended(self, reason: EndReason) -> None:
        """Put everything away that is not for the client's last second."""
        if self._voice is not None:
            self._voice.close()
        self._guard(self._backend.on_ended)
        self.hub.close()
        self.audience.close()
        self._ended(self)
        self._wake()

    # ---- what the data channels say

    def on_all_closed(self) -> None:
        """Each channel is closed on both sides: if the call is over, the client knows."""
        self.session.leave()

    def on_client_left(self) -> None:
        """The client has hung up: libdatachannel and werift say so, and often or never close_notify."""
        self.session.end(EndReason.CLOSED_BY_CLIENT)
        self.session.leave()

    def on_channel(self, channel: Channel) -> None:
        """The chat to who translates it, the events' channel to the hub, every other one to a backend that takes it."""
        if channel.label == CHAT_LABEL and self.config.chat == "rtvi":
            self._join_chat(channel)
        elif not self._event_channels.open(channel):
            self._guard(lambda: self._backend.on_channel(channel))

    def on_data(self, channel: Channel, message: Message) -> None:
        """By the hub if it is an event, straight to a backend that takes other channels."""
        if channel is self._chat_channel and self._rtvi is not None:
            self._rtvi.on_message(message)
        elif not self._event_channels.hear(channel, message):
            self._guard(lambda: self._backend.on_data(channel, message))

    def _new_event_channels(self) -> EventChannels:
        return EventChannels(self.hub, backend_takes=self._backend.takes_channels)

    def _join_chat(self, channel: Channel) -> None:
        """A second channel of that name takes the first one's place."""
        if self._rtvi is not None:
            self.hub.unwatch(self._rtvi)
        self._chat_channel = channel
        self._rtvi = Rtvi(channel, self, lambda: dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"))
        self.hub.watch(self._rtvi)

    def hear(self, event: str) -> None:
        """The chat says something to the backend."""
        self.hub.hear(event)

    def press(self, digit: Digit) -> None:
        """The chat presses a key."""
        self._guard(lambda: self._backend.on_digit(digit))

    def leave(self) -> None:
        """The chat asks for the end."""
        self.hang_up(Ending.HANG_UP, "the client asked for it")

    def _on_event(self, event: str) -> None:
        self._guard(lambda: self._backend.on_event(event))

    def _guard(self, tell: Callable[[], None]) -> None:
        try:
            tell()
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        log.error("call %s: its backend failed", self.call_id, exc_info=error)
        self.session.end(EndReason.BACKEND_FAILED, repr(error))
        self._wake()


class _Guarded:
    """A listener whose mistakes end its own call."""

    def __init__(self, listener: VoiceListener, fail: Callable[[Exception], None]) -> None:
        self._listener = listener
        self._fail = fail

    def on_speech(self, pcm: bytes) -> None:
        try:
            self._listener.on_speech(pcm)
        except Exception as error:
            self._fail(error)

    def on_playing(self, tag: str) -> None:
        self._tell(lambda: self._listener.on_playing(tag))

    def on_mark(self, name: str) -> None:
        self._tell(lambda: self._listener.on_mark(name))

    def on_silent(self) -> None:
        self._tell(self._listener.on_silent)

    def _tell(self, tell: Callable[[], None]) -> None:
        try:
            tell()
        except Exception as error:
            self._fail(error)

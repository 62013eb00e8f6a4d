"""A call whose backend is an agent behind a WebSocket: carries a protocol core's actions out, and decides what failure means.

The line is opened when the call is made: by the time ICE and DTLS are through, it stands. What the client says before that is
kept, the last two seconds of it.

Owns: the joining of call, voice, protocol and line; strikes; what happens when the line is lost. Does not own: any of the four.
Invariants
- Whatever an agent does, its own call ends with a reason that names it, and no other call notices.
- The client is told of every failure by an `error` event before its call ends.
"""

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from voicefleet_dataplane.media.agent import (
    Actions,
    AgentError,
    AgentProtocol,
    Clear,
    End,
    Forgive,
    Mark,
    Say,
    Send,
    Tell,
)
from voicefleet_dataplane.media.backend import Backend, Call, CallConfig, Digit, Ending, Message
from voicefleet_dataplane.media.event_errors import build_error
from voicefleet_dataplane.shell.agents.connection import AgentLink, LinkListener, Lost
from voicefleet_dataplane.wire.rtp import RtpPacket

log = logging.getLogger("voicefleet.transceiver")

MAX_STRIKES = 16  # messages a minute that the protocol does not allow, before we stop believing that it is the protocol
MAX_FORGIVEN = 6_000  # a minute, of what media/forgiven.py lists: twice the frames of speech
_WINDOW_S = 60.0
MAX_HELD = 64  # events and keys of the client, until the line stands
MAX_EARLY = 100  # of the client's first words, until the line stands: two seconds
_ENDINGS = {Lost.CLOSED: Ending.HANG_UP, Lost.AWAY: Ending.BACKEND_CLOSED, Lost.FAILED: Ending.BACKEND_FAILED}


class _EndMark(str):
    """Our own mark; an agent's can have the same letters, but not this type."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class FailurePolicy:
    """What a lost line means."""

    connect_within_s: float = 5.0
    reconnect_within_s: float = 0.0  # 0: the call ends


class AgentBackend(Backend):
    """One call's agent."""

    def __init__(
        self,
        call: Call,
        make_protocol: Callable[[CallConfig], AgentProtocol],
        open_link: Callable[[LinkListener, tuple[str, ...], float], AgentLink],
        policy: FailurePolicy,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._call = call
        self._make_protocol = make_protocol
        self._policy = policy
        self._protocol = make_protocol(call.config)
        self._voice = call.open_voice(self._protocol.rate, self)
        self._clock = clock
        self._window_at = clock()
        self._strikes = self._forgiven = 0  # in this window
        self._has_struck = self._has_forgiven = False
        self._ended = False
        self._ending: End | None = None
        self._is_open = False
        self._held: deque[str | Digit] = deque()
        self._early: deque[bytes | RtpPacket] = deque(maxlen=MAX_EARLY)
        self._link = open_link(self, self._protocol.subprotocols, policy.connect_within_s)

    # ---- what the call says

    def on_audio(self, packet: RtpPacket) -> None:
        """A packet as it is (Opus only)."""
        if self._is_open:
            self._link.send_speech(self._protocol.packet(packet))
        else:
            self._early.append(packet)

    def on_digit(self, digit: Digit) -> None:
        """A key."""
        if self._is_open:
            self._do(self._protocol.digit(digit))
        else:
            self._hold(digit)

    def on_event(self, event: str) -> None:
        """An event of the client."""
        if self._is_open:
            self._do(self._protocol.event(event))
        else:
            self._hold(event)

    def on_ended(self) -> None:
        """Last words, and the line is closed."""
        self._ended = True
        if self._is_open:
            for action in self._protocol.close("call ended"):
                if isinstance(action, Send):
                    self._link.send(action.message)
        self._link.close()

    # ---- what the voice says

    def on_speech(self, pcm: bytes) -> None:
        """The client's next samples."""
        if not self._is_open:
            self._early.append(pcm)
            return
        for message in self._protocol.speech(pcm):
            self._link.send_speech(message)

    def on_playing(self, tag: str) -> None:
        """The voice has begun."""
        self._do(self._protocol.playing(tag))

    def on_mark(self, name: str) -> None:
        """The voice has come to a mark."""
        if isinstance(name, _EndMark):
            self._end_now()
        else:
            self._do(self._protocol.marked(name))

    def on_silent(self) -> None:
        """Nothing waits."""

    # ---- what the line says

    def on_open(self) -> None:
        """First words."""
        self._is_open = True
        self._do(self._protocol.open())
        while self._held:
            held = self._held.popleft()
            self._do(self._protocol.digit(held) if isinstance(held, Digit) else self._protocol.event(held))
        while self._early:
            early = self._early.popleft()
            if isinstance(early, bytes):
                self.on_speech(early)
            else:
                self.on_audio(early)

    def on_message(self, message: Message) -> None:
        """A message of the agent."""
        if self._ended:
            return
        try:
            actions = self._protocol.receive(message)
        except AgentError as error:
            self._strike(str(error))
            return
        self._do(actions)

    def on_lost(self, how: Lost, detail: str) -> None:
        """The line is gone: end, or try again."""
        if self._ended:
            return
        was_open, self._is_open = self._is_open, False
        if how is Lost.CLOSED:  # it has said what it had to say: let it be heard
            self._end_when_said(End(Ending.HANG_UP, detail))
            return
        if was_open and self._policy.reconnect_within_s:
            log.info("call %s: its agent is lost (%s), trying again", self._call.call_id, detail)
            self._tell_error("agent_lost", f"the agent is lost ({detail}); trying to reach it again")
            self._voice.clear()
            self._protocol = self._make_protocol(self._call.config)
            self._link.reopen(self._policy.reconnect_within_s)
            return
        self._tell_error(_ENDINGS[how].value, f"the call ends: {detail}")
        self._ending = End(_ENDINGS[how], detail)
        self._end_now()

    def is_full(self) -> bool:
        """Whether the agent should wait."""
        return self._voice.is_full or self._call.is_behind

    # ---- inside

    def _do(self, actions: Actions) -> None:
        for action in actions:
            if self._ended:
                return
            match action:
                case Send(message):
                    if not self._link.send(message):
                        self._fail("the agent does not read what it is sent")
                case Say(audio, tag):
                    if not self._voice.say(audio, tag):
                        self._fail("the agent says more than anybody could hear")
                case Mark(name):
                    if not self._voice.mark(name):
                        self._strike("more marks than can be waited for")
                case Clear():
                    self._clear()
                case Tell(event):
                    self._call.send_event(event)
                case End():
                    self._end_when_said(action)
                case Forgive(what):
                    self._forgive(what)

    def _clear(self) -> None:
        was_speaking = self._voice.queued_ms > 0
        cleared = self._voice.clear()
        marks = tuple(name for name in cleared.marks if not isinstance(name, _EndMark))
        self._do(self._protocol.cleared(replace(cleared, marks=marks), was_speaking=was_speaking))
        if self._ending is not None:  # nobody wants to hear the rest
            self._end_now()

    def _hold(self, said: str | Digit) -> None:
        """The protocol's first words come first."""
        if len(self._held) >= MAX_HELD:
            self._tell_error("agent_not_ready", "the agent's line does not stand yet, and too much waits for it")
        else:
            self._held.append(said)

    def _strike(self, what: str) -> None:
        self._turn_window()
        self._strikes += 1
        if not self._has_struck:
            self._has_struck = True
            log.warning("call %s: its agent sends what its protocol does not allow: %s", self._call.call_id, what)
        if self._strikes > MAX_STRIKES:
            self._fail(f"the agent does not keep to its protocol: {what}")
        else:
            self._tell_error("agent_malformed_message", f"the agent sent something malformed: {what}")

    def _forgive(self, what: str) -> None:
        self._turn_window()
        self._forgiven += 1
        if not self._has_forgiven:
            self._has_forgiven = True
            log.info("call %s: its agent is forgiven: %s", self._call.call_id, what)
        if self._forgiven > MAX_FORGIVEN:
            self._fail(f"the agent has been forgiven {MAX_FORGIVEN} times in a minute: {what}")

    def _turn_window(self) -> None:
        now = self._clock()
        if now - self._window_at >= _WINDOW_S:
            self._window_at = now
            self._strikes = self._forgiven = 0

    def _fail(self, detail: str) -> None:
        self._tell_error(Ending.BACKEND_FAILED.value, f"the call ends: {detail}")
        self._ending = End(Ending.BACKEND_FAILED, detail)
        self._end_now()

    def _end_when_said(self, end: End) -> None:
        if self._ending is None:
            self._ending = end
            if not self._voice.mark(_EndMark("end")):
                self._end_now()

    def _end_now(self) -> None:
        end = self._ending
        if end is not None and not self._ended:
            self._call.hang_up(end.ending, end.detail)

    def _tell_error(self, code: str, message: str) -> None:
        self._call.send_event(build_error(code, message, kind="server_error"))

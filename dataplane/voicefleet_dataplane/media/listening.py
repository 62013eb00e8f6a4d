"""Listeners: sessions that hear the agent of another call of the same transceiver (WHEP).

What goes out to a call's client goes out to its listeners too, packet by packet: nothing is decoded, coded or queued.

Owns: who listens, how many may, and that a listener ends with the call. Does not own: sessions, the agent.
Invariant: a listener's trouble never reaches the call that it hears.
"""

import logging

from voicefleet_dataplane.media.backend import Backend, Call, Ending

log = logging.getLogger("voicefleet.transceiver")

MAX_LISTENERS = 16


class Audience:
    """The listeners of one call."""

    __slots__ = ("_listeners",)

    def __init__(self) -> None:
        self._listeners: tuple[Listener, ...] = ()  # replaced, never changed: the loop below may lose some

    @property
    def is_full(self) -> bool:
        """Nobody else may listen."""
        return len(self._listeners) >= MAX_LISTENERS

    def join(self, call: Call) -> Backend:
        """Make the backend of a session that listens."""
        listener = Listener(call, self)
        self._listeners = (*self._listeners, listener)
        return listener

    def leave(self, listener: "Listener") -> None:
        """Tell one nothing more."""
        self._listeners = tuple(one for one in self._listeners if one is not listener)

    def hear(self, payload: bytes, sequence: int, timestamp: int, *, marker: bool) -> bool:
        """The agent says a packet; whether anybody got it."""
        heard = False
        for listener in self._listeners:
            heard |= listener.hear(payload, sequence, timestamp, marker=marker)
        return heard

    def close(self) -> None:
        """The call is over, and so are they."""
        listeners, self._listeners = self._listeners, ()
        for listener in listeners:
            listener.end()


class Listener(Backend):
    """What stands behind a session that listens: another call's agent."""

    __slots__ = ("_audience", "_call", "_heard")

    def __init__(self, call: Call, audience: Audience) -> None:
        self._call = call
        self._audience = audience
        self._heard = False

    def hear(self, payload: bytes, sequence: int, timestamp: int, *, marker: bool) -> bool:
        """Send it on; the first packet is the beginning of speech for whoever came into the middle of it."""
        try:
            sent = self._call.send_audio(payload, sequence, timestamp, marker=marker or not self._heard)
        except Exception as error:
            log.error("call %s: a listener failed", self._call.call_id, exc_info=error)
            self._audience.leave(self)
            self.end()
            return False
        self._heard |= sent
        return sent

    def end(self) -> None:
        """There is nothing more to hear."""
        self._call.hang_up(Ending.HANG_UP, "the call that it listened to has ended")

    def on_ended(self) -> None:
        """Listen no more."""
        self._audience.leave(self)

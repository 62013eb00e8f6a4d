"""The parts of one association, and how it gets from state to state (RFC 9260 section 4).

Owns: the state and what begins and ends with it. Does not own: what leads to a change (incoming.py, association.py).
"""

from collections.abc import Callable

from voicefleet_dataplane.core.call.sctp import chunks as c
from voicefleet_dataplane.core.call.sctp.congestion import RTO_INITIAL_S
from voicefleet_dataplane.core.call.sctp.events import Ended, Event, PeerReset, Restarted, State, StreamReset, Up
from voicefleet_dataplane.core.call.sctp.handshake import Cookie, Ends, Meaning, judge_cookie
from voicefleet_dataplane.core.call.sctp.heartbeat import Heartbeat
from voicefleet_dataplane.core.call.sctp.inbound import Inbound
from voicefleet_dataplane.core.call.sctp.meter import Meter
from voicefleet_dataplane.core.call.sctp.outbound import Outbound
from voicefleet_dataplane.core.call.sctp.outbox import PAYLOAD_BYTES, Outbox
from voicefleet_dataplane.core.call.sctp.reconfiguration import Reconfiguration
from voicefleet_dataplane.core.call.sctp.setup import Setup

_COMING_UP = frozenset({State.CLOSED, State.COOKIE_WAIT, State.COOKIE_ECHOED})


class Life:
    """The parts; `events` is what the user is to be told."""

    def __init__(
        self, ports: tuple[int, int], max_message_bytes: int, random_bytes: Callable[[int], bytes], now: float
    ) -> None:
        self.meter = Meter()
        self.state = State.CLOSED
        self.events: list[Event] = []
        self.outbox = Outbox(ports)
        self.setup = Setup(self.outbox, random_bytes)
        self.heartbeat = Heartbeat(random_bytes, now)
        self.peer_resets = False  # it knows RE-CONFIG
        self.shutdown_at: float | None = None  # when SHUTDOWN ACK goes again
        self._max_message_bytes = max_message_bytes
        self._begin(self.setup.our_tsn, 0)

    def _begin(self, our_tsn: int, peers_tsn: int) -> None:
        self.outbound = Outbound(self.meter, our_tsn, PAYLOAD_BYTES)
        self._face(peers_tsn)

    def _face(self, peers_tsn: int) -> None:
        self.inbound = Inbound(self.meter, peers_tsn, self._max_message_bytes)
        self.reconfiguration = Reconfiguration(self.meter, self.setup.our_tsn, peers_tsn)

    def agree(self, ends: Ends) -> None:
        """Take what INIT ACK or a cookie says of the peer. Messages that wait already go to it."""
        self.outbox.peers_tag = ends.peers_tag
        self.outbound.peer_window = ends.window
        self.outbound.sent.partial = ends.partial
        self.peer_resets = ends.reconfig
        wanted = self.reconfiguration.wanted()
        self._face(ends.peers_tsn)
        for stream in wanted:
            self.reconfiguration.reset(stream)

    def up(self, now: float) -> None:
        """Both ends have proved themselves."""
        self.setup.done()
        self.state = State.ESTABLISHED
        self.heartbeat.heard(now)
        self.events.append(Up())

    def take_cookie(self, cookie: Cookie, now: float) -> bool:
        """Do what a cookie of ours asks for; False for nothing."""
        meaning = judge_cookie(cookie, self.setup.our_tag, self.outbox.peers_tag)
        if meaning is Meaning.NOTHING or (meaning is Meaning.COLLISION and self.state not in _COMING_UP):
            return False
        if meaning is Meaning.RESTART and self.state is State.SHUTDOWN_ACK_SENT:
            self.outbox.put(c.build_chunk(c.SHUTDOWN_ACK))
            self.outbox.put(c.build_causes(c.ERROR, c.COOKIE_WHILE_SHUTTING_DOWN))
            return True
        if meaning is Meaning.RESTART:
            self.setup.our_tag, self.setup.our_tsn = cookie.ends.our_tag, cookie.ends.our_tsn
            self.outbox.control.clear()
            self._begin(cookie.ends.our_tsn, cookie.ends.peers_tsn)
            self.events.append(Restarted())
        self.outbox.put(c.build_chunk(c.COOKIE_ACK))
        if self.state in _COMING_UP or meaning is Meaning.RESTART:
            self.agree(cookie.ends)
            self.up(now)
        return True

    def note_resets(self) -> None:
        """Do what RE-CONFIG has settled."""
        reconfiguration = self.reconfiguration
        for streams in reconfiguration.reset_by_peer:
            self.inbound.messages.reset(streams)
            self.events.append(PeerReset(tuple(streams)))
        for stream, was_reset in reconfiguration.finished:
            if was_reset:
                self.outbound.reset_stream(stream)
            self.events.append(StreamReset(stream))
        reconfiguration.reset_by_peer.clear()
        reconfiguration.finished.clear()

    def finish_shutdown(self, now: float) -> None:
        """The peer has said SHUTDOWN: agree when it has all that we sent (section 9.2)."""
        if self.state is State.SHUTDOWN_RECEIVED and self.outbound.is_empty:
            self.state = State.SHUTDOWN_ACK_SENT
            self.send_shutdown_ack(now)

    def send_shutdown_ack(self, now: float) -> None:
        """Say it, again and again until it is answered."""
        self.outbox.put(c.build_chunk(c.SHUTDOWN_ACK))
        self.shutdown_at = now + RTO_INITIAL_S

    def abort(self, reason: str, cause: int = c.USER_ABORT) -> None:
        """End it at once, and tell the peer why."""
        if self.state not in {State.ENDED, State.CLOSED, State.COOKIE_WAIT}:
            chunk = c.build_causes(c.ABORT, cause, reason.encode()[:64])
            self.outbox.send_alone(chunk, self.outbox.peers_tag)
        self.end(reason)

    def end(self, reason: str) -> None:
        """It is over: nothing is kept but the peer's messages that nobody has taken, and what is to be sent at once."""
        if self.state is State.ENDED:
            return
        self.state = State.ENDED
        self.setup.done()
        self.shutdown_at = None
        self.outbox.control.clear()
        self.outbound = Outbound(self.meter, self.setup.our_tsn, PAYLOAD_BYTES)
        self.reconfiguration = Reconfiguration(self.meter, self.setup.our_tsn, 0)
        self.inbound.sack_at = None
        self.events.append(Ended(reason))

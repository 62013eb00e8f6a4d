"""One SCTP association over DTLS (RFC 9260, RFC 8261), sans-IO: packets and time in, packets and events out.

::

              connect            INIT ACK              COOKIE ACK
    CLOSED ────────────▶ COOKIE_WAIT ───▶ COOKIE_ECHOED ────────▶ ESTABLISHED ──SHUTDOWN──▶ SHUTDOWN_RECEIVED
       └──────────────────────┴── COOKIE ECHO ──┴──────────────────▲   │                           │ all acknowledged
                                                                       │ ABORT, no answer,         ▼
                                                                       ▼ violation          SHUTDOWN_ACK_SENT
                                                                     ENDED ◀───SHUTDOWN COMPLETE───┘

What each chunk does in each state: incoming.py. We never say SHUTDOWN: whoever ends a call cannot wait for it. Both sides say
INIT (RFC 8841 section 9.3), so collisions are the rule. A path is not probed: its MTU is fixed (core/call/dtls.py), and
there is one.

Owns: tags, packets, timers, what is exported. Does not own: channels (channels.py), encryption, a clock.

Invariants
- Nothing from outside raises; what breaks the rules ends this association.
- What a packet costs is bounded by its chunks and by what it releases, whatever came before (meter.py).
- No message that was accepted gets lost while the association lives, unless its sender allowed it.
"""

from collections.abc import Callable
from typing import Any

from voicefleet_dataplane.core.call.sctp import chunks as c
from voicefleet_dataplane.core.call.sctp.events import (
    Dropped,
    Event,
    State,
    StreamReset,
    export_event,
    restore_event,
)
from voicefleet_dataplane.core.call.sctp.incoming import answer_stranger, receive_chunks, receive_init
from voicefleet_dataplane.core.call.sctp.life import Life
from voicefleet_dataplane.core.call.sctp.meter import PACKET_STEPS
from voicefleet_dataplane.core.call.sctp.outstanding import Message
from voicefleet_dataplane.core.call.sctp.reassembly import Received

EXPORT_VERSION = 1
_CARRIES = frozenset({State.ESTABLISHED, State.SHUTDOWN_RECEIVED})


class Association:
    """Feed packets and time in; after each call take `events` and messages, and drain `poll`.

    ``ports`` are ours and the peer's. A message of the peer has at most ``max_message_bytes``.
    """

    def __init__(
        self, ports: tuple[int, int], max_message_bytes: int, random_bytes: Callable[[int], bytes], now: float
    ) -> None:
        self._life = Life(ports, max_message_bytes, random_bytes, now)

    # ---- what its user does

    def connect(self, now: float) -> None:
        """Call the peer, which may be calling us."""
        life = self._life
        if life.state is State.CLOSED:
            life.state = State.COOKIE_WAIT
            life.setup.start(now)

    def send(self, message: Message) -> bool:
        """Queue a message of at least one byte; False when none can be taken any more, or its stream is being reset."""
        life = self._life
        if self.peer_has_left:
            return False
        if life.reconfiguration.is_under_way(message.stream):
            return False
        life.outbound.queue(message)
        return True

    def take(self) -> Received | None:
        """Return the peer's next message. What is not taken closes the window."""
        return self._life.inbound.take()

    def take_events(self) -> list[Event]:
        """Return what has happened; taking forgets it. Messages that came before have been taken, or are lost with them."""
        events, self._life.events = self._life.events, []
        return events

    def reset_stream(self, stream: int) -> None:
        """Reset our side of a stream after all its messages; `StreamReset` says when that is done."""
        self._life.reconfiguration.reset(stream)

    def abort(self, reason: str) -> None:
        """End it at once, and tell the peer why."""
        self._life.abort(reason)

    @property
    def state(self) -> State:
        """Where it is."""
        return self._life.state

    @property
    def peer_has_left(self) -> bool:
        """Whether the peer takes nothing new."""
        return self._life.state in {State.SHUTDOWN_RECEIVED, State.SHUTDOWN_ACK_SENT, State.ENDED}

    @property
    def steps(self) -> int:
        """What it has cost so far (meter.py)."""
        return self._life.meter.steps

    @property
    def held_bytes(self) -> int:
        """What was sent and is not acknowledged, with 128 bytes for each message."""
        return self._life.outbound.held_bytes

    # ---- packets and time

    def receive(self, packet: bytes, now: float) -> Dropped | None:
        """Take a packet; gives why it was dropped, it or the first of its chunks that were."""
        life = self._life
        if not life.meter.may_go_on(now):
            return Dropped.TOO_MANY_STEPS
        life.meter.steps += PACKET_STEPS
        parsed = c.parse_packet(packet)
        if parsed is None:
            return Dropped.MALFORMED
        tag, chunks = parsed
        kind, flags, value = chunks[0]
        if life.state is State.ENDED:
            answer_stranger(life, tag, kind, value)
            return None
        if kind == c.INIT:
            return Dropped.MALFORMED if tag or len(chunks) > 1 else receive_init(life, value, now)
        is_reflected = kind in {c.ABORT, c.SHUTDOWN_COMPLETE} and flags & c.REFLECTED
        if tag != (life.outbox.peers_tag if is_reflected else life.setup.our_tag) and kind != c.COOKIE_ECHO:
            return Dropped.WRONG_TAG
        try:
            return receive_chunks(life, tag, chunks, now)
        except c.Violation as error:
            life.abort(str(error), c.VIOLATION)
            return Dropped.MALFORMED

    def poll(self, now: float) -> list[bytes]:
        """Return the packets that are due, each within the MTU of DTLS."""
        life = self._life
        carries = life.state in _CARRIES
        if carries:
            self._request_resets(now)
            life.outbound.begin(now)
            # Data takes an acknowledgement along that could have waited (RFC 9260 section 6.2).
            sack = life.inbound.sack(now, at_once=life.outbound.is_eager)
            if sack is not None:
                life.outbox.put(sack)
        while True:
            chunks: list[bytes] = []
            room = life.outbox.fill(chunks)
            if carries:
                life.outbound.fill(chunks, room, now)
            if not chunks:
                return life.outbox.take()
            life.outbox.close(chunks)

    def _request_resets(self, now: float) -> None:
        life = self._life
        wanted = life.reconfiguration.wanted()
        ready = [stream for stream in wanted if not life.outbound.is_queued(stream)]
        if ready and not life.peer_resets:
            life.reconfiguration.forget(ready)
            life.events.extend(StreamReset(stream) for stream in ready)
        elif ready:
            life.reconfiguration.request(ready, life.outbound.sent.next_tsn - 1)
        for chunk in life.reconfiguration.chunks(life.outbound.timeout.rto_s, now):
            life.outbox.put(chunk)

    def deadline(self) -> float | None:
        """When `advance` wants to be called."""
        life = self._life
        times = [life.setup.due_at, life.shutdown_at]
        if life.state in _CARRIES:
            times += [life.outbound.resend_at, life.inbound.sack_at, life.reconfiguration.repeat_at]
            times.append(life.heartbeat.due_at)
        due = [at for at in times if at is not None]
        return min(due) if due else None

    def advance(self, now: float) -> None:
        """Do what is due. An acknowledgement that is due is sent by `poll`."""
        life = self._life
        if _is_due(life.setup.due_at, now) and not life.setup.time_out(now):
            life.state = State.CLOSED
        if _is_due(life.shutdown_at, now):
            life.send_shutdown_ack(now)
            self._count_missed()
        if life.state not in _CARRIES:
            return
        if _is_due(life.outbound.resend_at, now):
            life.outbound.time_out(now)
            self._count_missed()
        if _is_due(life.reconfiguration.repeat_at, now):
            life.reconfiguration.time_out()
            if life.outbound.is_empty:  # else data has its own timer, and it counts
                life.outbound.timeout.back_off()
                self._count_missed()
        if _is_due(life.heartbeat.due_at, now):
            if life.heartbeat.is_waiting and life.outbound.is_empty:
                self._count_missed()
            life.outbox.put(c.build_chunk(c.HEARTBEAT, life.heartbeat.beat(life.outbound.timeout.rto_s, now)))

    def _count_missed(self) -> None:
        if self._life.heartbeat.missed():
            self._life.abort("the peer does not answer")

    # ---- its state elsewhere

    def export(self, now: float) -> dict[str, Any]:
        """Return all that `restore` needs: numbers, text, bytes, None, lists, and dicts by name."""
        life = self._life
        return {
            "version": EXPORT_VERSION,
            "now": now,
            "state": life.state.value,
            "events": [export_event(event) for event in life.events],
            "peer_resets": life.peer_resets,
            "shutdown_at": life.shutdown_at,
            "meter": life.meter.export(),
            "outbox": life.outbox.export(),
            "setup": life.setup.export(),
            "heartbeat": life.heartbeat.export(),
            "inbound": life.inbound.export(),
            "outbound": life.outbound.export(),
            "reconfiguration": life.reconfiguration.export(),
        }

    def restore(self, state: dict[str, Any], now: float) -> None:
        """Go on from an export, as a new association with the same arguments. The clock of before may have been another.

        Raises ValueError for another version.
        """
        if state["version"] != EXPORT_VERSION:
            raise ValueError(f"an association of version {state['version']}: this is version {EXPORT_VERSION}")
        life, shift_s = self._life, now - state["now"]
        life.state = State(state["state"])
        life.events = [restore_event(event) for event in state["events"]]
        life.peer_resets = state["peer_resets"]
        life.shutdown_at = None if state["shutdown_at"] is None else state["shutdown_at"] + shift_s
        life.meter.restore(state["meter"], shift_s)
        life.outbox.restore(state["outbox"])
        life.setup.restore(state["setup"], shift_s)
        life.heartbeat.restore(state["heartbeat"], shift_s)
        life.inbound.restore(state["inbound"], shift_s)
        life.outbound.restore(state["outbound"], shift_s)
        life.reconfiguration.restore(state["reconfiguration"], shift_s)


def _is_due(at: float | None, now: float) -> bool:
    return at is not None and now >= at

"""What each chunk of the peer does to an association, by state.

::

    chunk            taken in                                   otherwise
    INIT             every state; ENDED answers ABORT           SHUTDOWN_ACK_SENT repeats its SHUTDOWN ACK
    INIT ACK         COOKIE_WAIT                                silence
    COOKIE ECHO      as handshake.py's table says               silence, or ERROR for one that is too old
    COOKIE ACK       COOKIE_ECHOED                              silence
    DATA, RE-CONFIG, FORWARD-TSN   ESTABLISHED                  silence: the peer sends them again
    SACK             ESTABLISHED, SHUTDOWN_RECEIVED             silence
    SHUTDOWN         ESTABLISHED, SHUTDOWN_RECEIVED             SHUTDOWN_ACK_SENT repeats its SHUTDOWN ACK
    SHUTDOWN ACK     SHUTDOWN_ACK_SENT (both shut down)         silence
    SHUTDOWN COMPLETE   SHUTDOWN_ACK_SENT                       silence
    HEARTBEAT        from COOKIE_ECHOED on                      silence
    ABORT            from COOKIE_ECHOED on                      silence: who does not listen yet is asked again
    unknown          never: the first two bits of its type say whether the rest of the packet counts, and whether to report it

Owns: this table. Does not own: tags (association.py), what a change of state brings with it (life.py).
"""

from collections.abc import Callable

from voicefleet_dataplane.core.call.sctp import chunks as c
from voicefleet_dataplane.core.call.sctp.events import Dropped, PeerLeft, State
from voicefleet_dataplane.core.call.sctp.inbound import Taken
from voicefleet_dataplane.core.call.sctp.life import Life
from voicefleet_dataplane.core.call.sctp.outbox import PAYLOAD_BYTES

_MAX_REPORTS = 4  # of unknown chunks, to one packet
_CARRIES = frozenset({State.ESTABLISHED, State.SHUTDOWN_RECEIVED})


def receive_init(life: Life, value: bytes, now: float) -> Dropped | None:
    """Take an INIT, which is alone in its packet."""
    if life.state is State.SHUTDOWN_ACK_SENT:
        life.outbox.put(c.build_chunk(c.SHUTDOWN_ACK))
        return None
    return None if life.setup.receive_init(value, life.state, now) else Dropped.MALFORMED


def receive_chunks(life: Life, tag: int, chunks: list[c.Chunk], now: float) -> Dropped | None:
    """Take the chunks of a packet; gives why the first was dropped that was. Raises Violation."""
    dropped, reports, with_data = None, 0, False
    for at, (kind, flags, value) in enumerate(chunks):
        life.meter.steps += 1
        if kind == c.DATA:
            if life.state is not State.ESTABLISHED:
                continue
            refused = _data(life, flags, value)
            with_data = True
        elif kind == c.COOKIE_ECHO:
            refused = Dropped.WRONG_TAG if at else _cookie_echo(life, tag, value, now)
        elif kind == c.ABORT:
            refused = _abort(life, flags, value)
        elif kind in _HANDLERS:
            refused = _HANDLERS[kind](life, value, now)
        else:
            if kind & 0x40 and reports < _MAX_REPORTS:
                reports += 1
                unknown = c.build_chunk(kind, value[:64], flags)
                life.outbox.put(c.build_causes(c.ERROR, c.UNRECOGNIZED_CHUNK, unknown))
            if not kind & 0x80:
                break
            continue
        dropped = dropped or refused
        if life.state is State.ENDED:
            return dropped
    if with_data:
        life.inbound.end_packet(now)
    life.reconfiguration.carry_on(life.inbound.cumulative)
    life.note_resets()
    life.finish_shutdown(now)
    return dropped


def answer_stranger(life: Life, tag: int, kind: int, value: bytes) -> None:
    """Tell a peer that goes on that we do not (RFC 9260 section 8.4)."""
    if kind == c.INIT:
        init = c.parse_init(value)
        if init is not None and init.tag:
            life.outbox.send_alone(c.build_chunk(c.ABORT), init.tag)
    elif kind == c.SHUTDOWN_ACK:
        life.outbox.send_alone(c.build_chunk(c.SHUTDOWN_COMPLETE, flags=c.REFLECTED), tag)
    elif kind not in {c.ABORT, c.SHUTDOWN_COMPLETE, c.COOKIE_ACK, c.ERROR}:
        life.outbox.send_alone(c.build_chunk(c.ABORT, flags=c.REFLECTED), tag)


def _data(life: Life, flags: int, value: bytes) -> Dropped | None:
    parsed = c.parse_data(value)
    if parsed is None:
        raise c.Violation("a chunk of data is empty")
    taken = life.inbound.receive(flags, *parsed)
    if taken is Taken.NO_SUCH_STREAM:
        stream = parsed[1].to_bytes(2, "big") + bytes(2)
        life.outbox.put(c.build_causes(c.ERROR, c.INVALID_STREAM, stream))
    return None if taken in {Taken.TAKEN, Taken.DUPLICATE} else Dropped.NO_ROOM


def _sack(life: Life, value: bytes, now: float) -> Dropped | None:
    sack = c.parse_sack(value)
    if sack is None:
        return Dropped.MALFORMED
    # A closed window is an answer, too: probes go on as long as they are answered (section 6.1 A).
    if life.state in _CARRIES and (life.outbound.receive(sack, now) or sack.window < PAYLOAD_BYTES):
        life.heartbeat.heard(now)
    return None


def _forward_tsn(life: Life, value: bytes, now: float) -> Dropped | None:
    parsed = c.parse_forward_tsn(value)
    if parsed is None:
        return Dropped.MALFORMED
    if life.state is State.ESTABLISHED:
        life.inbound.forward(*parsed)
    return None


def _re_config(life: Life, value: bytes, now: float) -> Dropped | None:
    if life.state is not State.ESTABLISHED:
        return None
    if not life.reconfiguration.receive(value, life.inbound.cumulative):
        return Dropped.MALFORMED
    if life.reconfiguration.repeat_at is None:  # our request was answered, if there was one
        life.heartbeat.heard(now)
    life.note_resets()  # before data of a stream that begins anew
    return None


def _heartbeat(life: Life, value: bytes, now: float) -> Dropped | None:
    if life.outbox.peers_tag:
        life.outbox.put(c.build_chunk(c.HEARTBEAT_ACK, value))
    return None


def _heartbeat_ack(life: Life, value: bytes, now: float) -> Dropped | None:
    rtt_s = life.heartbeat.answered(value, now)
    if rtt_s is not None:
        life.outbound.timeout.measure(rtt_s)
    return None


def _abort(life: Life, flags: int, value: bytes) -> Dropped | None:
    """With a cause something has failed; reflected, the peer does not know this association; else it wants to go."""
    if life.state in {State.CLOSED, State.COOKIE_WAIT}:
        return None
    if life.state is State.ESTABLISHED and not value and not flags & c.REFLECTED:
        life.events.append(PeerLeft())
    life.end("aborted by the peer")
    return None


def _error(life: Life, value: bytes, now: float) -> Dropped | None:
    causes = c.parse_parameters(value)
    if causes is None:
        return Dropped.MALFORMED
    if life.state is State.COOKIE_ECHOED and any(code == c.STALE_COOKIE for code, _ in causes):
        life.state = State.COOKIE_WAIT
        life.setup.start(now)
    return None


def _init_ack(life: Life, value: bytes, now: float) -> Dropped | None:
    if life.state is not State.COOKIE_WAIT:
        return None
    ends = life.setup.receive_init_ack(value, now)
    if ends is None:
        return Dropped.MALFORMED
    life.agree(ends)
    life.state = State.COOKIE_ECHOED
    return None


def _cookie_echo(life: Life, tag: int, value: bytes, now: float) -> Dropped | None:
    cookie = life.setup.receive_cookie(value, tag, life.state, now)
    return None if cookie is not None and life.take_cookie(cookie, now) else Dropped.WRONG_TAG


def _cookie_ack(life: Life, value: bytes, now: float) -> Dropped | None:
    if life.state is State.COOKIE_ECHOED:
        life.up(now)
    return None


def _shutdown(life: Life, value: bytes, now: float) -> Dropped | None:
    if len(value) != 4:
        return Dropped.MALFORMED
    if life.state is State.SHUTDOWN_ACK_SENT:
        life.outbox.put(c.build_chunk(c.SHUTDOWN_ACK))
    elif life.state in _CARRIES:
        if life.state is State.ESTABLISHED:
            life.events.append(PeerLeft())
        life.state = State.SHUTDOWN_RECEIVED
        life.outbound.receive(c.Sack(int.from_bytes(value), life.outbound.peer_window, ()), now)
    return None


def _shutdown_ack(life: Life, value: bytes, now: float) -> Dropped | None:
    if life.state is State.SHUTDOWN_ACK_SENT:
        life.outbox.send_alone(c.build_chunk(c.SHUTDOWN_COMPLETE), life.outbox.peers_tag)
        life.end("shut down by the peer")
    return None


def _shutdown_complete(life: Life, value: bytes, now: float) -> Dropped | None:
    if life.state is State.SHUTDOWN_ACK_SENT:
        life.end("shut down by the peer")
    return None


_HANDLERS: dict[int, Callable[[Life, bytes, float], Dropped | None]] = {
    c.SACK: _sack,
    c.FORWARD_TSN: _forward_tsn,
    c.RE_CONFIG: _re_config,
    c.HEARTBEAT: _heartbeat,
    c.HEARTBEAT_ACK: _heartbeat_ack,
    c.ERROR: _error,
    c.INIT_ACK: _init_ack,
    c.COOKIE_ACK: _cookie_ack,
    c.SHUTDOWN: _shutdown,
    c.SHUTDOWN_ACK: _shutdown_ack,
    c.SHUTDOWN_COMPLETE: _shutdown_complete,
}

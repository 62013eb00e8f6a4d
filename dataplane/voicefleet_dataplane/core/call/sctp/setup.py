"""Bringing an association up, from our first INIT to the peer's cookie (RFC 9260 section 5).

Owns: our tag and TSN, the cookie key, INIT and COOKIE ECHO with their timer. Does not own: what the bytes mean
(handshake.py), the state (association.py).
"""

from collections.abc import Callable
from typing import Any

from voicefleet_dataplane.core.call.sctp import chunks as c
from voicefleet_dataplane.core.call.sctp.congestion import RTO_INITIAL_S, RTO_MAX_S
from voicefleet_dataplane.core.call.sctp.events import State
from voicefleet_dataplane.core.call.sctp.handshake import (
    COOKIE_LIFETIME_MS,
    HOST_NAME,
    MAX_STREAMS,
    STATE_COOKIE,
    UNRECOGNIZED,
    Cookie,
    Ends,
    agree,
    build_parameters_of_init,
    open_cookie,
    seal_cookie,
    unrecognized,
)
from voicefleet_dataplane.core.call.sctp.inbound import WINDOW_BYTES
from voicefleet_dataplane.core.call.sctp.outbox import Outbox

MAX_REPEATS = 15
_KEY_BYTES = 32


class Setup:
    """`due_at` is when INIT or COOKIE ECHO goes again."""

    def __init__(self, outbox: Outbox, random_bytes: Callable[[int], bytes]) -> None:
        self._outbox = outbox
        self._random_bytes = random_bytes
        self._key = random_bytes(_KEY_BYTES)
        self.our_tag = self._new_tag()
        self.our_tsn = int.from_bytes(random_bytes(4))
        self.due_at: float | None = None
        self._rto_s = RTO_INITIAL_S
        self._repeats = 0
        self._echo = b""  # our COOKIE ECHO; empty while INIT is what goes again

    def start(self, now: float) -> None:
        """Send INIT."""
        self._rto_s, self._repeats, self._echo = RTO_INITIAL_S, 0, b""
        self._send(now)

    def done(self) -> None:
        """The association is up, or over."""
        self.due_at = None
        self._echo = b""

    def time_out(self, now: float) -> bool:
        """Send it again; False after too many."""
        self._repeats += 1
        self._rto_s = min(2 * self._rto_s, RTO_MAX_S)
        if self._repeats > MAX_REPEATS:
            self.done()
            return False
        self._send(now)
        return True

    def _send(self, now: float) -> None:
        self.due_at = now + self._rto_s
        if self._echo:
            self._outbox.put(self._echo)
        else:
            init = c.Init(
                self.our_tag, WINDOW_BYTES, MAX_STREAMS, MAX_STREAMS, self.our_tsn, build_parameters_of_init()
            )
            self._outbox.send_alone(c.build_init(c.INIT, init), 0)

    def receive_init(self, value: bytes, state: State, now: float) -> bool:
        """Answer an INIT with INIT ACK and a cookie; False if it is malformed."""
        init = c.parse_init(value)
        if init is None or not init.tag:
            return False
        if not init.inbound_streams or not init.outbound_streams or HOST_NAME in dict(init.parameters):
            self._outbox.send_alone(c.build_causes(c.ABORT, c.INVALID_PARAMETER), init.tag)
            return True
        tag, tsn = self.our_tag, self.our_tsn
        ties = (0, 0)
        if state not in {State.CLOSED, State.COOKIE_WAIT}:
            ties = (self.our_tag, self._outbox.peers_tag)
            if state is not State.COOKIE_ECHOED:  # the peer may have started again: so would we (section 5.2.2)
                tag, tsn = self._new_tag(), int.from_bytes(self._random_bytes(4))
        cookie = seal_cookie(agree(init, tag, tsn), ties, _ms(now), self._key)
        parameters = (
            *build_parameters_of_init(),
            (STATE_COOKIE, cookie),
            *((UNRECOGNIZED, c.build_parameters((one,))) for one in unrecognized(init)),
        )
        ack = c.Init(tag, WINDOW_BYTES, MAX_STREAMS, MAX_STREAMS, tsn, parameters)
        self._outbox.send_alone(c.build_init(c.INIT_ACK, ack), init.tag)
        return True

    def receive_init_ack(self, value: bytes, now: float) -> Ends | None:
        """Answer an INIT ACK with the cookie that it brings; None if it is malformed."""
        init = c.parse_init(value)
        if init is None or not init.tag:
            return None
        cookie = dict(init.parameters).get(STATE_COOKIE)
        if cookie is None or not init.inbound_streams or not init.outbound_streams:
            cause = c.MISSING_PARAMETER if cookie is None else c.INVALID_PARAMETER
            info = b"\0\0\0\1" + STATE_COOKIE.to_bytes(2, "big") if cookie is None else b""
            self._outbox.send_alone(c.build_causes(c.ABORT, cause, info), init.tag)
            return None
        ends = agree(init, self.our_tag, self.our_tsn)
        self._outbox.peers_tag = ends.peers_tag
        self._echo = c.build_chunk(c.COOKIE_ECHO, cookie)
        self._rto_s, self._repeats = RTO_INITIAL_S, 0
        self._send(now)
        unknown = unrecognized(init)
        if unknown:
            self._outbox.put(c.build_causes(c.ERROR, c.UNRECOGNIZED_PARAMETERS, c.build_parameters(tuple(unknown))))
        return ends

    def receive_cookie(self, value: bytes, tag: int, state: State, now: float) -> Cookie | None:
        """Return a cookie of ours that is not too old. One that is gets an ERROR."""
        cookie = open_cookie(value, _ms(now), self._key)
        if cookie is None or cookie.ends.our_tag != tag:
            return None
        is_known = (tag, cookie.ends.peers_tag) == (self.our_tag, self._outbox.peers_tag)
        if not 0 <= cookie.age_ms <= COOKIE_LIFETIME_MS and not (is_known and state is not State.COOKIE_WAIT):
            late_us = min(max(cookie.age_ms - COOKIE_LIFETIME_MS, 0) * 1_000, 0xFFFFFFFF)
            self._outbox.send_alone(
                c.build_causes(c.ERROR, c.STALE_COOKIE, late_us.to_bytes(4, "big")), cookie.ends.peers_tag
            )
            return None
        return cookie

    def _new_tag(self) -> int:
        return int.from_bytes(self._random_bytes(4)) or 1

    def export(self) -> dict[str, Any]:
        """Return its state; times are as they are here."""
        return {
            "key": self._key, "our_tag": self.our_tag, "our_tsn": self.our_tsn, "due_at": self.due_at,
            "rto_s": self._rto_s, "repeats": self._repeats, "echo": self._echo,
        }  # fmt: skip

    def restore(self, state: dict[str, Any], shift_s: float) -> None:
        """Go on from an export whose clock was ``shift_s`` behind ours. Cookies that are on their way lose by that."""
        self._key, self.our_tag, self.our_tsn = state["key"], state["our_tag"], state["our_tsn"]
        self.due_at = None if state["due_at"] is None else state["due_at"] + shift_s
        self._rto_s, self._repeats, self._echo = state["rto_s"], state["repeats"], state["echo"]


def _ms(now: float) -> int:
    return int(now * 1e3)

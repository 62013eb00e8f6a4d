"""Resetting streams, both ways (RFC 6525): how data channels close (RFC 8831 section 6.7).

Ours: one request at a time, for streams whose messages all have their TSNs, repeated until it is answered. The peer's: done
when all data that it sent before has come; until then the answer is "in progress", and the last answer is given again to who
asks again.

Owns: requests, answers, their numbers and the timer. Does not own: streams (reassembly.py, outbound.py).
"""

from struct import pack, unpack_from
from typing import Any

from voicefleet_dataplane.core.call.sctp.chunks import RE_CONFIG, build_chunk, build_parameters, parse_parameters
from voicefleet_dataplane.core.call.sctp.meter import Meter
from voicefleet_dataplane.core.call.sctp.ranges import TSN_MASK, unwrap_tsn

_RESET_OUTGOING, _RESET_INCOMING, _RESET_TSN, _ANSWER, _ADD_OUTGOING, _ADD_INCOMING = 13, 14, 15, 16, 17, 18
# Results (section 4.4).
_NOTHING_TO_DO, _PERFORMED, _DENIED, _BUSY, _BAD_NUMBER, _IN_PROGRESS = 0, 1, 2, 4, 5, 6
_MAX_STREAMS_AT_ONCE = 128
_MAX_ANSWERS = 16  # to one packet


class Reconfiguration:
    """`finished` are our streams that the peer was asked to reset, and whether it did; `reset_by_peer` those of the peer. Whoever reads them clears them."""

    def __init__(self, meter: Meter, our_tsn: int, peers_tsn: int) -> None:
        self._meter = meter
        self._next_number = our_tsn
        self._done_number = peers_tsn - 1  # the peer's request that was answered last
        self._done_result = _BAD_NUMBER
        self._deferred: tuple[int, list[int]] | None = None  # last TSN and streams of the peer's request
        self._wanted: list[int] = []
        self._asked: list[int] = []  # the streams of the request that is under way
        self._request = b""
        self._answers: list[bytes] = []
        self._request_due = False
        self.repeat_at: float | None = None
        self.finished: list[tuple[int, bool]] = []
        self.reset_by_peer: list[list[int]] = []

    def reset(self, stream: int) -> None:
        """Ask the peer to reset one of our streams, when its messages have gone."""
        if stream not in self._wanted and stream not in self._asked:
            self._wanted.append(stream)

    def is_under_way(self, stream: int) -> bool:
        """Say whether the stream is being reset: nothing may be sent on it."""
        return stream in self._wanted or stream in self._asked

    def forget(self, streams: list[int]) -> None:
        """The peer does not know of resets."""
        self._wanted = [stream for stream in self._wanted if stream not in streams]

    # ---- out

    def request(self, ready: list[int], last_tsn: int) -> None:
        """Begin a request for some of what is `wanted`. ``last_tsn`` is the last one given out."""
        self._asked = ready[:_MAX_STREAMS_AT_ONCE]
        self._wanted = [stream for stream in self._wanted if stream not in self._asked]
        numbers = (self._next_number & TSN_MASK, self._done_number & TSN_MASK, last_tsn & TSN_MASK)
        self._request = pack(f"!LLL{len(self._asked)}H", *numbers, *self._asked)
        self._request_due = True

    def wanted(self) -> list[int]:
        """Return our streams that are to be reset, if a request can begin."""
        return [] if self._asked else self._wanted

    def chunks(self, rto_s: float, now: float) -> list[bytes]:
        """Build what is due: answers, then the request."""
        due = [build_chunk(RE_CONFIG, build_parameters(((_ANSWER, answer),))) for answer in self._answers]
        self._answers.clear()
        if self._request_due:
            self._request_due = False
            self.repeat_at = now + rto_s
            due.append(build_chunk(RE_CONFIG, build_parameters(((_RESET_OUTGOING, self._request),))))
        return due

    def time_out(self) -> None:
        """The request was not answered: repeat it."""
        self.repeat_at = None
        self._request_due = True

    # ---- in

    def receive(self, value: bytes, cumulative: int) -> bool:
        """Take a RE-CONFIG; False if it is malformed. ``cumulative`` is the peer's TSN up to which all has come."""
        parameters = parse_parameters(value)
        if parameters is None or len(parameters) > 2:
            return False
        for kind, body in parameters:
            self._meter.steps += 1
            if kind == _ANSWER and len(body) >= 8:
                self._receive_answer(*unpack_from("!LL", body))
            elif (
                kind in {_RESET_OUTGOING, _RESET_INCOMING, _RESET_TSN, _ADD_OUTGOING, _ADD_INCOMING} and len(body) >= 4
            ):
                self._receive_request(kind, body, cumulative)
            else:
                return False
        return True

    def _receive_request(self, kind: int, body: bytes, cumulative: int) -> None:
        number = unwrap_tsn(unpack_from("!L", body)[0], self._done_number)
        if number == self._done_number:
            self._answer(_IN_PROGRESS if self._deferred is not None else self._done_result, number)
            return
        if number != self._done_number + 1:
            self._answer(_BAD_NUMBER, number)
            return
        self._done_number = number
        self._deferred = None
        if kind == _RESET_OUTGOING and len(body) >= 12:
            self._meter.steps += len(body) >> 2
            streams = list(unpack_from(f"!{(len(body) - 12) // 2}H", body, 12))
            self._deferred = (unwrap_tsn(unpack_from("!L", body, 8)[0], cumulative), streams)
            if not self.carry_on(cumulative):
                self._answer(_IN_PROGRESS, number)
        else:  # all streams that there are were offered in INIT; nobody but their owner resets ours
            self._done_result = _PERFORMED if kind == _ADD_OUTGOING else _DENIED
            self._answer(self._done_result, number)

    def carry_on(self, cumulative: int) -> bool:
        """Do the peer's request if all that it sent before has come (section 5.2.2 E2); True when it is done."""
        if self._deferred is None or cumulative < self._deferred[0]:
            return False
        self.reset_by_peer.append(self._deferred[1])
        self._deferred = None
        self._done_result = _PERFORMED
        self._answer(_PERFORMED, self._done_number)
        return True

    def _answer(self, result: int, number: int) -> None:
        if len(self._answers) < _MAX_ANSWERS:
            self._answers.append(pack("!LL", number & TSN_MASK, result))

    def _receive_answer(self, number: int, result: int) -> None:
        if not self._asked or number != self._next_number & TSN_MASK:
            return
        if result in {_IN_PROGRESS, _BUSY}:
            return  # the timer runs on, and the same request goes again
        self._next_number += 1
        was_reset = result in {_NOTHING_TO_DO, _PERFORMED}
        self.finished += [(stream, was_reset) for stream in self._asked]
        self._asked = []
        self._request_due = False
        self.repeat_at = None

    # ---- its state elsewhere

    def export(self) -> dict[str, Any]:
        """Return its state; times are as they are here."""
        state = {name.strip("_"): getattr(self, name) for name in _EXPORTED}
        state["deferred"] = None if self._deferred is None else list(self._deferred)
        return state

    def restore(self, state: dict[str, Any], shift_s: float) -> None:
        """Go on from an export whose clock was ``shift_s`` behind ours."""
        for name in _EXPORTED:
            value = state[name.strip("_")]
            setattr(self, name, list(value) if isinstance(value, list) else value)
        self._deferred = None if state["deferred"] is None else (state["deferred"][0], list(state["deferred"][1]))
        if self.repeat_at is not None:
            self.repeat_at += shift_s


_EXPORTED = (
    "_next_number", "_done_number", "_done_result", "_wanted", "_asked", "_request", "_answers", "_request_due", "repeat_at",
)  # fmt: skip

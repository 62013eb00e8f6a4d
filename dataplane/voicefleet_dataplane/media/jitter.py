"""The client's packets put in order, gaps and all, for a listener that has no clock of its own.

What hears the client is a WebSocket or a recogniser: it wants samples soon and in order, and does not play them at a pace. So a
packet in order goes on at once, whatever the network's jitter; only a hole waits, for as long as packets have lately come
late, and is then concealed. A loss delays speech once, by one such wait, and stalls nothing.

Sequence numbers tell loss from silence: where they go on without a hole and time stamps leap, the client had stopped
sending (DTX, RFC 7587 section 3.1.3), and the leap is silence. While nothing comes at all, the buffer fills in by the clock of
the caller, first concealment, then silence, for at most FILL_S; what was filled in is not filled in again when packets
come, so an outage or a client's clock that is slow by a percent changes no pitch and grows no delay.

What was not sent costs its listener as much as what was, and a packet can claim any amount of it. So time bounds it twice:
the client's stream, with its leaps and holes, gets no farther than the caller's clock has; and what is filled in, with
all the audio that came, is not more than time has passed, give or take a twentieth and DEPTH_S.

Owns: order, holes, fill, and a bound on what was not sent. Does not own: the codec (each Piece says what to do with it), time
(an argument), a bound on what was sent (core/call/budgets.py).
Invariant: whatever comes, at most MAX_HELD packets are held, and a call gives at most MAX_FILL_TICKS of audio that was not sent.
"""

from dataclasses import dataclass
from enum import Enum

from voicefleet_dataplane.wire.opus import DTX_BYTES, FRAME_TICKS, TICKS_PER_S, parse_duration_ticks
from voicefleet_dataplane.wire.rtp import RtpPacket

MAX_HELD = 100
SHORTEST_WAIT_S = 0.015  # less than a packet: the one after the hole's neighbour finds it given up
LONGEST_WAIT_S = 0.16
STARVED_AFTER_S = 0.2  # with nothing from the client for so long, fill begins: less may be a network that stands still
SILENT_AFTER_S = 0.04  # the same after a packet that announced silence
FILL_S = 5.0  # a recogniser that has not found the end of a sentence in so much silence will not
MAX_CONCEALED_TICKS = 5 * FRAME_TICKS  # after that a concealment is silence anyway
MAX_FILL_TICKS = TICKS_PER_S  # for one hole in the stream
DEPTH_S = 5.0  # so long may a network stand still, and its packets then come at once
_FASTEST_TICKS_PER_S = 1.05 * TICKS_PER_S
_WAIT_HALVES_IN_S = 10.0
_LARGEST_STEP = 1_000  # packets: a farther number is another stream under the same SSRC
_RESTART_AFTER = 20  # late packets on end: the client has begun its numbers anew


class Kind(Enum):
    """What to do with a piece."""

    AUDIO = "audio"  # decode it
    RECOVER = "recover"  # take the audio before this packet out of it, if it has a copy
    CONCEAL = "conceal"
    SILENCE = "silence"


@dataclass(frozen=True, slots=True)
class Piece:
    """The next audio, in order."""

    kind: Kind
    ticks: int
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class _Held:
    timestamp: int
    ticks: int  # 0: no audio (a key pressed), which only takes its number
    payload: bytes
    arrived_at: float


class JitterBuffer:
    """One client's stream. After each `push` and whenever `deadline` has come, drain `pop`."""

    __slots__ = (
        "_fill_at",
        "_filled_ticks",
        "_given_to",
        "_heard_at",
        "_held",
        "_late_run",
        "_next",
        "_sent_to",
        "_ssrc",
        "_starved_ticks",
        "_timestamp",
        "_wait_s",
        "_wait_set_at",
        "_waited_for",
        "concealed",
        "late",
        "lost",
        "recovered",
    )

    def __init__(self) -> None:
        self._ssrc: int | None = None
        self._held: dict[int, _Held] = {}  # by extended sequence number
        self._next = 0
        self._timestamp = 0
        self._filled_ticks = 0  # since the last packet that went on
        self._starved_ticks = 0  # of those, while nothing came
        self._heard_at = 0.0
        self._fill_at = 0.0
        self._sent_to = 0.0  # up to here, on the caller's clock, goes what the client's time stamps have told
        self._given_to = 0.0  # the same of what was given out, at the fastest pace
        self._late_run = 0
        self._wait_s = SHORTEST_WAIT_S
        self._wait_set_at = 0.0
        self._waited_for: dict[int, float] = {}  # numbers that were given up → when their hole was seen
        self.late = self.lost = self.concealed = self.recovered = 0

    # ---- in

    def push(self, packet: RtpPacket, now: float, *, is_audio: bool = True) -> None:
        """Take a packet. One that is no audio (a key pressed) shares the numbers of those that are."""
        ticks = 0
        if is_audio:
            duration = parse_duration_ticks(packet.payload)
            if duration is None:
                return  # its number is missing: concealed
            ticks = duration
        elif packet.ssrc != self._ssrc:
            return  # a keypad of its own, or padding before the first word: not this stream's numbers
        if packet.ssrc != self._ssrc:
            if self._ssrc is None:
                self._sent_to, self._given_to = now, now - DEPTH_S
            self._restart(packet, now)
        ahead = (packet.sequence - self._next) & 0xFFFF
        if ahead >= 0x8000:
            ahead -= 0x10000
        if ahead < 0:
            self._note_late(packet, self._next + ahead, now)
            if self._late_run < _RESTART_AFTER and -ahead < _LARGEST_STEP:
                return
            self._restart(packet, now)
            ahead = 0
        elif ahead > _LARGEST_STEP:
            self._restart(packet, now)
            ahead = 0
        self._late_run = 0
        self._heard_at = now
        number = self._next + ahead
        if ahead == 0 and self._held:  # the missing one: so long did it take
            self._learn_wait(now - min(held.arrived_at for held in self._held.values()), now)
        self._held.setdefault(number, _Held(packet.timestamp, ticks, packet.payload, now))

    # ---- out

    def pop(self, now: float) -> list[Piece]:
        """Return what can go on by now."""
        pieces: list[Piece] = []
        while self._held:
            held = self._held.pop(self._next, None)
            if held is None:
                if self._skip_what_took_no_time():
                    continue
                hole_seen_at = min(one.arrived_at for one in self._held.values())
                if now - hole_seen_at < self._wait_s and len(self._held) < MAX_HELD:
                    break
                self._give_up(pieces, hole_seen_at, now)
                continue
            self._go_on(pieces, held, now)
        if not self._held:
            self._starve(pieces, now)
        return pieces

    def deadline(self) -> float | None:
        """When `pop` may have more to give though nothing came."""
        if self._ssrc is None:
            return None
        if self._held:
            return min(one.arrived_at for one in self._held.values()) + self._wait_s
        return self._fill_at if self._starved_ticks < FILL_S * TICKS_PER_S else None

    @property
    def wait_s(self) -> float:
        """How long a hole is waited for now."""
        return self._wait_s

    # ---- inside

    def _restart(self, packet: RtpPacket, now: float) -> None:
        self._ssrc = packet.ssrc
        self._held.clear()
        self._waited_for.clear()
        self._next, self._timestamp = packet.sequence, packet.timestamp
        self._filled_ticks = self._starved_ticks = self._late_run = 0
        self._heard_at = now

    def _go_on(self, pieces: list[Piece], held: _Held, now: float) -> None:
        self._next += 1
        if not held.ticks:
            return
        leap = self._leap(held.timestamp)
        silence = min(leap, self._elapsed_ticks(now)) - self._filled_ticks
        if silence > 0 and self._starved_ticks < FILL_S * TICKS_PER_S:  # else it was given up already
            silence = min(silence, MAX_FILL_TICKS)
            if self._may_fill(silence, now):
                pieces.append(Piece(Kind.SILENCE, silence))
        self._sent_to = min(now, max(self._sent_to, now - DEPTH_S) + (leap + held.ticks) / TICKS_PER_S)
        self._give(held.ticks, now)
        pieces.append(Piece(Kind.AUDIO, held.ticks, held.payload))
        self._timestamp = (held.timestamp + held.ticks) & 0xFFFFFFFF
        self._filled_ticks = self._starved_ticks = 0
        self._fill_at = now + (SILENT_AFTER_S if len(held.payload) <= DTX_BYTES else STARVED_AFTER_S)
        if self._wait_s > SHORTEST_WAIT_S:
            faded = self._wait_s * 0.5 ** ((now - self._wait_set_at) / _WAIT_HALVES_IN_S)
            if now - self._wait_set_at > 1.0:
                self._wait_s, self._wait_set_at = max(SHORTEST_WAIT_S, faded), now

    def _give_up(self, pieces: list[Piece], hole_seen_at: float, now: float) -> None:
        """The packets up to the next that came are lost: put something in their place."""
        number = min(self._held)
        following = self._held[number]
        missing = number - self._next
        self.lost += missing
        if len(self._waited_for) > MAX_HELD:
            self._waited_for.clear()
        for gone in range(self._next, min(number, self._next + MAX_HELD)):
            self._waited_for[gone] = hole_seen_at
        self._next = number
        if not following.ticks:
            return
        leap = self._leap(following.timestamp)
        if not 0 < leap <= MAX_FILL_TICKS:
            leap = min(missing * FRAME_TICKS, MAX_FILL_TICKS)
        hole = max(0, min(leap, self._elapsed_ticks(now)) - self._filled_ticks)
        if not self._may_fill(hole, now):
            return
        self._filled_ticks += hole
        last = min(hole, FRAME_TICKS)  # of which the packet after the hole may carry a copy
        concealed = min(hole - last, MAX_CONCEALED_TICKS)
        silence = hole - last - concealed
        while concealed > 0:
            pieces.append(Piece(Kind.CONCEAL, min(concealed, FRAME_TICKS)))
            self.concealed += 1
            concealed -= FRAME_TICKS
        if silence > 0:
            pieces.append(Piece(Kind.SILENCE, silence))
        if last == FRAME_TICKS:
            pieces.append(Piece(Kind.RECOVER, last, following.payload))
            self.recovered += 1
        elif last:
            pieces.append(Piece(Kind.SILENCE, last))

    def _skip_what_took_no_time(self) -> bool:
        """Go on to the next audio if its time stamp continues the last one: only keys and padding stood between them.

        They are dropped before they come here when a client sends too many (core/call/budgets.py).
        """
        number = min((number for number, held in self._held.items() if held.ticks), default=None)
        if number is None or self._held[number].timestamp != self._timestamp:
            return False
        for passed in [one for one in self._held if one < number]:
            del self._held[passed]
        self._next = number
        return True

    def _leap(self, timestamp: int) -> int:
        step = (timestamp - self._timestamp) & 0xFFFFFFFF
        return step if step < 0x80000000 else 0

    def _elapsed_ticks(self, now: float) -> int:
        """How far the client's time stamps may have come since they were seen last."""
        return int((now - self._sent_to) * TICKS_PER_S)

    def _may_fill(self, ticks: int, now: float) -> bool:
        """Whether so much that was not sent may be given out; it then is."""
        if self._given_to > now:
            return False
        self._give(ticks, now)
        return True

    def _give(self, ticks: int, now: float) -> None:
        self._given_to = max(self._given_to, now - DEPTH_S) + ticks / _FASTEST_TICKS_PER_S

    def _starve(self, pieces: list[Piece], now: float) -> None:
        if self._ssrc is None:
            return
        if now - self._fill_at > 1.0:  # nobody asked for long: what was not filled in then is not now
            self._fill_at = max(self._fill_at, now - FRAME_TICKS / TICKS_PER_S)
        while now >= self._fill_at and self._starved_ticks < FILL_S * TICKS_PER_S:
            if self._may_fill(FRAME_TICKS, now):
                kind = Kind.CONCEAL if self._starved_ticks < MAX_CONCEALED_TICKS else Kind.SILENCE
                pieces.append(Piece(kind, FRAME_TICKS))
                self._filled_ticks += FRAME_TICKS
            self._starved_ticks += FRAME_TICKS
            self._fill_at += FRAME_TICKS / TICKS_PER_S

    def _note_late(self, packet: RtpPacket, number: int, now: float) -> None:
        self.late += 1
        self._late_run += 1
        hole_seen_at = self._waited_for.pop(number, None)
        if hole_seen_at is not None:
            self._learn_wait(now - hole_seen_at, now)

    def _learn_wait(self, took_s: float, now: float) -> None:
        wanted = min(LONGEST_WAIT_S, took_s * 1.25 + 0.005)
        if wanted > self._wait_s:
            self._wait_s, self._wait_set_at = wanted, now

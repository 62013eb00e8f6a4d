"""What an agent says, cut into frames of 20 ms: the queue behind our playout clock.

Audio comes in pieces of any length, faster than it can be played, each under a tag (an item of a conversation). One frame is
taken for each tick of the clock. Marks lie between pieces and are reached when all before them has been taken.

Owns: the queue, its bound, how much of each tag was played, marks. Does not own: the clock, the codec.
Invariants
- What `clear` has cut off is never taken, and what was taken is counted to the millisecond, by tag.
- The last piece of an utterance may end inside a frame: it is filled up with silence when nothing has come for PATIENCE_TICKS.
"""

from collections import deque
from dataclasses import dataclass

from voicefleet_dataplane.media.backend import Cleared
from voicefleet_dataplane.wire.opus import FRAME_MS

PATIENCE_TICKS = 2
MAX_MARKS = 256
_TAGS_REMEMBERED = 16


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame to play, and what it means that it is played."""

    audio: bytes
    tags: tuple[tuple[str, int], ...] = ()  # with bytes of each
    marks: tuple[str, ...] = ()


class Playout:
    """One call's queue. ``frame_bytes`` 0: pieces are frames already (Opus)."""

    def __init__(self, frame_bytes: int, max_queued: int) -> None:
        """``max_queued``: bytes of PCM, or bytes of Opus."""
        self._frame_bytes = frame_bytes
        self._max_queued = max_queued
        self._queue: deque[tuple[str, bytes] | tuple[str, None]] = deque()  # (tag, audio) or (mark, None)
        self._offset = 0  # into the first piece
        self._queued = 0
        self._frames = 0  # of Opus
        self._marks = 0
        self._waited = 0
        self._played: dict[str, int] = {}  # tag → bytes, or frames
        self._tag = ""  # of what was played last

    # ---- the agent

    def say(self, audio: bytes, tag: str = "") -> bool:
        """Queue a piece; False if there is no room."""
        if not audio:
            return True
        if self._queued + len(audio) > self._max_queued:
            return False
        self._queue.append((tag, audio))
        self._queued += len(audio)
        self._frames += 1
        self._waited = 0
        return True

    def mark(self, name: str) -> bool:
        """Queue a mark; False if there are too many."""
        if self._marks >= MAX_MARKS:
            return False
        self._marks += 1
        self._queue.append((name, None))
        return True

    def clear(self) -> Cleared:
        """Forget what was not taken."""
        tags = tuple(dict.fromkeys(name for name, audio in self._queue if audio is not None))
        tag = tags[0] if tags else self._tag
        marks = tuple(name for name, audio in self._queue if audio is None)
        self._queue.clear()
        self._offset = self._queued = self._frames = self._marks = self._waited = 0
        return Cleared(tag, self.played_ms(tag), marks, tuple((name, self.played_ms(name)) for name in tags))

    @property
    def queued_ms(self) -> int:
        """How much waits."""
        return self._to_ms(self._queued if self._frame_bytes else self._frames)

    @property
    def is_full(self) -> bool:
        """More than half of the room is taken: stop bringing."""
        return self._queued * 2 > self._max_queued

    @property
    def is_empty(self) -> bool:
        """Neither audio nor a mark waits."""
        return not self._queue

    def played_ms(self, tag: str) -> int:
        """How much of a tag was taken and went out."""
        return self._to_ms(self._played.get(tag, 0))

    def note_played(self, frame: Frame) -> None:
        """A frame has gone out."""
        for tag, amount in frame.tags:
            if tag not in self._played and len(self._played) >= _TAGS_REMEMBERED:
                del self._played[next(iter(self._played))]
            self._played[tag] = self._played.get(tag, 0) + amount
            self._tag = tag

    # ---- the clock

    def take(self) -> Frame | None:
        """Return the next frame; None when there is none yet."""
        return self._take_pcm() if self._frame_bytes else self._take_whole()

    def _take_whole(self) -> Frame | None:
        if not self._queue:
            return None
        frame = b""
        tags: tuple[tuple[str, int], ...] = ()
        marks: list[str] = []
        while self._queue:
            name, audio = self._queue[0]
            if audio is not None:
                if frame:
                    break
                frame, tags = audio, ((name, 1),)
                self._queued -= len(audio)
                self._frames -= 1
            else:
                marks.append(name)
                self._marks -= 1
            self._queue.popleft()
        return Frame(frame, tags, tuple(marks))

    def _take_pcm(self) -> Frame | None:
        if not self._queue:
            return None
        wanted = self._frame_bytes
        if self._queued < wanted and self._queued and self._waited < PATIENCE_TICKS and self._marks == 0:
            self._waited += 1  # the rest may be on its way; a mark says that it is not
            return None
        parts: list[bytes] = []
        tags: list[tuple[str, int]] = []
        marks: list[str] = []
        have = 0
        while self._queue:
            name, audio = self._queue[0]
            if audio is None:
                marks.append(name)
                self._marks -= 1
                self._queue.popleft()
                continue
            if have == wanted:
                break
            part = audio[self._offset : self._offset + wanted - have]
            parts.append(part)
            have += len(part)
            if tags and tags[-1][0] == name:
                tags[-1] = (name, tags[-1][1] + len(part))
            else:
                tags.append((name, len(part)))
            self._offset += len(part)
            if self._offset == len(audio):
                self._queue.popleft()
                self._offset = 0
        self._queued -= have
        self._waited = 0
        frame = parts[0] if len(parts) == 1 else b"".join(parts)
        if have and have < wanted:
            frame += bytes(wanted - have)
        return Frame(frame, tuple(tags), tuple(marks))

    def _to_ms(self, amount: int) -> int:
        if not self._frame_bytes:
            return amount * FRAME_MS
        return amount * FRAME_MS // self._frame_bytes

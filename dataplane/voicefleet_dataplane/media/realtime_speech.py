"""What a Realtime agent says, by item: which of it somebody still wants to hear, and how much of it was heard.

An interruption cuts every item that is not heard to its end: those that wait, the one that sounds, and the one whose audio the agent
is still bringing. What the agent brings of their responses after that is dropped, whether it was told to stop or not, and at
an item's end the agent hears once more how much of it counts.

Owns: items and responses, and whole samples out of deltas that end in half of one. Does not own: the queue and what was
played of it (media/playout.py), events (media/openai_realtime.py).
Invariant: what is remembered is bounded, whatever an agent sends.
"""

from collections import deque
from dataclasses import dataclass

from voicefleet_dataplane.media.backend import Cleared

_REMEMBERED = 64


@dataclass(frozen=True, slots=True)
class Heard:
    """How much of an item counts as said."""

    item: str
    response: str
    content_index: int
    heard_ms: int


@dataclass(slots=True)
class _Item:
    response: str
    content_index: int
    said_bytes: int = 0
    half: bytes = b""  # of a sample whose other half comes with the next delta
    done: bool = False
    heard_ms: int | None = None  # when it was cut; None: it was not
    went_on: bool = False  # after that


class RealtimeSpeech:
    """One session's."""

    def __init__(self, rate_hz: int) -> None:
        self._bytes_per_s = rate_hz * 2
        self._items: dict[str, _Item] = {}
        self._cut: deque[str] = deque(maxlen=_REMEMBERED)  # responses

    def begin_response(self, response: str) -> None:
        """An agent that numbers its responses anew means another one."""
        if response in self._cut:
            self._cut.remove(response)

    def take(self, item: str, response: str, content_index: int, pcm: bytes) -> bytes:
        """Return the whole samples of a delta that somebody wants to hear; empty if nobody does."""
        known = self._items.get(item)
        if known is None:
            if len(self._items) >= _REMEMBERED:
                del self._items[next(iter(self._items))]
            known = self._items[item] = _Item(response, content_index)
            if response in self._cut:
                known.heard_ms = 0
        if known.heard_ms is not None:
            known.went_on = True
            return b""
        pcm = known.half + pcm
        whole = len(pcm) // 2 * 2
        pcm, known.half = pcm[:whole], pcm[whole:]
        known.said_bytes += whole
        return pcm

    def response_of(self, item: str) -> str:
        """Return the response that an item belongs to; empty if it is not known."""
        known = self._items.get(item)
        return known.response if known is not None else ""

    def is_cut(self, item: str) -> bool:
        """Tell whether an interruption cut it."""
        known = self._items.get(item)
        return known is not None and known.heard_ms is not None

    def finish(self, *, item: str = "", response: str = "") -> list[Heard]:
        """The agent has brought all of an item, or of a response: what it must be told once more."""
        told = []
        for name, known in self._items.items():
            if known.done or (name != item and known.response != response):
                continue
            known.done = True
            if known.went_on and known.heard_ms is not None:
                told.append(Heard(name, known.response, known.content_index, known.heard_ms))
        return told

    def cut(self, cleared: Cleared) -> list[Heard]:
        """Somebody interrupted: what counts of each item that was not heard to its end."""
        played, told = dict(cleared.cut), []
        for name, known in self._items.items():
            if known.heard_ms is not None or (known.done and name not in played):
                continue
            # What is not among those that were cut off has gone out, as far as it had come.
            known.heard_ms = played.get(name, known.said_bytes * 1_000 // self._bytes_per_s)
            told.append(Heard(name, known.response, known.content_index, known.heard_ms))
            if known.response not in self._cut:
                self._cut.append(known.response)
        return told

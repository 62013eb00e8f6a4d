"""One response: what the text handler says becomes items, events and speech.

::

    pieces of an answer ─▶ message item, function call items ─▶ events
                        └▶ sentences ─▶ Speak, one at a time ─▶ sound ─▶ Say, under the item's name

Owns: the order of a response's events, which sentence is spoken next. Does not own: when a response begins or is cut off
(media/pipeline/conversation.py), what was heard of it.
Invariants
- Each item that is added is done, and response.done is the last event, whatever ends the response.
- Never more than LOOKAHEAD_MS of speech waits to be heard, however fast the text comes.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from voicefleet_dataplane.media.agent import Mark, Say
from voicefleet_dataplane.media.pipeline.actions import Actions, Ask, Hush, Speak, Withdraw
from voicefleet_dataplane.media.pipeline.chat import CallDelta, Finished, HookError, Piece, TextDelta
from voicefleet_dataplane.media.pipeline.events import EventWriter
from voicefleet_dataplane.media.pipeline.items import MAX_TEXT, Item, Items
from voicefleet_dataplane.media.pipeline.sentences import SentenceSplitter, speakable
from voicefleet_dataplane.media.pipeline.wanted import Wanted

LOOKAHEAD_MS = 20_000
SPEECH_BYTES_PER_MS = 48  # 24 kHz
END_OF = "end of "


@dataclass(slots=True)
class _Open:
    """An item that is not done."""

    item: Item
    place: int  # output_index
    previous: str | None


@dataclass(slots=True)
class Response:
    """One response that is in progress."""

    id: str
    conversation_id: str
    wanted: Wanted
    items: Items
    events: EventWriter
    hangs_up: bool = False
    job: str = ""  # the sentence that is made into speech
    waits_for_hook: bool = True
    said_anything: bool = False
    _output: list[_Open] = field(default_factory=list)
    _message: _Open | None = None
    _calls: dict[int, _Open] = field(default_factory=dict)
    _splitter: SentenceSplitter = field(default_factory=SentenceSplitter)
    _sentences: deque[str] = field(default_factory=deque)
    _sentence: str = ""
    _cut_text: int = 0  # characters whose sentences were begun
    _said_bytes: int = 0

    @property
    def speaks(self) -> bool:
        """Whether it is speech; else it is text."""
        return "audio" in self.wanted.session.modalities

    @property
    def message(self) -> Item | None:
        """What it says."""
        return self._message.item if self._message is not None else None

    @property
    def has_to_speak(self) -> bool:
        """Whether a sentence is being made into speech, or waits for it."""
        return bool(self.job or self._sentences)

    @property
    def is_complete(self) -> bool:
        """Everything is there, and all that was to be spoken is speech."""
        return not self.waits_for_hook and not self.has_to_speak

    def open(self, request: dict[str, Any]) -> Actions:
        """Begin."""
        return [self.events.tell("response.created", response=self._shown("in_progress")), Ask(self.id, request)]

    def answered(self, piece: Piece) -> Actions:
        """Take a piece of the answer. Raises HookError."""
        match piece:
            case TextDelta(text):
                return self._more_text(text)
            case CallDelta():
                return self._more_call(piece)
            case Finished(hang_up):
                if not all(call.item.name for call in self._calls.values()):
                    raise HookError("a function call without a name")
                self.waits_for_hook = False
                self.hangs_up = hang_up
                self._sentences += self._splitter.flush()
        return []

    # ---- speech

    def next_sentence(self, queued_ms: int) -> Actions:
        """Make speech of the next sentence, if it is time."""
        while self._sentences and not self.job and queued_ms < LOOKAHEAD_MS:
            self._sentence = self._sentences.popleft()
            self._cut_text += len(self._sentence)
            text = speakable(self._sentence)
            if not any(letter.isalnum() for letter in text):
                continue
            self.job = self.events.new_id("speech")
            session = self.wanted.session
            return [Speak(self.job, text, session.voice, session.speed)]
        return []

    def sound(self, pcm: bytes) -> Actions:
        """Take speech of the sentence that is being made."""
        assert self._message is not None
        self._said_bytes += len(pcm)
        self.said_anything = True
        return [Say(pcm, self._message.item.id)]

    def spoken(self) -> None:
        """The sentence is complete."""
        assert self._message is not None
        self.job = ""
        self._message.item.spoken.append((self._said_bytes // SPEECH_BYTES_PER_MS, self._cut_text))

    def note_part_spoken(self) -> None:
        """The sentence is cut off in the making: what there is of it counts."""
        if self.job and self._message is not None and self._said_bytes:
            self.spoken()

    # ---- the end

    def close(self, status: str, **details: Any) -> Actions:
        """End: stop the stages, finish the items, tell it."""
        actions: Actions = []
        if self.waits_for_hook:
            actions.append(Withdraw(self.id))
        if self.job:
            actions.append(Hush(self.job))
        item_status = "completed" if status == "completed" else "incomplete"
        for opened in self._output:
            if opened.item.status != "incomplete":
                opened.item.status = item_status
            actions += self._close_message(opened) if opened is self._message else self._close_call(opened)
        if self.said_anything:
            actions.append(Mark(END_OF + self.id))
        shown = self._shown(status, {"type": status, **details})
        return [*actions, self.events.tell("response.done", response=shown)]

    # ---- inside

    def _more_text(self, text: str) -> Actions:
        actions: Actions = []
        if self._message is None:
            part = "output_audio" if self.speaks else "output_text"
            self._message, actions = self._add(Item(self.events.new_id("item"), "message", "assistant", part))
            kind = {"type": "audio", "transcript": ""} if self.speaks else {"type": "text", "text": ""}
            actions.append(self._part_event("content_part.added", part=kind))
        item = self._message.item
        if len(item.text) + len(text) > MAX_TEXT:
            raise HookError(f"an answer of more than {MAX_TEXT} characters")
        item.text += text
        item.is_open = False
        actions.append(
            self._part_event("output_audio_transcript.delta" if self.speaks else "output_text.delta", delta=text)
        )
        if self.speaks:
            self._sentences += self._splitter.push(text)
        return actions

    def _more_call(self, piece: CallDelta) -> Actions:
        actions: Actions = []
        opened = self._calls.get(piece.index)
        if opened is None:
            call_id = piece.call_id or self.events.new_id("call")
            item = Item(self.events.new_id("item"), "function_call", call_id=call_id, name=piece.name)
            opened, actions = self._add(item)
            self._calls[piece.index] = opened
        item = opened.item
        if len(item.text) + len(piece.arguments) > MAX_TEXT:
            raise HookError(f"a function call of more than {MAX_TEXT} characters")
        item.name = item.name or piece.name
        item.text += piece.arguments
        if piece.arguments:
            actions.append(self._call_event(opened, "function_call_arguments.delta", delta=piece.arguments))
        return actions

    def _add(self, item: Item) -> tuple[_Open, Actions]:
        item.status, item.is_open = "in_progress", True
        opened = _Open(item, len(self._output), self.items.add(item))
        self._output.append(opened)
        added = self.events.tell(
            "response.output_item.added", response_id=self.id, output_index=opened.place, item=item.to_json()
        )
        return opened, [added, self._conversation_event("added", opened)]

    def _close_message(self, opened: _Open) -> Actions:
        text = opened.item.text
        if not self.speaks:
            told: Actions = [self._part_event("output_text.done", text=text)]
            part: dict[str, Any] = {"type": "text", "text": text}
        else:
            part = {"type": "audio", "transcript": text}
            told = [
                self._part_event("output_audio.done"),
                self._part_event("output_audio_transcript.done", transcript=text),
            ]
        return [*told, self._part_event("content_part.done", part=part), *self._done(opened)]

    def _close_call(self, opened: _Open) -> Actions:
        item = opened.item
        item.is_open = False
        done = self._call_event(opened, "function_call_arguments.done", name=item.name, arguments=item.text)
        return [done, *self._done(opened)]

    def _done(self, opened: _Open) -> Actions:
        done = self.events.tell(
            "response.output_item.done", response_id=self.id, output_index=opened.place, item=opened.item.to_json()
        )
        return [done, self._conversation_event("done", opened)]

    def _conversation_event(self, what: str, opened: _Open) -> Any:
        return self.events.tell(
            f"conversation.item.{what}", previous_item_id=opened.previous, item=opened.item.to_json()
        )

    def _part_event(self, what: str, **fields: Any) -> Any:
        assert self._message is not None
        return self.events.tell(
            f"response.{what}",
            response_id=self.id,
            item_id=self._message.item.id,
            output_index=self._message.place,
            content_index=0,
            **fields,
        )

    def _call_event(self, opened: _Open, what: str, **fields: Any) -> Any:
        return self.events.tell(
            f"response.{what}",
            response_id=self.id,
            item_id=opened.item.id,
            output_index=opened.place,
            call_id=opened.item.call_id,
            **fields,
        )

    def _shown(self, status: str, details: dict[str, Any] | None = None) -> dict[str, Any]:
        session = self.wanted.session
        return {
            "object": "realtime.response",
            "id": self.id,
            "conversation_id": self.conversation_id,
            "status": status,
            "status_details": None if status in ("in_progress", "completed") else details,
            "output": [opened.item.to_json() for opened in self._output],
            "output_modalities": list(session.modalities),
            "max_output_tokens": session.max_output_tokens,
            "audio": session.output_json(),
            "usage": None if status == "in_progress" else _NO_USAGE,
            "metadata": self.wanted.metadata,
        }


# No stage counts tokens; clients that sum them up want numbers.
_NO_USAGE = {"total_tokens": 0, "input_tokens": 0, "output_tokens": 0}

"""A conversation by stages, spoken to the client in the events of the OpenAI Realtime API.

::

    audio ─▶ Hearing ─▶ utterances ─▶ words ─▶ items ─▶ Ask ─▶ Response ─▶ speech ─▶ Playback
    client's events ─▶ client_events.py ─▶ session, items, responses

Everything is told as it happens and answered with actions (media/pipeline/actions.py); time is an argument.

Owns: turns, interruptions, deadlines, what a failed stage means. Does not own: a stage, sockets, clocks, the voice, the events that
clients send, what they are told of items (item_events.py).
Invariants
- At most one response is in progress; what a stage says about another one is no news.
- Somebody who interrupts is told, and remembered as having heard, exactly what went out.
- Each stage that is waited for has a deadline: it answers, fails, or is counted as failed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from voicefleet_dataplane.media.agent import Clear, End
from voicefleet_dataplane.media.backend import CallConfig, Cleared, Digit, Ending
from voicefleet_dataplane.media.pipeline.actions import Actions
from voicefleet_dataplane.media.pipeline.chat import HookError, Piece
from voicefleet_dataplane.media.pipeline.events import EventError, EventWriter
from voicefleet_dataplane.media.pipeline.hearing import LEAST_MS, Heard, Hearing, What
from voicefleet_dataplane.media.pipeline.item_events import ItemEvents
from voicefleet_dataplane.media.pipeline.items import Item, Items
from voicefleet_dataplane.media.pipeline.playback import Playback
from voicefleet_dataplane.media.pipeline.response import END_OF, Response
from voicefleet_dataplane.media.pipeline.session import SessionError, SessionObject
from voicefleet_dataplane.media.pipeline.wanted import Wanted, build_request, parse_wanted

_LOOK_S = 0.5  # how often it is seen whether there is room for more speech
MAX_PENDING_WORDS = 8  # utterances whose words have not come: more is an engine that does not keep up


@dataclass(frozen=True, slots=True)
class Plan:
    """What the resource says."""

    transcriber: str
    voice: str
    model: str = ""
    words_within_s: float = 10.0
    text_within_s: float = 15.0
    speech_within_s: float = 10.0
    hangs_up_on_failure: bool = False


class Conversation:
    """One call's."""

    def __init__(self, config: CallConfig, plan: Plan, events: EventWriter, queued_ms: Callable[[], int]) -> None:
        """``queued_ms``: how much speech waits to go out."""
        self._config = config
        self._plan = plan
        self._events = events
        new_id = self._new_id = events.new_id
        self._queued_ms = queued_ms
        self._session = SessionObject(new_id("sess"), plan.model or "pipeline", plan.transcriber, plan.voice)
        self._conversation_id = new_id("conv")
        self._hearing = Hearing(self._events, detects_turns=True)
        self._items = Items()
        self.item_events = ItemEvents(self._items, events)
        self._response: Response | None = None
        self._answer_next = False  # somebody spoke to the end while a response that cannot be interrupted went on
        self._words_due: dict[str, float] = {}  # utterances that are being recognised
        self._text_due = self._speech_due = 0.0
        self._playback = Playback(self._events)
        self._why_cleared = ""
        self._ended = False

    # ---- the call

    def open(self) -> Actions:
        """Begin: the client learns its session."""
        trouble: Actions = []
        try:
            self._set_session(self._session.updated(self._config.session))
        except SessionError as error:
            trouble = [self._events.error("invalid_value", str(error), param=error.param)]
        return [self._events.tell("session.created", session=self._session.to_json()), *trouble]

    def speech(self, pcm: bytes, probabilities: Sequence[float], window_ms: float, now: float) -> Actions:
        """Take the client's next samples, and what the voice activity engine says of them."""
        actions: Actions = []
        for heard in self._hearing.hear(pcm, probabilities, window_ms):
            actions += heard.actions
            if heard.what is What.STOPPED:
                actions += self._committed(heard, now)
            elif self._session.interrupts:
                actions += self._interrupt()
        return [*actions, *self._hearing.feed()]

    def digit(self, digit: Digit, received_at: int) -> Actions:
        """The client pressed a key, at a Unix time."""
        return [self._events.tell("input_audio_buffer.dtmf_event_received", event=digit.digit, received_at=received_at)]

    # ---- speech to text

    def words(self, utterance: str, text: str, now: float) -> Actions:
        """An utterance is recognised; no text: nobody said a word."""
        if self._words_due.pop(utterance, None) is None or utterance not in self._items:
            return []
        item = self._items.get(utterance)
        item.text = text.strip()
        actions: Actions = []
        if self._session.transcribes:
            about: dict[str, Any] = {"item_id": utterance, "content_index": 0}
            kind = "conversation.item.input_audio_transcription."
            if item.text:
                actions.append(self._events.tell(kind + "delta", delta=item.text, **about))
            usage = {"type": "duration", "seconds": round(item.audio_ms / 1_000, 3)}
            actions.append(self._events.tell(kind + "completed", transcript=item.text, usage=usage, **about))
        if item.text and self._session.detects_turns and self._session.creates_response:
            actions += self._answer(now)
        return actions

    def words_failed(self, utterance: str, code: str, message: str) -> Actions:
        """An utterance could not be recognised."""
        if self._words_due.pop(utterance, None) is None:
            return []
        error = {"type": "server_error", "code": code, "message": message}
        failed = self._events.tell(
            "conversation.item.input_audio_transcription.failed", item_id=utterance, content_index=0, error=error
        )
        return [failed, *self._failed(code, message)]

    # ---- the text handler

    def answered(self, turn: str, pieces: Sequence[Piece], now: float) -> Actions:
        """More of an answer."""
        actions: Actions = []
        for piece in pieces:
            response = self._response
            if response is None or response.id != turn or not response.waits_for_hook:
                break
            try:
                actions += response.answered(piece)
            except HookError as error:
                return [*actions, *self.text_failed(turn, "text_handler_malformed", str(error), now)]
            self._text_due = now + self._plan.text_within_s
            actions += self._go_on(now)
        return actions

    def text_failed(self, turn: str, code: str, message: str, now: float) -> Actions:
        """There will be no answer, or no more of it."""
        response = self._response
        if response is None or response.id != turn or not response.waits_for_hook:
            return []
        return self._fail_response(response, code, f"the text handler: {message}", now)

    def text_handler_left(self, reason: str) -> Actions:
        """The text handler ends the call."""
        return self._end(End(Ending.HANG_UP, reason))

    # ---- text to speech

    def sound(self, job: str, pcm: bytes, now: float) -> Actions:
        """More speech of a sentence."""
        response = self._response
        if response is None or response.job != job or not pcm:
            return []
        self._speech_due = now + self._plan.speech_within_s
        assert response.message is not None
        self._playback.add(response.message.id, response.id)
        return response.sound(pcm)

    def spoken(self, job: str, now: float) -> Actions:
        """A sentence is complete."""
        response = self._response
        if response is None or response.job != job:
            return []
        response.spoken()
        return self._go_on(now)

    def speech_failed(self, job: str, code: str, message: str, now: float) -> Actions:
        """A sentence could not be spoken."""
        response = self._response
        if response is None or response.job != job:
            return []
        response.note_part_spoken()
        response.job = ""
        return self._fail_response(response, code, message, now)

    # ---- the voice

    def playing(self, tag: str) -> Actions:
        """The first of an item goes out."""
        return self._playback.playing(tag)

    def marked(self, name: str) -> Actions:
        """The voice came to a mark: a response was heard to its end."""
        return self._playback.ended(name.removeprefix(END_OF))

    def cleared(self, cleared: Cleared, *, was_speaking: bool) -> Actions:
        """The voice was stopped: note what was heard, and end the response that is in progress."""
        response = self._response
        if response is not None:
            response.note_part_spoken()
        sounding, actions = self._playback.stop(was_speaking=was_speaking)
        if response is not None and response.message is not None and response.speaks:
            sounding.setdefault(response.message.id, response.id)  # nothing of it was heard
        for item_id in sounding:
            if item_id in self._items:
                played_ms = cleared.played_ms if item_id == cleared.tag else 0
                actions += self.item_events.cut(self._items.get(item_id), played_ms)
        if response is not None:
            response.said_anything = False  # nothing waits that a mark could follow
            actions += self._close(response, "cancelled", reason=self._why_cleared)
        return actions

    # ---- time

    def deadline(self) -> float | None:
        """When to call `advance`."""
        due = list(self._words_due.values())
        response = self._response
        if response is not None:
            due += [self._text_due] if response.waits_for_hook else []
            due += [self._speech_due] if response.has_to_speak else []
        return min(due, default=None)

    def advance(self, now: float) -> Actions:
        """Time has passed."""
        actions: Actions = []
        for utterance in [one for one, due in self._words_due.items() if now >= due]:
            message = f"speech to text has given no words within {self._plan.words_within_s:g} s"
            actions += self.words_failed(utterance, "speech_to_text_timeout", message)
        response = self._response
        if response is not None and response.waits_for_hook and now >= self._text_due:
            message = f"no answer within {self._plan.text_within_s:g} s"
            actions += self.text_failed(response.id, "text_handler_timeout", message, now)
        response = self._response
        if response is not None and response.has_to_speak and now >= self._speech_due:
            if response.job:
                message = f"text to speech has given nothing within {self._plan.speech_within_s:g} s"
                actions += self.speech_failed(response.job, "text_to_speech_timeout", message, now)
            else:
                actions += self._go_on(now)
        return actions

    # ---- what the client asks for (media/pipeline/client_events.py)

    def update_session(self, session: Mapping[str, Any]) -> Actions:
        """Change what the session's fields say. Raises SessionError."""
        actions = self._set_session(self._session.updated(session))
        return [self._events.tell("session.updated", session=self._session.to_json()), *actions]

    def create_response(self, given: Any, now: float) -> Actions:
        """Answer now, with a response's own fields. Raises EventError, SessionError."""
        if self._response is not None:
            message = f"response {self._response.id} is in progress; cancel it or wait for its end"
            raise EventError("conversation_already_has_active_response", message)
        return self._respond(parse_wanted(given if isinstance(given, Mapping) else {}, self._session), now)

    def cancel_response(self, wanted: Any) -> Actions:
        """End the response in progress, or the one of that id. Raises EventError."""
        response = self._response
        if response is None or (wanted is not None and wanted != response.id):
            raise EventError("response_cancel_not_active", "there is no such response in progress")
        response.note_part_spoken()
        if response.message is not None and response.speaks:
            response.message.cut(response.message.audio_ms)  # what was made of it is heard, or cleared
        return self._close(response, "cancelled", reason="client_cancelled")

    def commit_audio(self, now: float) -> Actions:
        """End the utterance here. Raises EventError."""
        heard = self._hearing.commit()
        if heard is None:
            message = f"there is no audio to commit: at least {LEAST_MS} ms are needed"
            raise EventError("input_audio_buffer_commit_empty", message)
        return [*heard.actions, *self._committed(heard, now)]

    def forget_audio(self) -> Actions:
        """Begin the utterance anew."""
        return [*self._hearing.forget(), self._events.tell("input_audio_buffer.cleared")]

    def stop_speaking(self) -> Actions:
        """Nobody wants to hear the rest."""
        self._why_cleared = "client_cancelled"
        return [Clear()]

    # ---- inside

    def _set_session(self, session: SessionObject) -> Actions:
        self._session = session
        self._hearing.turns.patience = session.patience
        return self._hearing.detect_turns(session.detects_turns)

    def _committed(self, heard: Heard, now: float) -> Actions:
        """An utterance is complete: it is an item, and its words are waited for."""
        item = Item(heard.utterance, "message", "user", "input_audio")
        previous = self._items.add(item)
        committed = self._events.tell(
            "input_audio_buffer.committed", previous_item_id=previous, item_id=heard.utterance
        )
        item.spoken = [(heard.audio_ms, 0)]
        self._words_due[heard.utterance] = now + self._plan.words_within_s
        actions: Actions = [committed, *self.item_events.added(item, previous)]
        while len(self._words_due) > MAX_PENDING_WORDS:
            message = "speech to text does not keep up with the speaker"
            actions += self.words_failed(next(iter(self._words_due)), "speech_to_text_behind", message)
        return actions

    def _answer(self, now: float) -> Actions:
        if self._response is not None:
            self._answer_next = True
            return []
        return self._respond(Wanted(self._session), now)

    def _respond(self, wanted: Wanted, now: float) -> Actions:
        self._answer_next = False
        response = Response(self._new_id("resp"), self._conversation_id, wanted, self._items, self._events)
        self._response = response
        self._text_due = now + self._plan.text_within_s
        self._speech_due = now + self._plan.speech_within_s
        messages = self._items.messages(wanted.session.instructions)
        return response.open(build_request(wanted.session, messages, self._plan.model, self._config.call_id))

    def _go_on(self, now: float) -> Actions:
        """Whatever the response can do next."""
        response = self._response
        if response is None:
            return []
        actions = response.next_sentence(self._queued_ms())
        if actions:
            self._speech_due = now + self._plan.speech_within_s
        elif response.is_complete:
            return [*self._close(response, "completed"), *self._after(response, now)]
        elif not response.job:
            self._speech_due = now + _LOOK_S
        return actions

    def _after(self, response: Response, now: float) -> Actions:
        if response.hangs_up:
            return self._end(End(Ending.HANG_UP, "the text handler has said what it had to say"))
        return self._respond(Wanted(self._session), now) if self._answer_next else []

    def _interrupt(self) -> Actions:
        """Somebody speaks: the voice stops at once, and `cleared` tells the rest."""
        self._answer_next = False
        self._why_cleared = "turn_detected"
        return [Clear()] if self._response is not None or self._playback.is_pending else []

    def _close(self, response: Response, status: str, **details: Any) -> Actions:
        self._response = None
        return response.close(status, **details)

    def _fail_response(self, response: Response, code: str, message: str, now: float) -> Actions:
        error = {"type": "server_error", "code": code, "message": message}
        if response.message is not None and response.speaks:
            response.note_part_spoken()
            response.message.cut(response.message.audio_ms)
        actions = [*self._close(response, "failed", error=error), *self._failed(code, message)]
        if self._answer_next and not self._ended:
            actions += self._respond(Wanted(self._session), now)
        return actions

    def _failed(self, code: str, message: str) -> Actions:
        """A stage failed: it is told, and the call goes on or ends, as the resource says."""
        actions: Actions = [self._events.error(code, message, ours=True)]
        if self._plan.hangs_up_on_failure:
            actions += self._end(End(Ending.BACKEND_FAILED, f"{code}: {message}"))
        return actions

    def _end(self, end: End) -> Actions:
        self._ended = True
        return [end]

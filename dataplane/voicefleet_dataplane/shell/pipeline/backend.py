"""A call whose backend is a voice pipeline: carries the conversation's actions out.

::

    on_speech ─▶ voice activity (its own thread) ─▶ Conversation ─▶ engine pool, text handler, voice, events

Owns: the joining of a conversation with its stages and its voice. Does not own: any of them.
Invariants
- Nothing here computes on samples: voice activity runs in a thread, the other engines in processes.
- The client is told of every failure by an `error` event before its call ends.
"""

import asyncio
import logging
import secrets
import time
from array import array
from collections.abc import Callable, Sequence

from voicefleet_dataplane.engines.stages import VoiceActivity
from voicefleet_dataplane.media.agent import Clear, End, Mark, Say, Tell
from voicefleet_dataplane.media.backend import Backend, Call, CallConfig, Digit, Ending, RateHz
from voicefleet_dataplane.media.event_errors import build_error
from voicefleet_dataplane.media.pipeline.actions import (
    Action,
    Actions,
    Ask,
    Conclude,
    Feed,
    Forget,
    Hush,
    Listen,
    Speak,
    Withdraw,
)
from voicefleet_dataplane.media.pipeline.chat import Piece
from voicefleet_dataplane.media.pipeline.client_events import ClientEvents
from voicefleet_dataplane.media.pipeline.conversation import Conversation, Plan
from voicefleet_dataplane.media.pipeline.events import EventWriter
from voicefleet_dataplane.shell.pipeline.engine_pool import EnginePool, Job
from voicefleet_dataplane.shell.pipeline.text_handlers import TextHandler, TextListener
from voicefleet_dataplane.shell.process.codec_thread import CodecThread

log = logging.getLogger("voicefleet.transceiver")

MAX_JUDGING = 50  # pieces with the voice activity engine: it is a second behind, and newer speech is worth more
_END = "the end"


class PipelineBackend(Backend):
    """One call's pipeline."""

    def __init__(
        self,
        call: Call,
        plan: Plan,
        ear: VoiceActivity,
        thread: CodecThread,
        pool: EnginePool,
        open_handler: Callable[[CallConfig, TextListener], TextHandler],
    ) -> None:
        self._call = call
        self._ear, self._thread, self._pool = ear, thread, pool
        self._voice = call.open_voice(RateHz.REALTIME, self, RateHz.WIDE)
        events = EventWriter(_new_id)
        self._conversation = Conversation(call.config, plan, events, lambda: self._voice.queued_ms)
        self._client = ClientEvents(self._conversation, events)
        self._handler = open_handler(call.config, self)
        self._jobs: dict[str, Job] = {}
        self._judging = 0
        self._deaf = ""  # why voice activity cannot tell any more
        self._timer: asyncio.TimerHandle | None = None
        self._ending: End | None = None
        self._ended = False
        self.overrun = 0  # pieces of speech that voice activity had no time for

    # ---- what the call says

    def on_connected(self) -> None:
        """The client learns its session."""
        self._do(self._conversation.open())

    def on_digit(self, digit: Digit) -> None:
        """A key."""
        self._do(self._conversation.digit(digit, int(time.time())))

    def on_event(self, event: str) -> None:
        """An event of the client."""
        self._do(self._client.take(event, time.monotonic()))

    def on_ended(self) -> None:
        """Whatever is being done, nobody wants it any more."""
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        self._handler.close()
        for job in list(self._jobs.values()):
            self._pool.forget(job)
        self._jobs.clear()

    # ---- what the voice says

    def on_speech(self, pcm: bytes) -> None:
        """The client's next samples: is it speech?"""
        if self._judging >= MAX_JUDGING:
            self.overrun += 1
            return
        self._judging += 1
        self._thread.submit(self._judge, pcm, self._judged)

    def _judge(self, pcm: bytes) -> bytes:
        try:
            return b"" if self._deaf else array("f", self._ear.judge(pcm)).tobytes()
        except Exception as error:  # once, not fifty times a second
            log.error("voice activity failed", exc_info=error)
            self._deaf = repr(error)
            return b""

    def _judged(self, pcm: bytes, probabilities: bytes) -> None:
        self._judging -= 1
        if self._deaf and not self._ended:
            self._fail(f"voice activity failed: {self._deaf}")
        if not self._ended:
            judged = array("f", probabilities)
            self._do(self._conversation.speech(pcm, judged, self._ear.window_ms, time.monotonic()))

    def on_playing(self, tag: str) -> None:
        """The voice has begun."""
        self._do(self._conversation.playing(tag))

    def on_mark(self, name: str) -> None:
        """The voice has come to a mark."""
        if name == _END:
            self._end_now()
        else:
            self._do(self._conversation.marked(name))

    def on_silent(self) -> None:
        """Nothing waits."""

    # ---- what the stages say

    def on_words(self, job: Job, text: str) -> None:
        """An utterance was recognised."""
        if self._jobs.pop(job.name, None) is not None:
            self._do(self._conversation.words(job.name, text, time.monotonic()))

    def on_sound(self, job: Job, pcm: bytes) -> None:
        """More of a sentence."""
        self._do(self._conversation.sound(job.name, pcm, time.monotonic()))

    def on_spoken(self, job: Job) -> None:
        """A sentence is complete."""
        self._jobs.pop(job.name, None)
        self._do(self._conversation.spoken(job.name, time.monotonic()))

    def on_job_failed(self, job: Job, code: str, message: str) -> None:
        """An engine failed."""
        if self._jobs.pop(job.name, None) is None:
            return
        if job.hears:
            self._do(self._conversation.words_failed(job.name, f"speech_to_text_{code}", message))
        else:
            now = time.monotonic()
            self._do(self._conversation.speech_failed(job.name, f"text_to_speech_{code}", message, now))

    def on_pieces(self, turn: str, pieces: Sequence[Piece]) -> None:
        """More of an answer."""
        self._do(self._conversation.answered(turn, pieces, time.monotonic()))

    def on_text_failed(self, turn: str, code: str, message: str) -> None:
        """No more of it."""
        self._do(self._conversation.text_failed(turn, code, message, time.monotonic()))

    def on_text_handler_left(self, reason: str) -> None:
        """The text handler ends the call."""
        self._do(self._conversation.text_handler_left(reason))

    # ---- inside

    def _do(self, actions: Actions) -> None:
        for action in actions:
            if self._ended:
                return
            self._do_one(action)
        self._arm()

    def _do_one(self, action: Action) -> None:
        match action:
            case Tell(event):
                self._call.send_event(event)
            case Listen(name):
                self._jobs[name] = self._pool.listen(name, self)
            case Feed(name, pcm):
                if (job := self._jobs.get(name)) is not None:
                    self._pool.feed(job, pcm)
            case Conclude(name):
                if (job := self._jobs.get(name)) is not None:
                    self._pool.conclude(job)
            case Speak(name, text, voice, speed):
                self._jobs[name] = self._pool.speak(name, self, text, voice, speed)
            case Forget(name) | Hush(name):
                if (job := self._jobs.pop(name, None)) is not None:
                    self._pool.forget(job)
            case Ask(turn, request):
                self._handler.ask(turn, request)
            case Withdraw(turn):
                self._handler.withdraw(turn)
            case Say(audio, tag):
                if not self._voice.say(audio, tag):
                    self._fail("the pipeline says more than anybody could hear")
            case Mark(name):
                self._voice.mark(name)
            case Clear():
                self._clear()
            case End():
                self._end_when_said(action)

    def _clear(self) -> None:
        was_speaking = self._voice.queued_ms > 0
        cleared = self._voice.clear()
        self._do(self._conversation.cleared(cleared, was_speaking=was_speaking))
        if self._ending is not None:  # nobody wants to hear the rest
            self._end_now()

    def _arm(self) -> None:
        """Wake up when a stage has had its time. A timer that is early looks again."""
        deadline = self._conversation.deadline()
        if deadline is None or self._ended:
            return
        loop = asyncio.get_running_loop()
        at = loop.time() + max(0.0, deadline - time.monotonic())
        if self._timer is not None:
            if self._timer.when() <= at:
                return
            self._timer.cancel()
        self._timer = loop.call_at(at, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        try:
            self._do(self._conversation.advance(time.monotonic()))
        except Exception as error:
            log.error("call %s: its pipeline failed", self._call.call_id, exc_info=error)
            self._fail(repr(error))

    def _fail(self, detail: str) -> None:
        code = Ending.BACKEND_FAILED
        self._call.send_event(build_error(code.value, f"the call ends: {detail}", kind="server_error"))
        self._ending = End(code, detail)
        self._end_now()

    def _end_when_said(self, end: End) -> None:
        if self._ending is None:
            self._ending = end
            if not self._voice.mark(_END):
                self._end_now()

    def _end_now(self) -> None:
        end = self._ending
        if end is not None and not self._ended:
            self._call.hang_up(end.ending, end.detail)


def _new_id(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(10)}"

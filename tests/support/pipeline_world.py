"""A conversation in simulated time: every event is checked against the schema of the openai package, the voice is a real
playout queue, and the stages answer when the test says so.
"""

import itertools
import json

from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

from voicefleet_dataplane.media.agent import Clear, End, Mark, Say, Tell
from voicefleet_dataplane.media.backend import CallConfig, Cleared
from voicefleet_dataplane.media.pipeline.actions import (
    Ask,
    Conclude,
    Feed,
    Forget,
    Hush,
    Listen,
    Speak,
    Withdraw,
)
from voicefleet_dataplane.media.pipeline.chat import Finished, TextDelta
from voicefleet_dataplane.media.pipeline.client_events import ClientEvents
from voicefleet_dataplane.media.pipeline.conversation import Conversation, Plan
from voicefleet_dataplane.media.pipeline.events import EventWriter
from voicefleet_dataplane.media.playout import Playout

SCHEMA = TypeAdapter(RealtimeServerEvent)
FRAME_MS = 20
MS_OF_SPEECH = 48  # bytes of 24 kHz PCM


class PipelineWorld:
    """One call."""

    def __init__(self, session: dict | None = None, **plan) -> None:
        self.now = 100.0
        self.events: list[dict] = []
        self.heard: dict[str, bytearray] = {}
        self.concluded: list[str] = []
        self.forgotten: list[str] = []
        self.asked: list[Ask] = []
        self.withdrawn: list[str] = []
        self.sentences: list[Speak] = []
        self.hushed: list[str] = []
        self.ended: End | None = None
        self._numbers = itertools.count(1)
        self.playout = Playout(FRAME_MS * MS_OF_SPEECH, 8 << 20)
        self.said: str | None = None
        config = CallConfig("call_1", "acme", session or {})
        events = EventWriter(lambda kind: f"{kind}_{next(self._numbers)}")
        plan = Plan(**{"transcriber": "Ear", "voice": ""} | plan)
        self.core = Conversation(config, plan, events, lambda: self.playout.queued_ms)
        self.client_events = ClientEvents(self.core, events)
        self.do(self.core.open())

    def do(self, actions) -> None:
        for action in actions:
            match action:
                case Tell(event):
                    self.events.append(self.checked(json.loads(event)))
                case Listen(name):
                    assert name not in self.heard
                    self.heard[name] = bytearray()
                case Feed(name, pcm):
                    assert name not in self.concluded
                    self.heard[name] += pcm
                case Conclude(name):
                    self.concluded.append(name)
                case Forget(name):
                    self.forgotten.append(name)
                case Ask():
                    self.asked.append(action)
                case Withdraw(turn):
                    self.withdrawn.append(turn)
                case Speak():
                    self.sentences.append(action)
                case Hush(job):
                    self.hushed.append(job)
                case Say(pcm, tag):
                    assert self.playout.say(pcm, tag)
                case Mark(name):
                    assert self.playout.mark(name)
                case Clear():
                    was_speaking = self.playout.queued_ms > 0
                    cleared: Cleared = self.playout.clear()
                    self.said = None
                    self.do(self.core.cleared(cleared, was_speaking=was_speaking))
                case End():
                    self.ended = action
                case _:
                    raise AssertionError(action)

    @staticmethod
    def checked(event: dict) -> dict:
        SCHEMA.validate_python(event)
        return event

    # ---- time

    def wait(self, seconds: float) -> None:
        """Let time pass as the shell does: woken at deadlines."""
        end = self.now + seconds
        for _ in range(10_000):
            deadline = self.core.deadline()
            if deadline is None or deadline > end:
                break
            self.now = max(self.now, deadline)
            self.do(self.core.advance(self.now))
        else:
            raise AssertionError("it wakes up over and over")
        self.now = end

    def play(self, ms: int) -> None:
        """The voice goes on for so long."""
        for _ in range(ms // FRAME_MS):
            self.now += FRAME_MS / 1_000
            frame = self.playout.take()
            if frame is None:
                continue
            self.playout.note_played(frame)
            for tag, _ in frame.tags:
                if tag != self.said:
                    self.said = tag
                    self.do(self.core.playing(tag))
            for name in frame.marks:
                self.do(self.core.marked(name))

    # ---- the client

    def speech(self, ms: int, probability: float = 0.9) -> None:
        for _ in range(ms // FRAME_MS):
            self.now += FRAME_MS / 1_000
            self.do(self.core.speech(bytes(640), [probability], FRAME_MS, self.now))

    def silence(self, ms: int) -> None:
        self.speech(ms, 0.01)

    def utter(self, words: str, ms: int = 1_000) -> str:
        """Say something and wait for the end of the turn; the engine knows the words."""
        self.speech(ms)
        self.silence(600)
        utterance = self.concluded[-1]
        self.do(self.core.words(utterance, words, self.now))
        return utterance

    def client(self, kind: str, **fields) -> None:
        self.do(self.client_events.take(json.dumps({"type": kind, **fields}), self.now))

    # ---- the stages

    def answer(self, *texts: str, done: bool = True) -> None:
        pieces = [TextDelta(text) for text in texts]
        self.do(self.core.answered(self.asked[-1].turn, [*pieces, *([Finished()] if done else [])], self.now))

    def speak(self, ms: int = 1_000) -> None:
        """Make speech of the sentence that is wanted."""
        job = self.sentences[-1].job
        self.do(self.core.sound(job, bytes(ms * MS_OF_SPEECH), self.now))
        self.do(self.core.spoken(job, self.now))

    def speak_all(self, ms: int = 1_000) -> None:
        count = 0
        while len(self.sentences) > count:
            count = len(self.sentences)
            self.speak(ms)

    # ---- what the test looks at

    def kinds(self) -> list[str]:
        return [event["type"] for event in self.events]

    def told(self, kind: str) -> list[dict]:
        return [event for event in self.events if event["type"] == kind]

    def last(self, kind: str) -> dict:
        return self.told(kind)[-1]

    def errors(self) -> list[str]:
        return [event["error"]["code"] for event in self.told("error")]

    def messages(self) -> list[dict]:
        return self.asked[-1].request["messages"]


def asking(session: dict | None = None, **plan) -> PipelineWorld:
    """Somebody has asked, and the text handler has not answered."""
    world = PipelineWorld(session, **plan)
    world.silence(500)
    world.utter("what time is it")
    return world


def answering(*texts: str, **plan) -> PipelineWorld:
    """The answer is being heard."""
    world = asking(**plan)
    world.answer(*texts)
    world.speak_all(2_000)
    world.play(400)
    return world

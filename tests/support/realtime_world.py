"""A Realtime agent, its protocol core and a voice, in virtual time: what the agent is sent, what the client is told and hears."""

import base64
import json

from tests.support.voice_world import World
from voicefleet_dataplane.media.agent import AgentError, Clear, End, Forgive, Mark, Say, Send, Tell
from voicefleet_dataplane.media.backend import CallConfig, RateHz
from voicefleet_dataplane.media.openai_realtime import OpenAIRealtime


class RealtimeWorld(World):
    """The shell's part (shell/agents/backend.py) without its line."""

    def __init__(self, **wishes) -> None:
        super().__init__(RateHz.REALTIME, **wishes)
        self.core = OpenAIRealtime(CallConfig("call_1"))
        self.to_agent: list[dict] = []
        self.to_client: list[dict] = []
        self.forgiven: list[str] = []
        self.do(self.core.open())
        self.says(type="session.created", session={})
        self.says(type="session.updated", session={})
        self.to_agent.clear()
        self.to_client.clear()

    def do(self, actions) -> None:
        for action in actions:
            match action:
                case Send(message):
                    self.to_agent.append(json.loads(message))
                case Tell(event):
                    self.to_client.append(json.loads(event))
                case Say(audio, tag):
                    assert self.voice.say(audio, tag)
                case Mark(name):
                    assert self.voice.mark(name)
                case Clear():
                    was_speaking = self.voice.queued_ms > 0
                    self.do(self.core.cleared(self.voice.clear(), was_speaking=was_speaking))
                case Forgive(what):
                    self.forgiven.append(what)
                case End():
                    raise AssertionError(action)

    def says(self, **event) -> None:
        """The agent sends an event."""
        self.do(self.core.receive(json.dumps(event)))

    def strikes(self, message: str | bytes) -> bool:
        try:
            self.do(self.core.receive(message))
        except AgentError:
            return True
        return False

    def wants(self, **event) -> None:
        """The client sends an event."""
        self.do(self.core.event(json.dumps(event)))

    def delta(self, item: str, seconds: float | bytes, response: str = "resp_1", *, encoded: str | None = None) -> None:
        pcm = seconds if isinstance(seconds, bytes) else bytes(int(seconds * 24_000) * 2)
        delta = base64.b64encode(pcm).decode() if encoded is None else encoded
        self.says(type="response.output_audio.delta", item_id=item, response_id=response, content_index=0, delta=delta)

    def done(self, item: str, response: str = "resp_1") -> None:
        self.says(type="response.output_audio.done", item_id=item, response_id=response)

    def truncations(self) -> list[tuple[str, int]]:
        return [
            (one["item_id"], one["audio_end_ms"])
            for one in self.to_agent
            if one["type"] == "conversation.item.truncate"
        ]

    def told_of(self, kind: str) -> list[str]:
        return [one.get("response_id", "") for one in self.to_client if one["type"] == kind]

    def on_playing(self, tag: str) -> None:
        super().on_playing(tag)
        self.do(self.core.playing(tag))

    def on_mark(self, name: str) -> None:
        super().on_mark(name)
        self.do(self.core.marked(name))

"""What the conversation asks of its stages. Say, Mark, Clear, Tell and End are every agent's (media/agent.py).

::

    Conversation ── Listen, Feed, Conclude, Forget ─▶ speech to text ── words, words_failed ─┐
         ▲       ── Ask, Withdraw ──────────────────▶ text handler ──── answered, … ─────────┤
         │       ── Speak, Hush ────────────────────▶ text to speech ── sound, spoken, … ────┤
         └───────────────────────────────────────────────────────────────────────────────────┘

Each has a name that its answers carry. An answer to something that was forgotten, withdrawn or hushed is no news.

Owns: the words between the core and its shell (shell/pipeline/backend.py). Does not own: any stage.
"""

from dataclasses import dataclass
from typing import Any

from voicefleet_dataplane.media import agent


@dataclass(frozen=True, slots=True)
class Listen:
    """An utterance begins."""

    utterance: str


@dataclass(frozen=True, slots=True)
class Feed:
    """More of it: PCM at 16 kHz."""

    utterance: str
    pcm: bytes


@dataclass(frozen=True, slots=True)
class Conclude:
    """That was all of it: the words, please."""

    utterance: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Nobody wants its words."""

    utterance: str


@dataclass(frozen=True, slots=True)
class Ask:
    """What to answer; the request is a Chat Completions body."""

    turn: str
    request: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Nobody wants the answer any more."""

    turn: str


@dataclass(frozen=True, slots=True)
class Speak:
    """Make speech of a sentence: PCM at 24 kHz."""

    job: str
    text: str
    voice: str
    speed: float


@dataclass(frozen=True, slots=True)
class Hush:
    """Nobody wants to hear it any more."""

    job: str


Action = (
    Listen
    | Feed
    | Conclude
    | Forget
    | Ask
    | Withdraw
    | Speak
    | Hush
    | agent.Say
    | agent.Mark
    | agent.Clear
    | agent.Tell
    | agent.End
)
Actions = list[Action]

"""What an engine of the voice pipeline must be able to do, and how one is found.

An engine is an entry point of an installed package: ours are in pyproject.toml, another image may have others. Its name there
is what `spec.backend.pipeline` says.

Owns: the protocols and the search. Does not own: any engine.
Invariant: PCM is 16 bit, little endian, mono; 16 kHz from the client, 24 kHz to it.
"""

from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol

VOICE_ACTIVITY = "voicefleet.voice_activity"
SPEECH_TO_TEXT = "voicefleet.speech_to_text"
TEXT_TO_SPEECH = "voicefleet.text_to_speech"


class VoiceActivity(Protocol):
    """One call's ear. Runs in the codec thread: as cheap as a codec, and without the GIL for all that is not."""

    window_ms: float

    def judge(self, pcm: bytes) -> list[float]:
        """Take a whole number of 20 ms frames; return how likely speech is in each window that is complete."""


class VoiceActivityEngine(Protocol):
    """Made once in a transceiver."""

    def open(self) -> VoiceActivity:
        """Return one call's."""


class Recogniser(Protocol):
    """One utterance after the other. Runs in a process of its own."""

    def start(self) -> None:
        """An utterance begins; what was there of another one is forgotten."""

    def feed(self, pcm: bytes) -> None:
        """More of it."""

    def finish(self) -> str:
        """Return its words; empty when there are none."""


class SpeechToText(Protocol):
    """Made once in a process."""

    def open(self) -> Recogniser:
        """Return one more: as many as there are utterances at once."""


class TextToSpeech(Protocol):
    """Made once in a process of its own."""

    default_voice: str

    def speak(self, text: str, voice: str, speed: float) -> Iterator[bytes]:
        """Give the speech in pieces, as soon as each is there."""


def find_engine(group: str, name: str) -> Callable[[], Any]:
    """Return what makes an engine; nothing of it is imported yet. Raises ValueError naming what there is.

    ``module:Class`` is taken as it is: whoever writes an engine tries it before there is a package. No resource can say it.
    """
    there = {point.name: point for point in entry_points(group=group)}
    point = EntryPoint(name, name, group) if ":" in name else there.get(name)
    if point is None:
        have = ", ".join(sorted(there)) or "none"
        stage = group.removeprefix("voicefleet.")
        raise ValueError(f"no engine {name!r} for {stage} is installed here; there are: {have}")

    def make() -> Any:
        return point.load()()

    return make

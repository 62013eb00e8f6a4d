"""Dialects of the Realtime WebSocket: what differs from one implementation to the next, as data.

Owns: names and rates. Does not own: what is done with them (media/openai_realtime.py).
"""

from dataclasses import dataclass
from enum import StrEnum

from voicefleet_dataplane.media.backend import RateHz


class Profile(StrEnum):
    """As `spec.backend.profile` spells them."""

    OPENAI = "OpenAI"  # the released API
    OPENAI_BETA = "OpenAIBeta"  # the names before it, which many copies still use
    VLLM = "vLLM"  # transcription only


@dataclass(frozen=True, slots=True)
class Dialect:
    """One implementation's names."""

    rate: RateHz
    audio_delta: str
    audio_done: str
    nested_audio: bool = True  # session.audio.input.format, not session.input_audio_format
    commit_first: bool = False  # transcription only: it starts at a commit
    headers: tuple[tuple[str, str], ...] = ()
    renamed: tuple[tuple[str, str, str], ...] = ()  # (their event, our event, their text field): transcripts


DIALECTS = {
    Profile.OPENAI: Dialect(RateHz.REALTIME, "response.output_audio.delta", "response.output_audio.done"),
    Profile.OPENAI_BETA: Dialect(
        RateHz.REALTIME,
        "response.audio.delta",
        "response.audio.done",
        nested_audio=False,
        headers=(("OpenAI-Beta", "realtime=v1"),),
    ),
    Profile.VLLM: Dialect(
        RateHz.WIDE,
        "",
        "",
        commit_first=True,
        renamed=(
            ("transcription.delta", "conversation.item.input_audio_transcription.delta", "delta"),
            ("transcription.done", "conversation.item.input_audio_transcription.completed", "text"),
        ),
    ),
}

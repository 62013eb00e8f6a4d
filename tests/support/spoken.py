"""Questions in a voice that no pipeline has, and an ear for answers: what goes in and comes out is compared by its words."""

import asyncio
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from voicefleet_dataplane.engines.pocket_sphinx import PocketSphinx
from voicefleet_dataplane.media.speech import Samples, read_wav
from voicefleet_dataplane.shell.client.talker import Talker

# No setting names them. PocketSphinx knows them when this voice says them.
SENTENCES = (
    "Can you call my mother on the telephone?",
    "How much money do we have in the bank?",
    "The children are playing in the garden.",
    "My sister will arrive on Monday afternoon.",
)
UNDERSTOOD = 0.7  # of a sentence's words
STRANGER_AT_MOST = 0.5  # all have a "the"
VOICE = "rms"  # a man's; the pipeline's is a woman's


def say_with_flite(text: str) -> Samples:
    """Return a sentence at 48 kHz, as flite says it."""
    program = shutil.which("flite")
    assert program, "flite is not installed: run `make deps`"
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        subprocess.run([program, "-voice", VOICE, "-t", text, "-o", file.name], check=True, timeout=30)
        return read_wav(Path(file.name))


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def understood(said: str, heard: str) -> float:
    """Which part of the words of a sentence are in another."""
    words = words_of(said)
    there = words_of(heard)
    return sum(word in there for word in words) / max(1, len(words))


async def recognise(samples: Samples) -> str:
    """Return the words of a recording at 48 kHz; an engine of our own process, which nothing else uses."""

    def work() -> str:
        quiet = np.zeros(8_000, np.int16)
        whole = samples[: len(samples) // 3 * 3].astype(np.float64).reshape(-1, 3).mean(axis=1).astype("<i2")
        ear = PocketSphinx().open()
        ear.start()
        ear.feed(np.concatenate([quiet, whole, quiet]).tobytes())
        return ear.finish()

    return await asyncio.to_thread(work)


@dataclass
class Turn:
    """A sentence that was understood: its words, the answer's, and the audio that came back."""

    heard: str
    answered: str
    audio: Samples


async def assert_answers_are_spoken(turns: Sequence[Turn], each: float = UNDERSTOOD) -> None:
    """The audio of each answer holds the words that it should, and not those of another; all in all most of its words.

    On loopback each is heard whole, again and again. On a cluster whose machine has other work while an answer plays, our small ear
    may miss more of one of them: ``each`` is what it must hear of every single answer.
    """
    scores = []
    for turn in turns:
        in_audio = await recognise(turn.audio)
        own = understood(turn.heard, in_audio)
        others = [understood(other.heard, in_audio) for other in turns if other is not turn]
        assert own >= each, (turn.heard, in_audio)
        assert own > max(others, default=0.0), (turn.heard, in_audio)
        scores.append((own, turn.heard, in_audio))
    assert sum(score for score, *_ in scores) >= UNDERSTOOD * len(scores), scores


async def ask(talker: Talker, sentence: str) -> Turn:
    """Say a sentence and wait for its answer; once more when it was not understood, as a person would: the machine has other work."""
    everything: list[str] = []
    for _ in range(2):
        before, stopped = len(talker.heard()), len(talker.told("output_audio_buffer.stopped"))
        await talker.say(say_with_flite(sentence))
        await talker.event("output_audio_buffer.stopped", stopped + 1, within_s=60)
        heard = talker.told("conversation.item.input_audio_transcription.completed")[-1]["transcript"]
        everything.append(heard)
        if understood(sentence, heard) >= UNDERSTOOD:
            strangers = [understood(other, heard) for other in SENTENCES if other != sentence]
            assert max(strangers) <= STRANGER_AT_MOST, heard
            answered = talker.told("response.output_audio_transcript.done")[-1]["transcript"]
            return Turn(heard, answered, talker.heard(before))
    raise AssertionError(f"{sentence!r} was heard as {everything}")

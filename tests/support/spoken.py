"""Questions in a voice that no pipeline has, and an ear for answers: what goes in and comes out is compared by its words."""

import asyncio
import re
import shutil
import subprocess

import numpy as np

from voicefleet_dataplane.engines.pocket_sphinx import PocketSphinx
from voicefleet_dataplane.media.speech import Samples

# No setting names them. PocketSphinx knows them when espeak-ng says them.
SENTENCES = (
    "Can you call my mother on the telephone?",
    "Please send the money to my brother in the morning.",
    "The children are playing in the garden.",
    "I would like to book a table for two tomorrow evening.",
)
UNDERSTOOD = 0.7  # of a sentence's words; strangers share "the"
STRANGER_AT_MOST = 0.4


def say_with_espeak(text: str) -> Samples:
    """Return a sentence at 48 kHz, as espeak-ng says it."""
    program = shutil.which("espeak-ng")
    assert program, "espeak-ng is not installed: run `make deps`"
    argv = [program, "-v", "en-us", "-s", "140", "--stdout", text]
    wav = subprocess.run(argv, capture_output=True, check=True, timeout=30).stdout
    rate = int.from_bytes(wav[24:28], "little")
    samples = np.frombuffer(wav[44:], np.int16)
    places = np.arange(0, len(samples) - 1, rate / 48_000)
    return np.asarray(np.interp(places, np.arange(len(samples)), samples), np.int16)


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

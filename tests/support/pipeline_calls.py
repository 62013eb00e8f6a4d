"""Calls of a real pipeline with engines that are fakes (tests/support/fake_engines.py), and what callers do in them."""

import numpy as np

from tests.support.fake_call import FakeCall
from tests.support.voice_world import speech_like
from voicefleet_dataplane.media.backend import CallConfig

ENGINES = "tests.support.fake_engines:"
FAKES = {
    "backend": "Pipeline",
    "pipeline_voice_activity": ENGINES + "Ears",
    "pipeline_speech_to_text": ENGINES + "Words",
    "pipeline_text_to_speech": ENGINES + "Tone",
    "pipeline_text": "Repeat",
}


def pipeline(**settings) -> FakeCall:
    if "backend_url" in settings:
        settings = {"pipeline_text": "Hook"} | settings
    return FakeCall(CallConfig("call_1", "acme", {"instructions": "be brief"}), **FAKES | settings)


def spoken(seconds: float = 1.0, before_s: float = 0.4, after_s: float = 0.8) -> np.ndarray:
    quiet = [np.zeros(int(48_000 * s), np.int16) for s in (before_s, after_s)]
    return np.concatenate([quiet[0], speech_like(seconds, 48_000), quiet[1]])


async def said_and_answered(call: FakeCall, count: int = 1) -> None:
    await call.speak(spoken())
    await call.until(lambda: len(call.told("output_audio_buffer.stopped")) == count)


async def failed(call: FakeCall) -> dict:
    """Speak, and wait until the response has failed; gives it."""
    await call.speak(spoken())
    await call.until(lambda: call.told("response.done"))
    return call.told("response.done")[-1]["response"]

"""Engines that know what they were given, and engines that misbehave, for the processes of a pipeline."""

import os
import time

import numpy as np


class Ears:
    """Whatever is loud is speech."""

    window_ms = 20.0

    def open(self):
        return self

    def judge(self, pcm: bytes) -> list[float]:
        frames = np.frombuffer(pcm, np.int16).reshape(-1, 320).astype(float)
        return [float(np.abs(frame).mean() > 500) for frame in frames]


class FailingEars(Ears):
    def judge(self, pcm: bytes) -> list[float]:
        raise ValueError("these ears are gone")


class Words:
    """Its words are how much it heard."""

    def open(self):
        return type(self)()

    def start(self) -> None:
        self.heard = 0

    def feed(self, pcm: bytes) -> None:
        self.heard += len(pcm)

    def finish(self) -> str:
        return f"{self.heard // 32} ms"


class FailingWords(Words):
    def finish(self) -> str:
        raise ValueError("these ears are deaf")


class CrashingWords(Words):
    def finish(self) -> str:
        os._exit(3)


class HangingWords(Words):
    def finish(self) -> str:
        time.sleep(1_000)
        return ""


class SlowWords(Words):
    def feed(self, pcm: bytes) -> None:
        super().feed(pcm)
        time.sleep(0.02)


class Missing:
    """Cannot be made."""

    def __init__(self) -> None:
        raise FileNotFoundError("the model is not there")


class Tone:
    """Ten milliseconds a character."""

    default_voice = "tone"

    def speak(self, text: str, voice: str, speed: float):
        samples = np.sin(np.arange(240 * len(text)) / 20) * 8_000
        pcm = samples.astype("<i2").tobytes()
        yield pcm[: len(pcm) // 4 * 2]
        yield pcm[len(pcm) // 4 * 2 :]


class FailingTone(Tone):
    def speak(self, text: str, voice: str, speed: float):
        raise ValueError("this voice is hoarse")
        yield b""

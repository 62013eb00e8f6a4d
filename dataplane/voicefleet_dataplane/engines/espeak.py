"""espeak-ng: a hundred languages, a robot's voice. The image must have the program (Debian: espeak-ng); ours does not."""

import io
import shutil
import subprocess
import wave
from collections.abc import Iterator

import numpy as np
import soxr

_RATE = 24_000
_WORDS_PER_MINUTE = 165
_TIMEOUT_S = 30.0


class EspeakNG:
    """The program, once for each sentence."""

    default_voice = "en-us"

    def __init__(self) -> None:
        program = shutil.which("espeak-ng")
        if program is None:
            raise ValueError("the program espeak-ng is not installed in this image (docs/pipeline.md)")
        self._program = program

    def speak(self, text: str, voice: str, speed: float) -> Iterator[bytes]:
        """Give it in one piece."""
        argv = [self._program, "-v", voice or self.default_voice, "-s", str(int(_WORDS_PER_MINUTE * speed)), "--stdout"]
        done = subprocess.run(argv, input=text.encode(), capture_output=True, timeout=_TIMEOUT_S, check=False)
        if done.returncode != 0:
            raise ValueError(f"espeak-ng: {done.stderr.decode(errors='replace').strip()[:200]}")
        with wave.open(io.BytesIO(done.stdout)) as wav:
            samples = np.frombuffer(wav.readframes(wav.getnframes()), np.int16)
            yield soxr.resample(samples, wav.getframerate(), _RATE).astype("<i2").tobytes()

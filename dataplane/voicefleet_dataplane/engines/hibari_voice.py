"""hibari: a small neural English voice, a hundred times faster than speech, that its package carries whole.

Its other voices would be downloaded when first used: they are refused.
"""

from collections.abc import Iterator

import numpy as np
from hibari import Hibari as Model


class Hibari:
    """The voice."""

    default_voice = "heart"

    def __init__(self) -> None:
        self._model = Model()
        self._model("Ready.")  # the first words load the dictionary: not a caller's

    def speak(self, text: str, voice: str, speed: float) -> Iterator[bytes]:
        """Give sentence after sentence."""
        if voice not in ("", self.default_voice):
            raise ValueError(f"there is no voice {voice!r}: this engine has {self.default_voice!r}")
        for samples in self._model.stream(text, speed=max(0.5, speed)):
            yield (np.clip(samples, -1.0, 1.0) * 32_767).astype("<i2").tobytes()

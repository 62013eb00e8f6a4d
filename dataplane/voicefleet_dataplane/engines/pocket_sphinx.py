"""PocketSphinx with the American English model of its package: words while they are spoken, a quarter of a core a speaker.

It holds the GIL while it works. A decoder is 95 MB, and one utterance at a time.
"""

import pocketsphinx


class PocketSphinx:
    """Nothing is shared between decoders."""

    def open(self) -> "SphinxRecogniser":
        """Return one decoder: 0.3 s."""
        return SphinxRecogniser()


class SphinxRecogniser:
    """One decoder."""

    def __init__(self) -> None:
        path = pocketsphinx.get_model_path
        self._decoder = pocketsphinx.Decoder(
            hmm=path("en-us/en-us"),
            lm=path("en-us/en-us.lm.bin"),
            dict=path("en-us/cmudict-en-us.dict"),
            loglevel="FATAL",
        )
        self._started = False

    def start(self) -> None:
        """Begin."""
        if self._started:
            self._decoder.end_utt()
        self._decoder.start_utt()
        self._started = True

    def feed(self, pcm: bytes) -> None:
        """Decode more."""
        self._decoder.process_raw(pcm)

    def finish(self) -> str:
        """Return the words."""
        self._decoder.end_utt()
        self._started = False
        hypothesis = self._decoder.hyp()
        return hypothesis.hypstr if hypothesis is not None else ""

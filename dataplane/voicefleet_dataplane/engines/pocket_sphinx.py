"""PocketSphinx with the American English model of its package: words while they are spoken, a quarter of a core a speaker.

It holds the GIL while it works. A decoder is 95 MB, and one utterance at a time.
"""

import pocketsphinx

# What it takes for the mean of speech (cepstra) when an utterance begins: measured over two voices through Opus. Its own guess costs a
# stranger's first sentence every other word, and what it learnt of the last caller is not the next one's.
_SPEECH = "48.68,5.50,-3.82,14.12,-8.23,-0.36,-2.99,-4.29,-0.33,-6.54,3.41,-2.84,-0.31"


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
        self._decoder.set_cmn(_SPEECH)
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

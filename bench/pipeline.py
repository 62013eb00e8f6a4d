"""`make bench-pipeline`: what the engines of a voice pipeline cost.

CPU is this process's, user and system, one thread: a busy machine makes it a little worse, not many times. Speech is made here, in two
voices: flite's and Hibari's, and goes through Opus as a call's does. Only the last figure is a time: a fleet of its own is asked, and answers.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

from bench.report import Report
from tests.support.spoken import SENTENCES, say_with_flite
from voicefleet_dataplane.commands.dev import DevFleet
from voicefleet_dataplane.engines.hibari_voice import Hibari
from voicefleet_dataplane.engines.pocket_sphinx import PocketSphinx
from voicefleet_dataplane.engines.silero import Silero
from voicefleet_dataplane.engines.webrtc import WebRTC
from voicefleet_dataplane.media.opus import OpusDecoder, OpusEncoder

PIECE = 3_200  # bytes: 100 ms at 16 kHz, as a pipeline feeds it
FRAME = 640
SPEAKS = 0.4  # of a call's time


def cpu_s(work: Callable[[], object]) -> float:
    before = time.process_time()
    work()
    return time.process_time() - before


def through_opus(samples: np.ndarray) -> bytes:
    """48 kHz to 16 kHz, as a transceiver decodes it, between a little silence."""
    encoder, decoder = OpusEncoder(48_000), OpusDecoder(16_000)
    padded = np.concatenate([np.zeros(14_400, np.int16), samples, np.zeros(24_000 + -len(samples) % 960, np.int16)])
    frames = (padded[at : at + 960].tobytes() for at in range(0, len(padded) // 960 * 960, 960))
    return b"".join(decoder.decode(encoder.encode(frame)) for frame in frames)


def hibari_speech(engine: Hibari, text: str) -> np.ndarray:
    return np.repeat(np.frombuffer(b"".join(engine.speak(text, "", 1.0)), np.int16), 2)


def answered_after_ms(rounds: int) -> list[float]:
    """From the caller's last word to the first sound of the answer, through relay, transceiver, every stage and back."""
    found = []
    with DevFleet(transceivers=1, backend={"backend": "Pipeline", "pipeline_text": "Repeat"}) as fleet:
        program = [sys.executable, "-m", "voicefleet_dataplane", "ask", fleet.url, "--key", fleet.api_key, "--json"]
        for sentence in SENTENCES * rounds:
            argv = [*program, "--cacert", str(fleet.ca_file), "--say", sentence]
            done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=120)
            found.append(float(json.loads(done.stdout)["silence_ms"]))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    runs = 1 if parser.parse_args().quick else 5
    voice = Hibari()
    spoken = {
        "Hibari's voice": [through_opus(hibari_speech(voice, text)) for text in SENTENCES],
        "flite's voice": [through_opus(say_with_flite(text)) for text in SENTENCES],
    }
    everything = [pcm for pcms in spoken.values() for pcm in pcms]
    seconds = sum(map(len, everything)) / 32_000
    report = Report("pipeline", sentences=len(everything), seconds_of_speech=round(seconds, 1), runs=runs)
    before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    ear = PocketSphinx().open()
    decoder_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before_mb

    def judge(engine: Silero | WebRTC) -> None:
        one = engine.open()
        for pcm in everything:
            for at in range(0, len(pcm) // FRAME * FRAME, FRAME):
                one.judge(pcm[at : at + FRAME])

    what = "CPU for each second of speech"
    for who, engine in (("voice activity: Silero", Silero()), ("voice activity: WebRTC", WebRTC())):
        report.row("cost", who, what, "ms", [cpu_s(lambda e=engine: judge(e)) / seconds * 1e3 for _ in range(runs)])
    heard, last = [], []
    for _ in range(runs):
        total = end = 0.0
        for pcm in everything:
            ear.start()
            total += cpu_s(lambda p=pcm: [ear.feed(p[at : at + PIECE]) for at in range(0, len(p), PIECE)])
            end += cpu_s(ear.finish)
        heard.append((total + end) / seconds * 1e3)
        last.append(end / len(everything) * 1e3)
    who = "speech to text: PocketSphinx"
    speaker_ms = report.row("cost", who, what, "ms", heard)
    report.row("cost", who, "after the last sound", "ms", last)
    report.row("cost", who, "memory for each utterance at once", "MB", [decoder_mb])
    said, first = [], []
    for _ in range(runs):
        made: list[np.ndarray] = []
        spent = cpu_s(lambda: made.extend(hibari_speech(voice, text) for text in SENTENCES))  # noqa: B023
        said.append(spent / (sum(map(len, made)) / 48_000) * 1e3)
        first.append(spent / len(SENTENCES) * 1e3)
    report.row("cost", "text to speech: Hibari", what, "ms", said)
    report.row("cost", "text to speech: Hibari", "for a sentence", "ms", first)
    report.row(
        "calls",
        "PocketSphinx",
        "calls a core whose callers speak two fifths of the time",
        "calls",
        [1e3 / (speaker_ms * SPEAKS)],
    )
    report.row("calls", "PocketSphinx", "a core, callers who speak at once", "calls", [1e3 / speaker_ms])
    report.row(
        "latency", "a whole fleet, one call", "last word → first sound", "ms", answered_after_ms(1 if runs == 1 else 3)
    )
    print(report.write())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

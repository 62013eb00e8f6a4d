"""Speech for test calls: a WAV into Opus packets, Opus packets back into samples, and whether two recordings are the same.

Everything that costs CPU happens before or after a call: ten calls on two cores must not disturb one another. Samples are
mono int16 at 48 kHz.

Owns: coding and comparing. Does not own: pacing or RTP.
"""

import io
import wave
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import av
import numpy as np
from av.audio.resampler import AudioResampler
from numpy.typing import NDArray

RATE = 48_000
FRAME = 960  # 20 ms
_COMPARE_DECIMATION = 6  # 8 kHz tell voices apart, at a sixth of the work
_OPUS_FRAME_BYTES_MAX = 1_275

Samples = NDArray[np.int16]


class SpeechError(ValueError):
    """A WAV that cannot be used; the text says why."""


def read_wav(path: Path, speed: float = 1.0) -> Samples:
    """Return a WAV's samples. ``speed`` plays it faster or slower: a recording of its own for each call."""
    try:
        with av.open(str(path)) as container:
            resampler = AudioResampler(format="s16", layout="mono", rate=RATE)
            parts = [part.to_ndarray()[0] for frame in container.decode(audio=0) for part in resampler.resample(frame)]
            parts += [part.to_ndarray()[0] for part in resampler.resample(None)]
    except (av.FFmpegError, OSError, IndexError) as error:
        raise SpeechError(f"{path}: {error}") from None
    samples = np.concatenate(parts) if parts else np.zeros(0, np.int16)
    if len(samples) < RATE // 10:
        raise SpeechError(f"{path}: less than 100 ms of audio")
    if speed == 1.0:
        return samples
    places = np.arange(0, len(samples) - 1, speed)
    return np.asarray(np.interp(places, np.arange(len(samples)), samples), np.int16)


def encode_opus(samples: Samples) -> list[bytes]:
    """Return one Opus packet for each 20 ms."""
    encoder = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format = RATE, "mono", "s16"
    encoder.bit_rate = 32_000
    encoder.options = {"application": "voip", "frame_duration": "20"}
    padded = np.append(samples, np.zeros(-len(samples) % FRAME, np.int16))
    packets = []
    for start in range(0, len(padded), FRAME):
        frame = av.AudioFrame.from_ndarray(padded[start : start + FRAME].reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts = RATE, start
        packets += [bytes(packet) for packet in encoder.encode(frame)]
    return packets


def decode_opus(packets: Mapping[int, bytes]) -> Samples:
    """Return the samples of packets by frame number; a missing one is 20 ms of silence."""
    if not packets:
        return np.zeros(0, np.int16)
    decoder = av.CodecContext.create("libopus", "r")
    decoder.sample_rate, decoder.layout = RATE, "mono"
    first, last = min(packets), max(packets)
    heard = np.zeros((last - first + 1) * FRAME, np.int16)
    for number in range(first, last + 1):
        payload = packets.get(number)
        if payload is None or len(payload) > _OPUS_FRAME_BYTES_MAX:
            continue
        try:
            frames = decoder.decode(av.Packet(payload))
        except av.FFmpegError:
            continue
        for frame in frames:
            samples = mono(frame)[:FRAME]
            start = (number - first) * FRAME
            heard[start : start + len(samples)] = samples
    return heard


def mono(frame: av.AudioFrame) -> Samples:
    """Return a frame's first channel."""
    samples = frame.to_ndarray()
    channels = len(frame.layout.channels)
    mono = samples.reshape(-1, channels)[:, 0] if samples.shape[0] == 1 else samples[0]
    if mono.dtype.kind == "f":
        mono = np.clip(mono * 32_767, -32_768, 32_767)
    return np.asarray(mono, np.int16)


def similarity(sent: Samples, heard: Samples) -> float:
    """Return 0 (unrelated or silent) to 1 (the same): the peak of the normalised cross-correlation, at any delay."""
    first, second = _coarse(sent), _coarse(heard)
    norm = float(np.linalg.norm(first) * np.linalg.norm(second))
    if norm == 0:
        return 0.0
    size = 1 << (len(first) + len(second) - 1).bit_length()
    product = np.fft.rfft(first, size) * np.conj(np.fft.rfft(second, size))
    return float(np.abs(np.fft.irfft(product, size)).max() / norm)


def write_wav(samples: Samples) -> bytes:
    """Return a WAV file."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes(samples.tobytes())
    return buffer.getvalue()


def repeat(packets: Iterable[bytes], count: int) -> list[bytes]:
    """Return ``count`` packets: the recording over and over."""
    once = list(packets)
    return [once[number % len(once)] for number in range(count)]


def last(samples: Samples, frames: int) -> Samples:
    """Return so many frames of a recording: over and over."""
    return np.resize(samples, frames * FRAME)


def join(parts: Sequence[Samples]) -> Samples:
    """Return what was heard in parts."""
    return np.concatenate(parts) if parts else np.zeros(0, np.int16)


def _coarse(samples: Samples) -> NDArray[np.float64]:
    whole = samples[: len(samples) // _COMPARE_DECIMATION * _COMPARE_DECIMATION]
    coarse = np.asarray(whole.astype(np.float64).reshape(-1, _COMPARE_DECIMATION).mean(axis=1))
    return np.asarray(coarse - coarse.mean()) if len(coarse) else coarse

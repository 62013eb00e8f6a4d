"""Opus, by the libopus that PyAV ships (ADR 26): PyAV itself has no call for concealment or in-band FEC.

The codec takes and gives 8, 12, 16, 24 and 48 kHz as they are, so no voice needs a resampler. ctypes lets go of the GIL
while libopus works: another thread may run.

Owns: the library, one direction of one stream each. Does not own: threads, packets' order.
Invariant: any bytes give samples or OpusError; a decoder that failed goes on with the next packet.
"""

import ctypes
import ctypes.util
from array import array
from functools import cache
from pathlib import Path

import av

from voicefleet_dataplane.wire.opus import FRAME_MS, LONGEST_PACKET_TICKS, TICKS_PER_S
from voicefleet_dataplane.wire.sdp.model import NO_WISHES, OpusWishes

LARGEST_PACKET_BYTES = 1_500
_APPLICATION_VOIP = 2_048
_SET_BITRATE, _SET_MAX_BANDWIDTH, _SET_VBR, _SET_COMPLEXITY = 4_002, 4_004, 4_006, 4_010
_SET_INBAND_FEC, _SET_LOSS, _SET_DTX, _SET_SIGNAL = 4_012, 4_014, 4_016, 4_024
_SIGNAL_VOICE = 3_001

# Measured (ADR 26): as good to the ear as complexity 5 at 28 kb/s, at less than half of the CPU.
COMPLEXITY = 0
BITRATE = 32_000
# libopus takes tones, music and quiet voices for silence: what is louder than this is sent (-66 dB of full scale).
SILENT_PEAK = 16
_BANDWIDTHS = (
    (8_000, 1_101),
    (12_000, 1_102),
    (16_000, 1_103),
    (24_000, 1_104),
    (48_000, 1_105),
)  # RFC 7587 section 3.1.1


class OpusError(ValueError):
    """libopus refused; the text is its own."""


class OpusEncoder:
    """Frames of 20 ms, mono."""

    def __init__(
        self,
        rate_hz: int,
        *,
        bitrate: int = BITRATE,
        complexity: int = COMPLEXITY,
        dtx: bool = False,
        loss_percent: int = 0,
    ) -> None:
        self._library = library()
        self.frame_bytes = rate_hz * FRAME_MS // 1_000 * 2
        error = ctypes.c_int()
        self._state = self._library.opus_encoder_create(rate_hz, 1, _APPLICATION_VOIP, ctypes.byref(error))
        self._check(error.value)
        self._out = ctypes.create_string_buffer(LARGEST_PACKET_BYTES)
        self._set(_SET_BITRATE, bitrate)
        self._set(_SET_COMPLEXITY, complexity)
        self._set(_SET_SIGNAL, _SIGNAL_VOICE)
        self._bitrate = bitrate
        self._dtx = dtx
        self._is_silent = False
        self._wishes: OpusWishes = NO_WISHES
        self._loss_percent = -1
        self.expect_loss(loss_percent)

    def suit(self, wishes: OpusWishes) -> None:
        """Code as the receiver wishes, from the next frame on (RFC 7587 section 6.1)."""
        if wishes == self._wishes:
            return
        self._wishes = wishes
        self._dtx = wishes.dtx
        self._set(_SET_BITRATE, min(self._bitrate, wishes.max_bitrate or self._bitrate))
        self._set(_SET_VBR, int(not wishes.cbr))
        widest = next((code for hz, code in _BANDWIDTHS if wishes.max_playback_hz <= hz), _BANDWIDTHS[-1][1])
        self._set(_SET_MAX_BANDWIDTH, widest)

    def expect_loss(self, percent: int) -> None:
        """Carry each frame once more, coarsely, in the next one, as far as this much loss is worth it."""
        if percent != self._loss_percent:
            self._loss_percent = percent
            self._set(_SET_INBAND_FEC, int(percent > 0))
            self._set(_SET_LOSS, percent)

    def encode(self, pcm: bytes) -> bytes:
        """Return the packet of one frame, or of half of one (10 ms); of at most two bytes when DTX says that it need not be sent."""
        if len(pcm) not in (self.frame_bytes, self.frame_bytes // 2):
            raise OpusError(f"a frame has {self.frame_bytes} bytes, or half of them, not {len(pcm)}")
        if self._dtx or self._is_silent:
            self._note_silence(pcm)
        length = self._library.opus_encode(self._state, pcm, len(pcm) // 2, self._out, LARGEST_PACKET_BYTES)
        if length < 0:
            self._check(length)
        return self._out.raw[:length]

    def _note_silence(self, pcm: bytes) -> None:
        samples = array("h", pcm)
        is_silent = self._dtx and max(samples) <= SILENT_PEAK and min(samples) >= -SILENT_PEAK
        if is_silent != self._is_silent:
            self._is_silent = is_silent
            self._set(_SET_DTX, int(is_silent))

    def _set(self, request: int, value: int) -> None:
        self._check(self._library.opus_encoder_ctl(self._state, request, ctypes.c_int(value)))

    def _check(self, code: int) -> None:
        if code < 0:
            raise OpusError(self._library.opus_strerror(code).decode())

    def __del__(self) -> None:
        state, self._state = getattr(self, "_state", None), None
        if state:
            self._library.opus_encoder_destroy(state)


class OpusDecoder:
    """One client's stream, mono, whatever it sends."""

    def __init__(self, rate_hz: int) -> None:
        self._library = library()
        self._rate_hz = rate_hz
        error = ctypes.c_int()
        self._state = self._library.opus_decoder_create(rate_hz, 1, ctypes.byref(error))
        if error.value < 0:
            raise OpusError(self._library.opus_strerror(error.value).decode())
        self._most = LONGEST_PACKET_TICKS * rate_hz // TICKS_PER_S
        self._out = ctypes.create_string_buffer(self._most * 2)

    def decode(self, packet: bytes) -> bytes:
        """Return a packet's samples."""
        return self._decode(packet, self._most, 0)

    def recover(self, packet: bytes, ticks: int) -> bytes:
        """Return the samples **before** a packet, from the copy in it if there is one, else as `conceal`."""
        return self._decode(packet, ticks * self._rate_hz // TICKS_PER_S, 1)

    def conceal(self, ticks: int) -> bytes:
        """Return a likely continuation, fading out over several frames."""
        return self._decode(None, ticks * self._rate_hz // TICKS_PER_S, 0)

    def _decode(self, packet: bytes | None, samples: int, fec: int) -> bytes:
        got = self._library.opus_decode(self._state, packet, len(packet) if packet else 0, self._out, samples, fec)
        if got < 0:
            raise OpusError(self._library.opus_strerror(got).decode())
        return self._out.raw[: got * 2] if got < self._most else self._out.raw

    def __del__(self) -> None:
        state, self._state = getattr(self, "_state", None), None
        if state:
            self._library.opus_decoder_destroy(state)


def version() -> str:
    """Return what libopus calls itself."""
    found: bytes = library().opus_get_version_string()
    return found.decode()


@cache
def library() -> ctypes.CDLL:
    """Return libopus."""
    found = sorted((Path(av.__file__).parent.parent / "av.libs").glob("libopus-*.so*"))
    name = str(found[0]) if found else ctypes.util.find_library("opus")
    if name is None:
        raise OpusError("no libopus: PyAV's wheel has none, nor has the system; install the package libopus0")
    library = ctypes.CDLL(name)
    state, size = ctypes.c_void_p, ctypes.c_int32
    library.opus_get_version_string.restype = ctypes.c_char_p
    library.opus_strerror.restype = ctypes.c_char_p
    library.opus_encoder_create.restype = library.opus_decoder_create.restype = state
    library.opus_encoder_create.argtypes = [size, ctypes.c_int, ctypes.c_int, ctypes.c_void_p]
    library.opus_decoder_create.argtypes = [size, ctypes.c_int, ctypes.c_void_p]
    library.opus_encoder_destroy.argtypes = library.opus_decoder_destroy.argtypes = [state]
    library.opus_encode.argtypes = [state, ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p, size]
    library.opus_decode.argtypes = [state, ctypes.c_char_p, size, ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
    library.opus_encoder_ctl.argtypes = [state, ctypes.c_int]
    library.opus_repacketizer_cat.argtypes = [state, ctypes.c_char_p, size]
    library.opus_repacketizer_out.argtypes = [state, state, size]
    return library

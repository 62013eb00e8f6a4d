"""μ-law (ITU-T G.711), as telephone protocols want it, by table: 160 samples in a few microseconds, no library.

The standard library's audioop is gone from Python 3.13.
"""

import sys
from array import array

_BIAS = 0x84
_CLIP = 32_635


def _encode_sample(sample: int) -> int:
    sign = 0x80 if sample < 0 else 0
    magnitude = min(abs(sample), _CLIP) + _BIAS
    exponent = magnitude.bit_length() - 8
    return ~(sign | exponent << 4 | magnitude >> (exponent + 3) & 0x0F) & 0xFF


def _decode_sample(code: int) -> int:
    code = ~code & 0xFF
    magnitude = (((code & 0x0F) << 3) + _BIAS << (code >> 4 & 7)) - _BIAS
    return -magnitude if code & 0x80 else magnitude


# Indexed by the unsigned reading of a sample: sixteen bits of two's complement.
_CODES = bytes(_encode_sample(number - 65_536 if number >= 32_768 else number) for number in range(65_536))
_SAMPLES = [_decode_sample(code).to_bytes(2, "little", signed=True) for code in range(256)]
_LOW_BYTES, _HIGH_BYTES = (bytes(sample[half] for sample in _SAMPLES) for half in (0, 1))


def encode_mulaw(pcm: bytes) -> bytes:
    """Return one byte for each sample of 16-bit little-endian PCM."""
    samples = array("H", pcm)
    if sys.byteorder == "big":
        samples.byteswap()
    codes = _CODES
    return bytes([codes[sample] for sample in samples])


def decode_mulaw(codes: bytes) -> bytes:
    """Return 16-bit little-endian PCM."""
    pcm = bytearray(2 * len(codes))
    pcm[::2], pcm[1::2] = codes.translate(_LOW_BYTES), codes.translate(_HIGH_BYTES)
    return bytes(pcm)

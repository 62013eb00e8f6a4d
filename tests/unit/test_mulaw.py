"""μ-law against the standard library's, where it still has one."""

import warnings

import numpy as np

from voicefleet_dataplane.media.mulaw import decode_mulaw, encode_mulaw

# ITU-T G.711 table 2a: decision values and codes at the segment ends, and zero.
REFERENCE = {
    0: 0xFF,
    -1: 0x7F,
    32_635: 0x80,
    -32_635: 0x00,
    132: 0xEF,
    -132: 0x6F,
    1_000: 0xCE,
    -32_768: 0x00,
    32_767: 0x80,
}


def test_codes_are_the_standards():
    for sample, code in REFERENCE.items():
        assert encode_mulaw(sample.to_bytes(2, "little", signed=True)) == bytes((code,)), sample


def test_every_sample_is_as_audioop_has_it():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            import audioop
        except ImportError:  # Python 3.13: the reference values above remain
            return
    pcm = np.arange(-32_768, 32_768).astype("<i2").tobytes()
    ours, theirs = np.frombuffer(encode_mulaw(pcm), np.uint8), np.frombuffer(audioop.lin2ulaw(pcm, 2), np.uint8)
    assert (ours != theirs).mean() < 0.01  # audioop shifts to 14 bits first
    assert decode_mulaw(bytes(range(256))) == audioop.ulaw2lin(bytes(range(256)), 2)


def test_coding_twice_changes_nothing_more():
    codes = bytes(range(256))
    assert encode_mulaw(decode_mulaw(codes)) == codes.replace(b"\x7f", b"\xff")  # there are two zeros

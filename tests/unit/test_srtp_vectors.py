"""SRTP held against RFC 3711 and RFC 7714: a second implementation, proved by the RFCs' own vectors, makes the same packets.

The RFCs' packet vectors begin at session keys, and ours (libsrtp's) at master keys. So the derivation of RFC 3711 section 4.3 is
written here a second time, proved by appendix B.3, and put in front of the ciphers that B.2 and RFC 7714 section 16 prove.
"""

import hmac

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from voicefleet_dataplane.core.call.srtp import AES_128_CM_SHA1_80, PROFILES, Srtp, SrtpKeys
from voicefleet_dataplane.wire.rtp import RtpPacket, build_rtp

SEQUENCE, SSRC = 0xF17B, 0x5501A0B2
PLAIN = b"Gallia est omnis divisa in partes tres"
SALT = b"Quid pro quo"
HEADER = bytes.fromhex("8040f17b8041f8d35501a0b2")
SEALED_128 = (
    "f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a51c7d19b36de3adf8833899d7f27beb16a9152cf765ee4390cce"
)
SEALED_256 = (
    "32b1de78a822fe12ef9f78fa332e33aab18012389a58e2f3b50b2a0276ffae0f1ba63799b87b7aa3db36dfffd6b0f9bb7878d7a76c13"
)


def keystream(key: bytes, counter: int, length: int) -> bytes:
    """AES in counter mode (RFC 3711 section 4.1.1); the counter's last 16 bits count blocks."""
    encryptor = Cipher(algorithms.AES(key), modes.CTR(counter.to_bytes(16))).encryptor()
    return encryptor.update(bytes(length))


def derive(key: bytes, salt: bytes, label: int, length: int) -> bytes:
    """RFC 3711 section 4.3.1 with a key derivation rate of 0; salts of 96 bits stand left in 112 (RFC 7714 section 11)."""
    value = int.from_bytes(salt.ljust(14, b"\0")) ^ (label << 48)
    return keystream(key, value << 16, length)


def gcm_iv(salt: bytes, ssrc: int, rollover: int, sequence: int) -> bytes:
    """RFC 7714 section 8.1."""
    packet = bytes(2) + ssrc.to_bytes(4) + rollover.to_bytes(4) + sequence.to_bytes(2)
    return bytes(one ^ other for one, other in zip(packet, salt, strict=True))


def test_the_keystream_is_that_of_rfc_3711_appendix_b_2():
    key = bytes.fromhex("2B7E151628AED2A6ABF7158809CF4F3C")
    counter = int("F0F1F2F3F4F5F6F7F8F9FAFBFCFD0000", 16)
    assert keystream(key, counter, 48) == bytes.fromhex(
        "E03EAD0935C95E80E166B16DD92B4EB4D23513162B02D0F72A43A2FE4A5F97AB41E95B3BB0A2E8DD477901E4FCA894C0"
    )


def test_session_keys_are_those_of_rfc_3711_appendix_b_3():
    key, salt = bytes.fromhex("E1F97A0D3E018BE0D64FA32C06DE4139"), bytes.fromhex("0EC675AD498AFEEBB6960B3AABE6")
    assert derive(key, salt, 0, 16).hex() == "c61e7a93744f39ee10734afe3ff7a087"
    assert derive(key, salt, 2, 14).hex() == "30cbbc08863d8c85d49db34a9ae1"
    assert derive(key, salt, 1, 20).hex() == "cebe321f6ff7716b6fd4ab49af256a156d38baa4"


@pytest.mark.parametrize(
    ("key_bytes", "sealed"),
    [(16, SEALED_128), (32, SEALED_256)],
)
def test_packets_are_those_of_rfc_7714_section_16(key_bytes, sealed):
    iv = gcm_iv(SALT, SSRC, 0, SEQUENCE)
    assert iv.hex() == "51753c6580c2726f20718414"
    assert AESGCM(bytes(range(key_bytes))).encrypt(iv, PLAIN, HEADER).hex() == sealed


def seal(profile, key: bytes, salt: bytes, packet: RtpPacket, rollover: int = 0) -> bytes:
    """A packet, protected by what the tests above have proved."""
    clear = build_rtp(packet)
    header, payload = clear[:12], clear[12:]
    session_key = derive(key, salt, 0, profile.key_bytes)
    session_salt = derive(key, salt, 2, profile.salt_bytes)
    if profile is not AES_128_CM_SHA1_80:
        return header + AESGCM(session_key).encrypt(
            gcm_iv(session_salt, packet.ssrc, rollover, packet.sequence), payload, header
        )
    counter = int.from_bytes(session_salt) << 16 ^ packet.ssrc << 64 ^ (rollover << 16 | packet.sequence) << 16
    stream = keystream(session_key, counter, len(payload))
    sealed = header + bytes(one ^ other for one, other in zip(payload, stream, strict=True))
    tag = hmac.digest(derive(key, salt, 1, 20), sealed + rollover.to_bytes(4), "sha1")[:10]
    return sealed + tag


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_our_packets_are_those_of_the_second_implementation_both_ways(profile):
    master = bytes((7 * number + 3) & 0xFF for number in range(profile.key_bytes + profile.salt_bytes))
    key, salt = master[: profile.key_bytes], master[profile.key_bytes :]
    ours, theirs = Srtp(SrtpKeys(profile, master, master)), Srtp(SrtpKeys(profile, master, master))
    for number in range(0xFFF0, 0x10010):  # across the wrap of the number, which the rollover counter takes part in
        packet = RtpPacket(False, 64, number & 0xFFFF, 0x8041F8D3, SSRC, PLAIN)
        sealed = seal(profile, key, salt, packet, number >> 16)
        assert ours.protect(build_rtp(packet)) == sealed
        assert theirs.unprotect_untrusted(sealed) == build_rtp(packet)


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_no_bit_of_a_packet_may_change(profile):
    master = bytes(range(profile.key_bytes + profile.salt_bytes))
    key, salt = master[: profile.key_bytes], master[profile.key_bytes :]
    sealed = seal(profile, key, salt, RtpPacket(False, 64, SEQUENCE, 1, SSRC, PLAIN))
    receiver = Srtp(SrtpKeys(profile, master, master))
    for bit in range(len(sealed) * 8):
        bent = bytearray(sealed)
        bent[bit // 8] ^= 1 << bit % 8
        assert receiver.unprotect_untrusted(bytes(bent)) is None
    for length in range(len(sealed)):
        assert receiver.unprotect_untrusted(sealed[:length]) is None
    assert receiver.unprotect_untrusted(sealed) is not None

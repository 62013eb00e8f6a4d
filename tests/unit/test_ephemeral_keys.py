"""Ephemeral keys: what a gateway seals, any gateway of the fleet opens, and nobody else reads or makes."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicefleet_contract.ephemeral_keys import (
    MAX_KEY_CHARS,
    PREFIX,
    SALT_BYTES,
    EphemeralKey,
    EphemeralKeyError,
    SessionTooLargeError,
    decode_ephemeral_key,
    encode_ephemeral_key,
)
from voicefleet_contract.http_api import MAX_SESSION_BYTES
from voicefleet_contract.keys import KeyRing
from voicefleet_contract.session_object import MAX_SESSION_DEPTH, parse_session_untrusted

NOW = 1_800_000_000.0
RING = KeyRing({1: b"a" * 32}, 1)
SALT = bytes(range(SALT_BYTES))
KEY = EphemeralKey(
    "acme", int(NOW) + 600, {"type": "realtime", "instructions": "be the butler, for nobody else to read"}
)


def reason(text: str, ring: KeyRing = RING, now: float = NOW) -> str:
    with pytest.raises(EphemeralKeyError) as caught:
        decode_ephemeral_key(text, ring, now)
    return caught.value.reason


def raw(text: str) -> bytes:
    body = text[len(PREFIX) :]
    return base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))


def packed(data: bytes) -> str:
    return PREFIX + base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def test_what_was_sealed_is_opened():
    text = encode_ephemeral_key(KEY, RING, SALT)
    assert text.startswith("ek_")
    assert decode_ephemeral_key(text, RING, NOW) == KEY


def test_every_session_that_is_taken_comes_out_again():
    deepest = parse_session_untrusted(b'{"a":' * MAX_SESSION_DEPTH + b"1" + b"}" * MAX_SESSION_DEPTH)
    largest = {"instructions": "x" * (MAX_SESSION_BYTES - 40)}
    for session in (deepest, largest, {}):
        text = encode_ephemeral_key(EphemeralKey("acme", KEY.expires_at, session), RING, SALT)
        assert decode_ephemeral_key(text, RING, NOW).session == session


def test_a_browser_cannot_read_the_instructions():
    longer = EphemeralKey("acme", KEY.expires_at, {"instructions": "butler " * 100})
    sealed = raw(encode_ephemeral_key(longer, RING, SALT))
    assert b"butler" not in sealed
    assert b"acme" not in sealed


def test_two_keys_of_one_session_share_nothing():
    one, two = (raw(encode_ephemeral_key(KEY, RING, bytes([n]) * SALT_BYTES)) for n in (1, 2))
    assert len(one) == len(two)
    assert sum(a == b for a, b in zip(one[17:], two[17:], strict=True)) < len(one) / 10


def test_it_expires_on_the_second():
    text = encode_ephemeral_key(KEY, RING, SALT)
    decode_ephemeral_key(text, RING, KEY.expires_at - 0.001)
    assert reason(text, now=float(KEY.expires_at)) == "expired"


def test_a_key_of_the_epoch_before_opens_until_the_epoch_is_retired():
    text = encode_ephemeral_key(KEY, RING, SALT)
    both = RING.with_epochs({1: b"x" * 32, 2: b"b" * 32}, 2)
    assert decode_ephemeral_key(text, both, NOW) == KEY
    assert reason(text, both.with_epochs({2: b"x" * 32}, 2)) == "key_epoch"
    assert raw(encode_ephemeral_key(KEY, both, SALT))[0] & 0x1F == 2


def test_another_fleets_key_opens_nothing():
    assert reason(encode_ephemeral_key(KEY, KeyRing({1: b"z" * 32}, 1), SALT)) == "tag"


def test_every_bit_counts():
    data = bytearray(raw(encode_ephemeral_key(KEY, RING, SALT)))
    for index in range(len(data)):
        data[index] ^= 1
        assert reason(packed(data)) in {"tag", "key_epoch", "version"}
        data[index] ^= 1


@pytest.mark.parametrize("cut", [1, 2, 3, 16, 40, 100])
def test_a_truncated_key_opens_nothing(cut):
    text = encode_ephemeral_key(KEY, RING, SALT)
    assert reason(text[:-cut]) in {"tag", "form"}


@given(st.text(max_size=200).map(lambda text: PREFIX + text) | st.binary(max_size=200).map(packed))
def test_anything_else_is_refused_without_a_stumble(text):
    assert reason(text) in {"form", "version", "key_epoch", "tag"}


def test_a_session_that_no_header_carries_is_refused_with_both_numbers():
    import random

    noise = random.Random(1).randbytes(MAX_KEY_CHARS).hex()
    with pytest.raises(SessionTooLargeError, match=rf"\d+ characters.*at most {MAX_KEY_CHARS}"):
        encode_ephemeral_key(EphemeralKey("acme", KEY.expires_at, {"instructions": noise}), RING, SALT)


def test_long_instructions_fit_because_they_are_compressed():
    instructions = " ".join(f"Rule {n}: when the caller asks about order {n * 7919}, look it up." for n in range(600))
    assert len(instructions) > 30_000
    text = encode_ephemeral_key(EphemeralKey("acme", KEY.expires_at, {"instructions": instructions}), RING, SALT)
    assert len(text) < MAX_KEY_CHARS

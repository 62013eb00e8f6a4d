"""The hint codec: bytes, errors, and what each bit costs a forger."""

import base64

import pytest

from voicefleet_contract.hint import Hint, HintError, decode_hint, encode_hint, ice_pwd, peek_hint
from voicefleet_contract.keys import KeyRing, KeyRingError

KEYS = KeyRing({3: b"\x03" * 32, 4: b"\x04" * 32}, signing=4)
HINT = Hint(key_epoch=4, cluster=0x1234, slot=0x56789A, generation=0xBCDE, nonce=0xF0123456)


def test_the_fields_stand_where_the_picture_says() -> None:
    raw = base64.b64decode(encode_hint(HINT, KEYS))
    assert raw[:12].hex() == "24" + "1234" + "56789a" + "bcde" + "f0123456"
    assert len(raw) == 18


def test_the_vectors_that_every_version_must_read() -> None:
    assert encode_hint(HINT, KEYS) == "JBI0VniavN7wEjRWVzkRwfxD"
    assert ice_pwd("JBI0VniavN7wEjRWVzkRwfxD", 4, KEYS) == "yzv/u2lunYWS0BAmF0PHMyl8vLO3Pbe8"


@pytest.mark.parametrize(
    ("ufrag", "reason"),
    [
        ("", "length"),
        ("A" * 23, "length"),
        ("A" * 25, "length"),
        ("=" * 24, "alphabet"),
        ("é" * 24, "alphabet"),
        (b"\xff" * 24, "alphabet"),
        ("-_" * 12, "alphabet"),
        ("A" * 24, "version"),
        ("/" * 24, "version"),
    ],
)
def test_each_malformed_ufrag_has_its_reason(ufrag: str | bytes, reason: str) -> None:
    with pytest.raises(HintError) as caught:
        decode_hint(ufrag, KEYS)
    assert caught.value.reason == reason


def test_every_single_bit_flip_is_refused() -> None:
    raw = base64.b64decode(encode_hint(HINT, KEYS))
    for bit in range(len(raw) * 8):
        forged = bytearray(raw)
        forged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(HintError):
            decode_hint(base64.b64encode(bytes(forged)), KEYS)


def test_an_unknown_key_epoch_is_told_from_a_bad_tag() -> None:
    ufrag = encode_hint(HINT, KEYS)
    with pytest.raises(HintError, match="key_epoch"):
        decode_hint(ufrag, KeyRing({5: b"\x05" * 32}, signing=5))
    with pytest.raises(HintError, match="tag"):
        decode_hint(ufrag, KeyRing({4: b"\x99" * 32}, signing=4))


def test_an_old_epoch_verifies_while_the_new_one_signs() -> None:
    old = encode_hint(Hint(3, 1, 2, 3, 4), KEYS)
    assert decode_hint(old, KEYS).key_epoch == 3


def test_the_password_depends_on_the_whole_ufrag_and_is_long_enough() -> None:
    first = ice_pwd(encode_hint(HINT, KEYS), 4, KEYS)
    second = ice_pwd(encode_hint(Hint(4, 0x1234, 0x56789A, 0xBCDE, 0xF0123457), KEYS), 4, KEYS)
    assert first != second
    assert len(first) == 32  # RFC 8445 §5.3: at least 128 bits of randomness


def test_peeking_needs_no_key_and_checks_nothing() -> None:
    forged = encode_hint(HINT, KEYS)[:-1] + "A"
    assert peek_hint(forged) == HINT


def test_a_key_ring_never_shows_a_secret() -> None:
    assert "BAQE" not in repr(KEYS)
    assert "04" not in repr(KEYS).replace("4)", "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"signing":1,"epochs":{}}',
        '{"signing":1,"epochs":{"1":"AA=="}}',
        f'{{"signing":40,"epochs":{{"40":"{base64.b64encode(bytes(32)).decode()}"}}}}',
    ],
)
def test_a_wrong_key_file_raises_the_one_error(text: str) -> None:
    with pytest.raises(KeyRingError):
        KeyRing.parse(text)


def test_a_key_file_reads_back() -> None:
    again = KeyRing.parse(KEYS.to_json())
    assert encode_hint(HINT, again) == encode_hint(HINT, KEYS)

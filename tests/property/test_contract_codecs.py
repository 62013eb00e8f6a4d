"""decode(encode(x)) = x; and whatever the bytes, only the one documented error."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicefleet_contract.addresses import Address, normalise
from voicefleet_contract.announcement import (
    MAX_UNIX_MS,
    Addressee,
    AnnouncementError,
    decode_announcement,
    encode_announcement,
)
from voicefleet_contract.cached_flow import CachedFlowError, decode_cached_flow, encode_cached_flow
from voicefleet_contract.call_id import CallId, CallIdError, decode_call_id, encode_call_id, peek_call_id
from voicefleet_contract.hint import Hint, HintError, decode_hint, encode_hint, peek_hint
from voicefleet_contract.keys import KeyRing, KeyRingError
from voicefleet_contract.spp import HEADER_BYTES, SppError, decode_spp, encode_spp
from voicefleet_contract.topology import Topology, TopologyError, TopologySlice

KEYS = KeyRing({0: b"a" * 32, 31: b"b" * 32}, signing=31)

hints = st.builds(
    Hint,
    key_epoch=st.sampled_from([0, 31]),
    cluster=st.integers(0, 0xFFFF),
    slot=st.integers(0, 0xFFFFFF),
    generation=st.integers(0, 0xFFFF),
    nonce=st.integers(0, 0xFFFFFFFF),
)
call_ids = st.builds(
    CallId,
    cluster=st.integers(0, 0xFFFF),
    slot=st.integers(0, 0xFFFFFF),
    generation=st.integers(0, 0xFFFF),
    nonce=st.integers(0, 2**64 - 1),
)
addresses = st.builds(Address, st.ip_addresses().map(lambda ip: normalise(str(ip))), st.integers(0, 65535))
owners = st.tuples(st.integers(0, 0xFFFFFF), st.integers(0, 0xFFFF))
addressees = st.builds(Addressee, st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFF), st.integers(0, 0xFFFF))
texts = st.text() | st.text(alphabet="ABCDEFGHabcdefgh0123+/", min_size=24, max_size=24)


@given(hints)
def test_a_hint_reads_back(hint: Hint) -> None:
    ufrag = encode_hint(hint, KEYS)
    assert decode_hint(ufrag, KEYS) == decode_hint(ufrag.encode(), KEYS) == peek_hint(ufrag) == hint


@given(texts | st.binary(max_size=40))
def test_no_text_makes_the_hint_codec_raise_anything_else(ufrag: str | bytes) -> None:
    for read in (lambda: decode_hint(ufrag, KEYS), lambda: peek_hint(ufrag)):
        try:
            read()
        except HintError:
            pass


@given(call_ids)
def test_a_call_id_reads_back(call: CallId) -> None:
    assert decode_call_id(encode_call_id(call, KEYS), KEYS) == call


@given(st.text() | texts.map(lambda tail: "call_" + tail + "AAAAAAAA"))
def test_no_text_makes_the_call_id_codec_raise_anything_else(text: str) -> None:
    for read in (lambda: decode_call_id(text, KEYS), lambda: peek_call_id(text)):
        try:
            read()
        except CallIdError:
            pass


@given(call_ids, st.integers(0, 31), st.sampled_from("ABCxyz019-_"))
def test_a_call_id_has_one_spelling(call: CallId, place: int, char: str) -> None:
    text = encode_call_id(call, KEYS)
    changed = text[: 5 + place] + char + text[6 + place :]
    try:
        assert decode_call_id(changed, KEYS) == call
        assert changed == text
    except CallIdError:
        assert changed != text


@given(addresses, addresses, st.binary(max_size=64))
def test_spp_reads_back(client: Address, relay: Address, payload: bytes) -> None:
    datagram = encode_spp(client, relay) + payload
    assert decode_spp(datagram) == (client, relay)
    assert datagram[HEADER_BYTES:] == payload


@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda tail: b"\x56\xec" + tail))
def test_no_datagram_makes_spp_raise_anything_else(datagram: bytes) -> None:
    try:
        client, _ = decode_spp(datagram)
        assert normalise(client.host) == client.host
    except SppError:
        pass


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_no_document_makes_the_topology_or_key_parsers_raise_anything_else(text: str | bytes) -> None:
    for read, error in (
        (Topology.load, TopologyError),
        (TopologySlice.load, TopologyError),
        (KeyRing.parse, KeyRingError),
    ):
        try:
            read(text)
        except error:
            pass


@given(addresses, owners, st.integers(0, 0xFFFF))
def test_a_cached_flow_reads_back_for_its_client_alone(client: Address, owner: tuple[int, int], cluster: int) -> None:
    record = encode_cached_flow(client, owner, cluster, KEYS)
    assert decode_cached_flow(record, client, cluster, KEYS) == owner
    for who, where in ((client._replace(port=client.port ^ 1), cluster), (client, cluster ^ 1)):
        with pytest.raises(CachedFlowError, match="tag"):
            decode_cached_flow(record, who, where, KEYS)


@given(st.binary(max_size=40) | st.binary(min_size=15, max_size=15).map(lambda tail: b"\x3f" + tail), addresses)
def test_no_bytes_make_the_cached_flow_codec_raise_anything_else(record: bytes, client: Address) -> None:
    try:
        decode_cached_flow(record, client, 1, KEYS)
    except CachedFlowError:
        pass


@given(addresses, addresses, addressees, st.integers(0, MAX_UNIX_MS), st.integers(0, 62 * 8 - 1))
def test_an_announcement_reads_back_and_no_bit_of_it_can_be_changed(
    client: Address, relay: Address, to: Addressee, unix_ms: int, bit: int
) -> None:
    datagram = encode_announcement(encode_spp(client, relay), to, unix_ms, KEYS)
    header, payload = datagram[:HEADER_BYTES], datagram[HEADER_BYTES:]
    assert decode_announcement(payload, header, to, KEYS) == unix_ms
    bent = bytearray(datagram)
    bent[bit // 8] ^= 1 << bit % 8
    with pytest.raises(AnnouncementError):
        decode_announcement(bytes(bent[HEADER_BYTES:]), bytes(bent[:HEADER_BYTES]), to, KEYS)


@given(st.binary(max_size=60) | st.binary(min_size=22, max_size=22).map(lambda tail: b"\x56\x3f" + tail), addressees)
def test_no_bytes_make_the_announcement_codec_raise_anything_else(payload: bytes, to: Addressee) -> None:
    try:
        decode_announcement(payload, b"h" * HEADER_BYTES, to, KEYS)
    except AnnouncementError:
        pass

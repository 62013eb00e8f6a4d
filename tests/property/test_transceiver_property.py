"""Random bytes to a transceiver: never an exception, never an answer, exactly one drop."""

from hypothesis import given
from hypothesis import strategies as st

from tests.support.transceiver import RELAY, STRANGER, World
from voicefleet_contract.spp import encode_spp

WORLD = World(accept_direct=True)
CALLER = WORLD.connected(echo=True)
HEADER = encode_spp(CALLER.address, RELAY)
FIRST_BYTES = st.sampled_from(
    [b"", b"\x00", b"\x01", b"\x14", b"\x15", b"\x16", b"\x17", b"\x3f", b"\x56", b"\x80", b"\x80\xc8", b"\xff"]
)


@given(FIRST_BYTES, st.binary(max_size=300), st.sampled_from([b"", HEADER]), st.sampled_from([RELAY, STRANGER]))
def test_random_bytes_move_exactly_one_counter_and_get_no_answer(first, rest, header, source):
    before = sum(WORLD.core.drops.values())
    reason = WORLD.core.receive(header + first + rest, source, WORLD.now)
    assert reason is not None
    assert sum(WORLD.core.drops.values()) == before + 1
    assert WORLD.drain() == []
    assert CALLER.session.state == "connected"


@given(st.integers(0, 2_000), st.integers(1, 255), st.sampled_from(["audio", "check"]))
def test_one_changed_byte_makes_a_drop_of_an_authentic_packet(position, change, kind):
    packet = CALLER.build_audio() if kind == "audio" else CALLER.build_check()
    # A check's last attribute, FINGERPRINT, may be missing: what MESSAGE-INTEGRITY covers must be whole.
    position %= len(packet) if kind == "audio" else len(packet) - 8
    bent = packet[:position] + bytes((packet[position] ^ change,)) + packet[position + 1 :]
    assert CALLER.send(bent) is not None
    assert WORLD.drain() == []
    assert CALLER.session.state == "connected"


@given(st.integers(0, 200))
def test_a_cut_packet_is_a_drop(length):
    for packet in (CALLER.build_audio(), CALLER.build_check()):
        if length < len(packet):
            assert CALLER.send(packet[:length]) is not None
    assert WORLD.drain() == []

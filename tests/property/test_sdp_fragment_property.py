"""Any bytes give a fragment or one error; what was built is what is read."""

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from voicefleet_contract.addresses import Address
from voicefleet_dataplane.wire.sdp.fragment import (
    MAX_CANDIDATES,
    Fragment,
    FragmentError,
    build_fragment,
    is_candidate,
    parse_fragment_untrusted,
)

GOOD = build_fragment("EsAw", "P2uYro0UCOQ4zxjKXaWCBui1", ["0"], [Address("192.0.2.1", 3478)]).encode()
ice_chars = st.text("ABCabc019+/", min_size=22, max_size=64)
addresses = st.builds(Address, st.ip_addresses().map(str), st.integers(1, 65_535))


def read(data: bytes) -> None:
    with contextlib.suppress(FragmentError):
        fragment = parse_fragment_untrusted(data)
        assert 4 <= len(fragment.ufrag) <= 256
        assert 22 <= len(fragment.pwd) <= 256
        assert fragment.candidates <= MAX_CANDIDATES
        assert (fragment.ufrag + fragment.pwd).isascii()
        assert (fragment.ufrag + fragment.pwd).isprintable()


@given(st.binary(max_size=400))
def test_random_bytes(data):
    read(data)


@given(st.lists(st.tuples(st.integers(0, len(GOOD)), st.binary(max_size=4)), max_size=8))
def test_a_good_fragment_with_pieces_thrown_in(pieces):
    data = GOOD
    for at, piece in pieces:
        data = data[:at] + piece + data[at:]
    read(data)


@given(
    ice_chars,
    ice_chars,
    st.lists(st.sampled_from(["0", "1", "audio"]), max_size=3, unique=True),
    st.lists(addresses, max_size=8),
)
def test_what_was_built_is_read(ufrag, pwd, mids, candidates):
    built = build_fragment(ufrag, pwd, mids, candidates)
    assert parse_fragment_untrusted(built.encode()) == Fragment(ufrag, pwd, len(candidates), is_last=True)


@given(st.text(max_size=200))
def test_a_candidate_is_one_line(text):
    assert not (is_candidate(text) and ("\n" in text or "\r" in text))

"""The structure of the plain ring: no 1/n claim, only what must never happen."""

from hypothesis import given, settings
from hypothesis import strategies as st

from voicefleet_contract.ring import Ring

slots = st.sets(st.integers(0, 0xFFFFFF), min_size=1, max_size=12)
KEYS = [b"call-%d" % n for n in range(100)]


def first(ring: Ring, key: bytes) -> int:
    return next(ring.owners(key))


@given(slots, st.randoms())
def test_any_input_order_gives_the_same_ring(members: set[int], random) -> None:
    shuffled = list(members)
    random.shuffle(shuffled)
    for key in KEYS[:20]:
        assert list(Ring(shuffled).owners(key)) == list(Ring(sorted(members)).owners(key))


@settings(max_examples=50)
@given(slots, st.data())
def test_removing_a_member_moves_only_its_keys(members: set[int], data) -> None:
    leaver = data.draw(st.sampled_from(sorted(members)))
    before, after = Ring(members), Ring(members - {leaver})
    for key in KEYS:
        if first(before, key) != leaver:
            assert first(after, key) == first(before, key)
        elif after.slots:
            assert first(after, key) == list(before.owners(key))[1]  # the next one in the walk takes them


@settings(max_examples=50)
@given(slots, st.integers(0, 0xFFFFFF))
def test_adding_a_member_moves_keys_only_to_it(members: set[int], joiner: int) -> None:
    before, after = Ring(members), Ring(members | {joiner})
    for key in KEYS:
        assert first(after, key) in {first(before, key), joiner}


@given(slots)
def test_the_walk_meets_every_member_once(members: set[int]) -> None:
    assert sorted(Ring(members).owners(b"x")) == sorted(members)


def test_an_empty_ring_has_no_owner() -> None:
    assert list(Ring([]).owners(b"x")) == []


def test_every_one_of_three_members_gets_calls() -> None:
    ring = Ring([1, 2, 3])
    assert {first(ring, key) for key in KEYS} == {1, 2, 3}

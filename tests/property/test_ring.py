"""The structure of the ring and of its bound: no 1/n claim, only what must never happen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import examples
from voicefleet_contract.ring import LOAD_FACTOR, LOAD_SLACK, MAX_WEIGHT, WEIGHT, Ring, imbalance, load_bound

weighted = st.dictionaries(st.integers(0, 0xFFFFFF), st.integers(1, 300), min_size=2, max_size=8)
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


@examples(50)
@given(slots, st.data())
def test_removing_a_member_moves_only_its_keys(members: set[int], data) -> None:
    leaver = data.draw(st.sampled_from(sorted(members)))
    before, after = Ring(members), Ring(members - {leaver})
    for key in KEYS:
        if first(before, key) != leaver:
            assert first(after, key) == first(before, key)
        elif after.slots:
            assert first(after, key) == list(before.owners(key))[1]  # the next one in the walk takes them


@examples(50)
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


@examples(50)
@given(weighted, st.data())
def test_more_weight_moves_keys_only_to_the_member_that_got_it(members: dict[int, int], data) -> None:
    grower = data.draw(st.sampled_from(sorted(members)))
    before, after = Ring(members), Ring(members | {grower: members[grower] + data.draw(st.integers(1, 300))})
    for key in KEYS:
        assert first(after, key) in {first(before, key), grower}


def test_members_of_the_usual_weight_make_the_ring_that_it_was_before_there_were_weights() -> None:
    assert Ring([1, 2, 3]).weights == {1: WEIGHT, 2: WEIGHT, 3: WEIGHT}
    assert len(Ring([1])._points) == 64


def test_twice_the_weight_gets_about_twice_the_keys_and_none_gets_none() -> None:
    ring = Ring({1: 100, 2: 200, 3: 0, 4: 100})
    counts = dict.fromkeys((1, 2, 3, 4), 0)
    for number in range(4000):
        counts[first(ring, b"%d" % number)] += 1
    assert counts[3] == 0
    assert 1.4 < counts[2] / ((counts[1] + counts[4]) / 2) < 2.8  # of 64 points each: wide, and always the same


@examples(60)
@given(weighted, st.integers(1, 400))
def test_whoever_keeps_to_the_bound_never_exceeds_it_and_every_call_finds_a_member(
    members: dict[int, int], calls: int
) -> None:
    ring, held, weight = Ring(members), dict.fromkeys(members, 0), sum(members.values())
    for number in range(calls):
        free = [s for s in ring.owners(b"%d" % number) if held[s] < load_bound(members[s], number + 1, weight)]
        held[free[0]] += 1  # the shares add up to more than the calls: somebody is below its own
    for slot, count in held.items():
        assert count <= LOAD_FACTOR * calls * members[slot] / weight + LOAD_SLACK + 1


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, MAX_WEIGHT)), max_size=8))
def test_imbalance_is_one_when_even_and_never_less(loads: list[tuple[int, int]]) -> None:
    assert imbalance(loads) >= 1 - 1e-9
    assert imbalance([(2 * weight, weight) for _, weight in loads]) in (1.0, pytest.approx(1.0))

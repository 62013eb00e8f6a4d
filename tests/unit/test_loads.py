"""What a gateway makes of what members said."""

from voicefleet_contract.ring import LOAD_SLACK, load_bound
from voicefleet_contract.topology import Member
from voicefleet_dataplane.core.loads import HEARD_FOR_S, Loads


def member(slot: int, generation: int = 1, weight: int = 100) -> Member:
    return Member(slot=slot, generation=generation, address="10.0.0.1", port=20000 + slot, weight=weight)


THREE = [member(0), member(1), member(2, weight=200)]


def heard(*sessions: int, at: float = 0.0) -> Loads:
    loads = Loads()
    for one, count in zip(THREE, sessions, strict=False):
        loads.hear(one, count, at)
    return loads


def test_the_bound_is_a_quarter_above_a_members_share_of_the_mean_and_a_few_calls() -> None:
    bounds = heard(10, 20, 49).bounds(THREE, 1.0)
    assert bounds == {0: 25 + LOAD_SLACK, 1: 25 + LOAD_SLACK, 2: 50 + LOAD_SLACK}


def test_of_members_not_heard_of_it_takes_the_mean_of_the_others() -> None:
    assert heard(10, 29).bounds(THREE, 1.0)[2] == load_bound(200, 40, 200)


def test_one_members_word_is_no_bound_nor_is_what_was_said_long_ago() -> None:
    assert heard(10).bounds(THREE, 1.0) == {}
    assert heard(10, 10).bounds(THREE, HEARD_FOR_S + 1) == {}


def test_a_generation_that_left_counts_for_nothing() -> None:
    loads = heard(10, 90)
    assert loads.bounds([member(0), member(1, generation=2)], 1.0) == {}


def test_imbalance_is_by_weight() -> None:
    assert heard(10, 10, 20).imbalance(THREE, 1.0) == 1.0
    assert heard(10, 10, 40).imbalance(THREE, 1.0) == 40 / 200 * 400 / 60
    assert Loads().imbalance(THREE, 1.0) == 1.0

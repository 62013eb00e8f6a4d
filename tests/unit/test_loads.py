"""What a gateway makes of what members said."""

from voicefleet_contract.ring import LOAD_SLACK, load_bound
from voicefleet_contract.topology import Member
from voicefleet_dataplane.core.gateway.loads import HEARD_FOR_S, Loads


def member(slot: int, generation: int = 1, weight: int = 100) -> Member:
    return Member(slot=slot, generation=generation, address="10.0.0.1", port=20000 + slot, weight=weight)


THREE = [member(0), member(1), member(2, weight=200)]


def heard(*sessions: int, at: float = 0.0) -> Loads:
    loads = Loads()
    for one, count in zip(THREE, sessions, strict=False):
        loads.hear(one, count, at)
    return loads


def test_the_bound_is_a_quarter_above_a_members_share_of_the_mean_and_a_few_calls() -> None:
    loads = heard(10, 20, 49)
    assert [loads.bound(one, 1.0) for one in THREE] == [25 + LOAD_SLACK, 25 + LOAD_SLACK, 50 + LOAD_SLACK]


def test_a_member_not_heard_of_has_the_mean_of_the_others() -> None:
    assert heard(10, 29).bound(THREE[2], 1.0) == load_bound(200, 40, 200)


def test_one_members_word_is_no_bound() -> None:
    assert heard(10).bound(THREE[0], 1.0) is None


def test_what_was_said_long_ago_counts_no_more() -> None:
    loads = heard(10, 10)
    assert loads.bound(THREE[0], HEARD_FOR_S) is not None
    loads.hear(THREE[0], 12, HEARD_FOR_S)
    assert loads.bound(THREE[0], HEARD_FOR_S + 1) is None


def test_a_members_newer_word_replaces_its_older_one() -> None:
    loads = heard(10, 10, 20)
    for sessions in range(11, 21):
        loads.hear(THREE[0], sessions, 1.0)
    assert loads.bound(THREE[1], 1.0) == load_bound(100, 51, 400)


def test_imbalance_is_by_weight() -> None:
    assert heard(10, 10, 20).imbalance(1.0) == 1.0
    assert heard(10, 10, 40).imbalance(1.0) == 40 / 200 * 400 / 60
    assert Loads().imbalance(1.0) == 1.0

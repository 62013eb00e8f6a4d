"""Cutting, joining and looking up the topology."""

import pytest

from voicefleet_contract.addresses import Address
from voicefleet_contract.topology import (
    Endpoint,
    Member,
    MemberState,
    Pool,
    Relay,
    Topology,
    TopologyError,
    TopologyIndex,
    join,
    split,
)


def member(slot: int, generation: int = 1, state: MemberState = MemberState.ACTIVE, port: int = 20000) -> Member:
    return Member(slot=slot, generation=generation, address=f"10.0.0.{slot % 200 + 1}", port=port, state=state)


def fleet(members: int = 3) -> Topology:
    relay = Relay(
        name="fra-x",
        relay="fra",
        inner=(Endpoint(address="10.0.1.1", port=3479),),
        advertise=(Endpoint(address="203.0.113.1", port=3478),),
    )
    pools = (Pool(name="agents", ring_epoch=4, members=tuple(member(s) for s in range(members))), Pool(name="empty"))
    return Topology(cluster=7, cluster_name="c", relays=(relay,), pools=pools)


def test_slices_join_to_what_was_split() -> None:
    whole = fleet(1000)
    slices = split(whole)
    assert len(slices) == 1000 // 200 + 2
    assert join(reversed(slices.values())) == whole


def test_one_members_change_rewrites_one_slice() -> None:
    before = fleet(1000)
    members = list(before.pools[0].members)
    members[450] = members[450].model_copy(update={"state": MemberState.DRAINING})
    after = before.model_copy(
        update={"pools": (before.pools[0].model_copy(update={"members": tuple(members)}), before.pools[1])}
    )
    changed = {name for name, part in split(after).items() if split(before)[name] != part}
    assert changed == {"pool-agents-2"}


def test_slices_of_two_clusters_do_not_join() -> None:
    other = fleet().model_copy(update={"cluster": 8})
    with pytest.raises(TopologyError, match="several clusters"):
        join([*split(fleet()).values(), *split(other).values()])


def test_no_slice_is_an_error_and_not_an_empty_fleet() -> None:
    with pytest.raises(TopologyError, match="no topology slice"):
        join([])


def test_a_wrong_document_names_the_field() -> None:
    with pytest.raises(TopologyError, match=r"pools\.0\.members\.0\.port"):
        Topology.load(
            '{"cluster":1,"pools":[{"name":"a","members":[{"slot":1,"generation":1,"address":"10.0.0.1","port":0}]}]}'
        )
    with pytest.raises(TopologyError, match="address"):
        Topology.load(
            '{"cluster":1,"pools":[{"name":"a","members":[{"slot":1,"generation":1,"address":"x","port":1}]}]}'
        )


def test_a_later_versions_fields_are_ignored() -> None:
    assert Topology.load('{"cluster":1,"weather":"fine"}').cluster == 1


def test_a_topology_reads_back() -> None:
    assert Topology.load(fleet().dump()) == fleet()


def test_a_draining_member_is_found_by_its_hint_but_takes_no_call() -> None:
    pool = Pool(
        name="a", members=(member(1), member(2, state=MemberState.DRAINING), member(3, state=MemberState.STARTING))
    )
    index = TopologyIndex(Topology(cluster=1, pools=(pool,)))
    assert set(index.active("a")) == {1} == set(index.ring("a").slots)
    assert index.member(2, 1) is not None
    assert index.member(2, 2) is None
    assert index.pool_of_slot(2) == "a"


def test_a_member_that_is_gone_is_a_stranger_on_the_inner_side() -> None:
    pool = Pool(name="a", members=(member(1, state=MemberState.GONE), member(1, generation=2, port=20001)))
    index = TopologyIndex(Topology(cluster=1, pools=(pool,)))
    assert index.member_at(Address("10.0.0.2", 20000)) is None
    found = index.member_at(Address("10.0.0.2", 20001))
    assert found is not None and found.generation == 2


def test_mapped_addresses_are_the_same_address() -> None:
    pool = Pool(name="a", members=(Member(slot=1, generation=1, address="::ffff:10.0.0.9", port=5),))
    assert TopologyIndex(Topology(cluster=1, pools=(pool,))).member_at(Address("10.0.0.9", 5)) is not None

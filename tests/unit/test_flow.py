"""The flow table: room and expiry, against a virtual clock."""

import pytest

from voicefleet_contract.addresses import Address
from voicefleet_dataplane.core.relay import flow as module
from voicefleet_dataplane.core.relay.flow import Flow, FlowTable
from voicefleet_dataplane.core.relay.flows_of_calls import MAX_FLOWS_PER_UFRAG

OWNER = Address("10.0.0.10", 20000)


def a_flow(number, alive_at=0.0, ufrag=None, slot=1):
    client = Address("198.51.100.1", number)
    return Flow(client, (slot, 1), OWNER, b"header %d" % number, ufrag or b"ufrag %d" % number, b"password", alive_at)


def a_table(count=0, **fields):
    table = FlowTable(fields.pop("max_flows", 1000), idle_s=30.0)
    for number in range(count):
        table.add(a_flow(number, **fields))
    return table


def test_an_empty_table_has_no_deadline():
    assert a_table().deadline() is None


def test_the_deadline_is_never_before_the_first_flow_can_end():
    table = a_table()
    for number, alive_at in enumerate((7.5, 3.25, 20.0)):
        table.add(a_flow(number, alive_at))
    assert 33.25 <= table.deadline() <= 34.25


def test_a_flow_is_forgotten_within_a_second_of_its_idle_time():
    table = a_table(1, alive_at=3.5)
    assert table.expire(33.4) == 0
    assert table.expire(34.5) == 1
    assert len(table) == 0
    assert table.deadline() is None


def test_a_flow_with_new_evidence_is_looked_at_again_later():
    table = a_table(1)
    flow = table.by_client[Address("198.51.100.1", 0)]
    flow.alive_at = 29.0
    assert table.expire(31.0) == 0
    assert table.deadline() == 60
    assert table.expire(60.0) == 1


def test_many_flows_that_end_together_are_forgotten_in_portions(monkeypatch):
    monkeypatch.setattr(module, "_LOOKS_AT_ONCE", 4)
    table = a_table(10)
    assert [table.expire(31.0) for _ in range(4)] == [4, 4, 2, 0]


def test_a_flow_that_was_forgotten_and_bound_again_does_not_end_early():
    table = a_table(1)
    table.forget(table.by_client[Address("198.51.100.1", 0)])
    table.add(a_flow(0, alive_at=20.0))
    assert table.expire(31.0) == 0
    assert len(table) == 1


def test_forgetting_gives_room_back():
    table = a_table(2, max_flows=2)
    assert table.full
    table.forget(next(iter(table)))
    assert not table.full


def test_room_per_ufrag_is_given_back_by_forgetting_and_by_renaming():
    table = a_table(MAX_FLOWS_PER_UFRAG, ufrag=b"one")
    assert not table.make_room(b"two")
    first, second, third, *_ = table
    table.rename(first, b"two")
    assert not table.make_room(b"one")
    table.rename(second, b"one")  # to what it is: nothing changes
    table.add(a_flow(1000, 5.0, ufrag=b"one"))
    second.alive_at = 9.0
    assert table.make_room(b"one")
    assert third not in list(table)  # the longest silent of those that are not the youngest evidence
    assert not table.make_room(b"one")


@pytest.mark.parametrize("slots", [(1, 1, 1), (1, 2, 2)])
def test_an_owner_is_known_while_it_holds_a_flow(slots):
    table = a_table()
    for number, slot in enumerate(slots):
        table.add(a_flow(number, slot=slot))
    assert set(table.owners()) == {((slot, 1), OWNER) for slot in slots}
    for flow in list(table):
        table.forget(flow)
    assert list(table.owners()) == []

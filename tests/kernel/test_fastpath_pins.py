"""What a predecessor, another version or another relay left: adopted, handed over from, or swept."""

import asyncio
import contextlib

import pytest

from tests.support.fastpath_world import FLOW_PORTS, PUBLIC, RULES, place, relay_node
from voicefleet_contract.addresses import Address
from voicefleet_contract.keys import KeyRing
from voicefleet_contract.settings import RelaySettings
from voicefleet_dataplane.core.relay.relay import Relay
from voicefleet_dataplane.fastpath import pins
from voicefleet_dataplane.fastpath.engine import Mode
from voicefleet_dataplane.fastpath.kernel import HandOverError, KernelFastPath
from voicefleet_dataplane.shell.relay.datapath import HAND_OVER_S, Datapath, flow_ports

KEYS = KeyRing({1: b"k" * 32}, signing=1)
NOW = f"v{pins.LAYOUT}"


@pytest.fixture
def node(namespaces):
    return relay_node(namespaces)


def settings(bpffs, **fields):
    values = {
        "cluster_id": 9,
        "inner_address": "10.1.0.1",
        "public_port": PUBLIC,
        "bpffs": str(bpffs),
        "datapath": "Auto",
    }
    return RelaySettings.model_validate(values | {"node_name": "n.1", "relay_name": "fra"} | fields)


@contextlib.contextmanager
def datapath(node, bpffs, now=100.0, **fields):
    """A relay's datapath without its sockets."""
    core = Relay(Address("10.1.0.1", 3479), KEYS, max_flows=1000, idle_s=30.0)
    with node.inside():
        found = Datapath(settings(bpffs, **fields), core, Address("0.0.0.0", PUBLIC), now)
        try:
            yield found, core
        finally:
            found.close(keep=False)


def leave_rules(node, bpffs, **fields):
    """A relay that was killed: what it pinned stays."""
    with node.inside():
        engine = KernelFastPath(place(bpffs, **fields), "Auto")
        for rule in RULES[:2]:
            engine.put(rule)
        engine.close(keep=True)


def layouts(bpffs, relay="fra"):
    return sorted(path.name for path in (bpffs / "voicefleet" / pins.spell("n.1") / relay).glob("*"))


def test_a_successor_knows_the_flows_again(node, bpffs):
    leave_rules(node, bpffs)
    with datapath(node, bpffs) as (found, core):
        assert (found.mode, found.adopted) == (Mode.TCX, 1)
        [flow] = core.flows
        assert (flow.client, flow.owner_address) == (RULES[0].seen.source, RULES[0].to.destination)
        assert (flow.owner, flow.bare, flow.awaits_owner) == ((5, 1), RULES[0].to.source, False)


def test_another_layout_forwards_on_until_owners_know_and_is_replaced_then(node, bpffs, monkeypatch):
    leave_rules(node, bpffs)
    monkeypatch.setattr(pins, "LAYOUT", 99)
    with datapath(node, bpffs) as (found, core):
        assert found.mode is Mode.USERSPACE
        assert found.reason.endswith(f"it is replaced in {HAND_OVER_S:g} s")
        asyncio.run(found.tend(100.0 + HAND_OVER_S - 1))
        assert (core.bypass, layouts(bpffs)) == (None, [NOW])
        asyncio.run(found.tend(100.0 + HAND_OVER_S))
        assert (found.mode, layouts(bpffs)) == (Mode.TCX, ["v99"])
        assert core.bypass is not None
    assert not (bpffs / "voicefleet").exists()


def test_user_space_after_a_kernel_path_takes_its_rules_away_when_owners_know(node, bpffs):
    leave_rules(node, bpffs)
    with datapath(node, bpffs, datapath="Userspace") as (found, _):
        assert layouts(bpffs) == [NOW]
        asyncio.run(found.tend(100.0 + HAND_OVER_S))
        assert found.reason == "user space is asked for"
        assert not (bpffs / "voicefleet").exists()


def end_lease(node, bpffs, **fields):
    """As after a minute without a process."""
    with node.inside():
        engine = KernelFastPath(place(bpffs, **fields), "Auto")
        engine._renew(-60.0)
        engine.close(keep=True)


def test_rules_of_our_own_that_nobody_stands_behind_any_more_are_not_adopted(node, bpffs):
    leave_rules(node, bpffs)
    end_lease(node, bpffs)
    with datapath(node, bpffs) as (found, core):
        assert (found.mode, found.adopted, len(core.flows)) == (Mode.TCX, 0, 0)


def test_what_another_version_left_without_a_lease_is_swept_and_waited_for_by_nobody(node, bpffs, monkeypatch):
    for relay in ("fra", "gone"):
        leave_rules(node, bpffs, relay=relay)
        end_lease(node, bpffs, relay=relay)
    monkeypatch.setattr(pins, "LAYOUT", 99)
    with datapath(node, bpffs) as (found, _):
        assert (found.mode, layouts(bpffs), layouts(bpffs, "gone")) == (Mode.TCX, ["v99"], [])


def test_what_a_relay_of_this_node_left_without_a_lease_is_swept_and_a_live_one_is_not(node, bpffs):
    leave_rules(node, bpffs, relay="gone")
    leave_rules(node, bpffs, relay="alive")
    end_lease(node, bpffs, relay="gone")
    with datapath(node, bpffs):
        assert (layouts(bpffs, "gone"), layouts(bpffs, "alive")) == ([], [NOW])


def test_relays_of_two_nodes_share_a_bpffs_and_none_of_their_flows(namespaces, node, bpffs):
    leave_rules(node, bpffs)
    with datapath(relay_node(namespaces), bpffs, node_name="n-1") as (found, _):
        assert found.adopted == 0
    assert layouts(bpffs) == [NOW]


def test_names_are_spelled_apart():
    assert len({pins.spell(name) for name in ("n.1", "n-1", "n_1", "n=1", "n/1", "n=2E1")}) == 6
    assert "." not in pins.spell("ip-10-0-0-1.eu-central-1.compute.internal")


def test_a_rule_for_which_there_is_no_room_is_an_error_with_a_number(node, bpffs):
    with node.inside():
        engine = KernelFastPath(place(bpffs, max_flows=1), "Auto")
        for rule in RULES[:2]:
            engine.put(rule)
        with pytest.raises(OSError, match="map update"):
            engine.put(RULES[2])
        engine.close(keep=False)


def test_an_unreadable_predecessor_stops_the_engine_not_the_relay(node, bpffs):
    (bpffs / "voicefleet" / pins.spell("n.1") / "fra" / "v0").mkdir(parents=True)
    with node.inside(), pytest.raises(HandOverError):
        KernelFastPath(place(bpffs), "Auto")


@pytest.mark.parametrize("own", [(3478, 3479), (10_000, 3479), (20_000, 40_000), (65_535, 10_000)])
def test_flow_ports_are_none_of_our_own(own):
    ports = flow_ports(*own)
    assert not set(own) & set(ports)
    assert len(ports) > 10_000
    assert FLOW_PORTS.start >= 10_000

"""The relay process with its fast path, on real packets between network namespaces."""

import subprocess

import pytest

from tests.support.kernel_relay import RTP, KernelRelay, Stream, eventually, number
from voicefleet_contract.addresses import Address
from voicefleet_contract.spp import HEADER_BYTES, decode_spp, encode_spp
from voicefleet_dataplane.fastpath.kernel import OBJECT


@pytest.fixture
def relays(namespaces, bpffs, tmp_path):
    """Makes relays in namespaces; none outlives the test."""
    made = []

    def make(**settings):
        made.append(KernelRelay(namespaces, tmp_path, **{"bpffs": bpffs, **settings}))
        return made[-1]

    yield make
    for relay in made:
        relay.close()


def passes_bare(relay, client, owner, bare):
    """Media passes both ways without a header, and the process sees none of it."""
    owner.waiting()
    before = relay.kernel_packets("forwarded")
    client.send(number(1), relay.public(client))
    assert owner.receive() == (number(1), bare)
    owner.send(number(2), bare)
    assert client.receive() == (number(2), relay.public(client))
    assert relay.kernel_packets("forwarded") == before + 2


def opened(relay, rules=2):
    """Wait for the way in: it opens when the owner's answer came by."""
    eventually(lambda: relay.metrics()["voicefleet_relay_kernel_rules"] >= rules, "rules")


@pytest.mark.parametrize(
    ("datapath", "mode"), [("Auto", "TCX"), ("TC", "TCX"), ("Clsact", "Clsact"), ("XDPGeneric", "XDPGeneric")]
)
def test_media_of_a_bound_flow_passes_in_the_kernel(relays, datapath, mode):
    relay = relays(datapath=datapath)
    owner, client = relay.owner(), relay.client()
    relay.start()
    assert relay.datapath()[0] == mode
    bare = relay.bind(client, owner)
    assert bare.host == "10.1.0.1"
    opened(relay)
    passes_bare(relay, client, owner, bare)


@pytest.mark.parametrize("listens", ["0.0.0.0", "::"])
@pytest.mark.parametrize("datapath", ["TCX", "Userspace"])
def test_an_address_that_comes_to_the_node_is_what_its_clients_are_answered_from(relays, datapath, listens):
    relay = relays(datapath=datapath, public_address=listens)
    owner, client, before = relay.owner(), relay.client(), relay.client()
    relay.start()
    relay.bind(before, owner)
    relay.node.ip("addr add 10.0.0.77/24 dev out")  # the route to the client prefers the first one
    relay.public_host = "10.0.0.77"
    bare = relay.bind(client, owner)
    if datapath == "TCX":
        opened(relay, rules=4)
        passes_bare(relay, client, owner, bare)
    else:
        owner.send(encode_spp(client.address, bare) + number(1), bare)
        assert client.receive() == (number(1), relay.public(client))


def test_checksums_that_a_card_would_finish_arrive_right(relays):
    relay = relays()
    owner, client = relay.owner(), relay.client()
    for place, link in ((relay.client_side, "c0"), (relay.owner_side, "o0")):
        assert "tx-checksumming: on" in place.run("ethtool", "-k", link)
    relay.start()
    bare = relay.bind(client, owner)
    opened(relay)
    passes_bare(relay, client, owner, bare)
    assert "InCsumErrors" not in relay.owner_side.run("nstat", "-s")  # it shows what is not zero
    assert "InCsumErrors" not in relay.client_side.run("nstat", "-s")


def test_a_node_with_one_arm(relays):
    relay = relays(inner_address="10.0.0.1", fastpath_interfaces="out")
    relay.client_side.ip("addr add 10.0.0.3/24 dev c0")
    owner, client = relay.owner("10.0.0.3", at=relay.client_side), relay.client()
    relay.start()
    bare = relay.bind(client, owner)
    opened(relay)
    passes_bare(relay, client, owner, bare)


def test_ipv6(relays):
    relay = relays(inner_address="fd01::1", public_address="::")
    owner, client = relay.owner("fd01::3"), relay.client("fd00::2")
    relay.start()
    bare = relay.bind(client, owner)
    assert bare.host == "fd01::1"
    opened(relay)
    passes_bare(relay, client, owner, bare)


def test_a_client_of_another_family_than_its_owner_stays_in_user_space(relays):
    relay = relays(public_address="::")
    owner, client = relay.owner(), relay.client("fd00::2")
    relay.start()
    inner = Address("10.1.0.1", 3479)
    assert relay.bind(client, owner) == inner
    client.send(number(1), relay.public(client))
    assert owner.receive() == (encode_spp(client.address, inner) + number(1), inner)


@pytest.mark.parametrize("datapath", ["TCX", "Clsact"])
def test_a_transceiver_on_the_relays_own_node(relays, datapath):
    relay = relays(datapath=datapath, inner_address="10.0.0.1")
    owner, client = relay.owner("10.0.0.1", 7100, at=relay.node), relay.client()
    relay.start()
    assert relay.bind(client, owner) == client.address
    opened(relay)
    client.send(number(1), relay.public(client))
    assert owner.receive() == (number(1), client.address)
    owner.send(number(2), client.address)
    assert client.receive() == (number(2), relay.public(client))
    assert (relay.kernel_packets("delivered"), relay.kernel_packets("returned")) == (1, 1)


def test_a_transceiver_on_the_relays_own_node_at_another_of_its_addresses(relays):
    relay = relays()
    owner, client = relay.owner("10.1.0.1", 7100, at=relay.node), relay.client()
    relay.client_side.ip("route add 10.1.0.0/24 via 10.0.0.1")
    relay.start()
    assert relay.bind(client, owner) == client.address
    opened(relay)
    client.send(number(1), relay.public(client))
    assert owner.receive() == (number(1), client.address)
    owner.send(number(2), client.address)
    assert client.receive() == (number(2), relay.public(client))


def test_checks_and_dtls_go_through_the_process(relays):
    relay = relays()
    owner, client = relay.owner(), relay.client()
    relay.start()
    relay.bind(client, owner)
    opened(relay)
    hello = b"\x16\xfe\xfd" + bytes(50)
    client.send(hello, relay.public(client))
    data, source = owner.receive()
    assert (data[HEADER_BYTES:], source) == (hello, Address("10.1.0.1", 3479))
    owner.send(encode_spp(client.address, source) + hello, source)
    assert client.receive() == (hello, relay.public(client))


def test_a_transceiver_of_before_gets_headers_on_everything(relays):
    relay = relays()
    owner, client = relay.owner(understands=False), relay.client()
    relay.start()
    announced = relay.bind(client, owner)
    eventually(lambda: relay.metrics()["voicefleet_relay_kernel_rules"] == 0, "rules taken back")
    client.send(number(1), relay.public(client))
    inner = Address("10.1.0.1", 3479)
    assert owner.receive() == (encode_spp(client.address, inner) + number(1), inner)
    owner.send(
        encode_spp(client.address, announced) + number(2), inner
    )  # as it always did: under the header of the check
    assert client.receive() == (number(2), relay.public(client))
    assert relay.bind(client, owner) == inner


def test_what_the_kernel_carried_is_accounted_for(relays):
    relay = relays()
    owner, client = relay.owner(), relay.client()
    relay.start()
    bare = relay.bind(client, owner)
    opened(relay)
    before = relay.metrics()
    for _ in range(10):
        passes_bare(relay, client, owner, bare)
    for direction in ("inward", "outward"):
        name = f'voicefleet_relay_packets_total{{direction="{direction}"}}'
        eventually(lambda name=name: relay.metrics()[name] == before[name] + 10, name)
        name = name.replace("packets", "bytes")
        assert relay.metrics()[name] == before[name] + 10 * len(number(1))


def test_a_flow_that_ends_leaves_no_rule(relays):
    relay = relays(flow_idle_timeout_s="1s")
    owner, client = relay.owner(), relay.client()
    relay.start()
    bare = relay.bind(client, owner)
    opened(relay)
    eventually(lambda: relay.metrics()["voicefleet_relay_flows"] == 0, "expiry")
    assert relay.metrics()["voicefleet_relay_kernel_rules"] == 0
    owner.send(number(1), bare)
    client.send(number(2), relay.public(client))
    eventually(lambda: relay.metrics()['voicefleet_relay_drops_total{reason="flow_unknown"}'] == 1, "the drop")
    assert (client.waiting(), owner.waiting()) == ([], [])


def test_an_owners_media_in_the_kernel_keeps_a_flow_alive_and_a_clients_does_not(relays):
    relay = relays(flow_idle_timeout_s="1s")
    owner, client, silent = relay.owner(), relay.client(), relay.client()
    relay.start()
    bare = relay.bind(client, owner)
    relay.bind(silent, owner)
    opened(relay, 4)
    speaking = Stream(owner, bare, client)
    begging = Stream(silent, relay.public(silent), owner)
    eventually(lambda: relay.metrics()["voicefleet_relay_flows_expired_total"] == 1, "the silent owner's flow")
    assert relay.metrics()["voicefleet_relay_flows"] == 1
    begging.end()
    assert speaking.end() == []


@pytest.mark.parametrize("datapath", ["TCX", "Clsact"])
def test_a_relay_killed_in_mid_call_loses_no_packet(relays, datapath):
    relay = relays(datapath=datapath)
    owner, client = relay.owner(), relay.client()
    relay.start()
    bare = relay.bind(client, owner)
    opened(relay)
    inward, outward = Stream(client, relay.public(client), owner), Stream(owner, bare, client)
    eventually(lambda: inward.sent > 50, "media")
    relay.kill()
    killed_at = inward.sent
    eventually(lambda: inward.sent > killed_at + 50, "media without a relay process")
    relay.start()
    started_at = inward.sent
    eventually(lambda: inward.sent > started_at + 50, "media")
    assert relay.metrics()["voicefleet_relay_flows_adopted"] == 1
    assert relay.metrics()["voicefleet_relay_flows"] == 1
    assert (inward.end(), outward.end()) == ([], [])
    assert relay.bind(client, owner) == bare


def test_a_relay_that_restarts_loses_no_packet_and_one_that_leaves_leaves_nothing(relays):
    relay = relays()
    owner, client = relay.owner(), relay.client()
    relay.start()
    bare = relay.bind(client, owner)
    opened(relay)
    inward, outward = Stream(client, relay.public(client), owner), Stream(owner, bare, client)
    eventually(lambda: inward.sent > 50, "media")
    relay.stop()
    assert (relay.bpffs / "voicefleet" / "node-a" / "fra").exists()
    relay.settings["flow_idle_timeout_s"] = "1s"
    relay.start()
    assert (inward.end(), outward.end()) == ([], [])
    relay.withdraw()
    relay.stop()
    assert not (relay.bpffs / "voicefleet").exists()
    assert client.waiting() == []
    owner.send(number(1), bare)
    assert client.waiting() == []


def test_clsact_leaves_no_qdisc_that_it_made_and_none_of_others(relays):
    relay = relays(datapath="Clsact", fastpath_interfaces="in")
    relay.owner()
    relay.node.run("tc", "qdisc", "add", "dev", "out", "clsact")
    relay.settings["fastpath_interfaces"] = "in,out"
    relay.start()
    assert "relay_ingress" in relay.node.run("tc", "filter", "show", "dev", "in", "ingress")
    relay.withdraw()
    relay.stop()
    assert "clsact" not in relay.node.run("tc", "qdisc", "show", "dev", "in")
    assert "clsact" in relay.node.run("tc", "qdisc", "show", "dev", "out")
    assert relay.node.run("tc", "filter", "show", "dev", "out", "ingress") == ""


def test_capabilities_bpf_and_net_admin_are_enough(relays):
    relay = relays()
    owner, client = relay.owner(), relay.client()
    relay.start("setpriv", "--bounding-set=-all,+bpf,+net_admin", "--inh-caps=-all,+bpf,+net_admin", "--no-new-privs")
    assert relay.datapath()[0] == "TCX"
    bare = relay.bind(client, owner)
    opened(relay)
    passes_bare(relay, client, owner, bare)


@pytest.mark.parametrize("mode", ["TCX", "Clsact", "XDPGeneric"])
def test_each_way_to_attach_needs_no_more(relays, mode):
    relay = relays(datapath=mode)
    relay.owner()
    relay.start("setpriv", "--bounding-set=-all,+bpf,+net_admin", "--inh-caps=-all,+bpf,+net_admin", "--no-new-privs")
    assert relay.datapath()[0] == mode


def carries_in_user_space(relay, *before):
    owner, client = relay.owner(), relay.client()
    inner = Address("10.1.0.1", 3479)
    relay.start(*before)
    assert relay.datapath()[0] == "Userspace"
    assert relay.bind(client, owner) == inner
    client.send(number(1), relay.public(client))
    assert owner.receive() == (encode_spp(client.address, inner) + number(1), inner)
    return relay.datapath()[1]


def test_without_capabilities_it_falls_back_and_says_so(relays):
    relay = relays()
    reason = carries_in_user_space(relay, "setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")
    assert "not permitted" in reason


def test_without_bpffs_it_falls_back_and_says_so(relays, tmp_path):
    assert carries_in_user_space(relays(bpffs=tmp_path)) == f"no BPF file system at {tmp_path}"


def test_on_a_kernel_without_the_helpers_it_falls_back_and_says_so(relays, tmp_path):
    old = tmp_path / "old.c"  # a helper that this kernel has as little as an old one has bpf_redirect_neigh
    old.write_text(
        "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\nstatic long (*later)(void) = (void *)100000;\n"
        '#define bpf_ktime_get_coarse_ns later\n#include "relay.bpf.c"\n'
    )
    words = [
        "clang",
        "-O2",
        "-g",
        "-target",
        "bpf",
        "-mcpu=v2",
        f"-I{OBJECT.parent}",
        "-I/usr/include/x86_64-linux-gnu",
    ]
    subprocess.run([*words, "-c", str(old), "-o", str(tmp_path / "old.o")], check=True)
    reason = carries_in_user_space(relays(fastpath_object=tmp_path / "old.o"))
    assert reason.startswith("the kernel refuses the program: Invalid argument (invalid func unknown#100000")


def test_where_user_space_is_asked_for_the_kernel_is_left_alone(relays, bpffs):
    assert carries_in_user_space(relays(datapath="Userspace")) == "user space is asked for"
    assert not (bpffs / "voicefleet").exists()


def test_an_owner_past_an_interface_that_is_not_covered_stays_in_user_space(relays):
    assert "out" in carries_partly(relays(fastpath_interfaces="out"))


def carries_partly(relay):
    owner, client = relay.owner(), relay.client()
    relay.start()
    mode, reason = relay.datapath()
    assert mode == "TCX"
    assert relay.bind(client, owner) == Address("10.1.0.1", 3479)
    return reason


def test_a_node_that_does_not_forward_stays_in_user_space(relays):
    relay = relays()
    relay.node.sysctl("net.ipv4.conf.all.forwarding", 0)
    carries_partly(relay)


def test_spp_of_an_unannounced_header_is_no_way_to_a_client(relays):
    relay = relays()
    owner, client, other = relay.owner(), relay.client(), relay.client()
    relay.start()
    bare = relay.bind(client, owner)
    owner.send(encode_spp(other.address, bare) + RTP, Address("10.1.0.1", 3479))
    eventually(lambda: relay.metrics()['voicefleet_relay_drops_total{reason="spp_wrong_relay"}'] == 1, "the drop")
    assert decode_spp(encode_spp(other.address, bare))[1] == bare
    assert other.waiting() == []

"""Native XDP before TC: where it is refused and why, what each of the two carries, and that nothing is lost between them.

And generic XDP, where TC cannot be had.
"""

import errno

import pytest

from tests.kernel.test_relay_kernel_path import opened, passes_bare
from tests.support.fastpath_world import place, relay_node
from tests.support.kernel_relay import KernelRelay, Stream, eventually
from voicefleet_dataplane.fastpath import coverage
from voicefleet_dataplane.fastpath.engine import Mode
from voicefleet_dataplane.fastpath.hooks import Hooks
from voicefleet_dataplane.fastpath.kernel import KernelFastPath
from voicefleet_dataplane.fastpath.maps import Xdp
from voicefleet_dataplane.fastpath.trial import Verdict


@pytest.fixture
def relays(namespaces, bpffs, tmp_path):
    """Makes relays whose links' other ends do GRO, so that a veth takes what is redirected to it."""
    made = []

    def make(*, gro=True, checksums=True, **settings):
        relay = KernelRelay(namespaces, tmp_path, **{"bpffs": bpffs, **settings})
        made.append(relay)
        for side, link in beyond(relay):
            side.run("ethtool", "-K", link, "gro", "on" if gro else "off", "tx", "on" if checksums else "off")
        return relay

    yield make
    for relay in made:
        relay.close()


def beyond(relay):
    return (relay.client_side, "c0"), (relay.owner_side, "o0")


def talking(relay, owner, client):
    bare = relay.bind(client, owner)
    opened(relay)
    passes_bare(relay, client, owner, bare)
    return Stream(client, relay.public(client), owner), Stream(owner, bare, client)


def goes_on(*streams, packets=50):
    at = [stream.sent for stream in streams]
    for stream, before in zip(streams, at, strict=True):
        eventually(lambda stream=stream, before=before: stream.sent > before + packets, "media")


def redirected(relay):
    """Packets that native XDP sent to the owner's link."""
    lines = relay.owner_side.run("ethtool", "-S", "o0").splitlines()
    found = {name.strip(): int(count) for name, _, count in (line.partition(":") for line in lines) if count.strip()}
    return sum(count for name, count in found.items() if name.endswith(("xdp_packets", "xdp_xmit")))


@pytest.mark.parametrize("checksums", [True, False], ids=["a card finishes checksums", "they are finished"])
def test_media_passes_with_native_xdp_before_tc(relays, checksums):
    relay = relays(datapath="XDPNative", checksums=checksums)
    owner, client = relay.owner(), relay.client()
    relay.start()
    assert relay.datapath() == ("XDPNative", "on in, out")
    both = talking(relay, owner, client)
    goes_on(*both)
    assert [stream.end() for stream in both] == [[], []]
    for side, _ in beyond(relay):
        assert "InCsumErrors" not in side.run("nstat", "-s")


def test_where_a_veth_would_drop_what_is_redirected_to_it_tc_is_used_and_says_why(relays):
    relay = relays(datapath="XDP", gro=False)
    owner, client = relay.owner(), relay.client()
    relay.start()
    why = "XDPNative: {} drops what is redirected to it, as a veth does whose peer has no GRO"
    assert relay.datapath() in {("TCX", f"on in, out; {why.format(link)}") for link in ("in", "out")}
    bare = relay.bind(client, owner)
    opened(relay)
    passes_bare(relay, client, owner, bare)
    assert "xdp" not in relay.node.ip("link show dev out")


def test_a_link_that_can_no_more_what_xdp_needs_goes_back_to_tc(relays):
    relay = relays(datapath="XDPNative", checksums=False)
    owner, client = relay.owner(), relay.client()
    relay.start()
    bare = relay.bind(client, owner)
    opened(relay)
    passes_bare(relay, client, owner, bare)
    relay.owner_side.run("ethtool", "-K", "o0", "gro", "off")
    eventually(lambda: relay.datapath()[0] == "TCX", relay.datapath)
    assert "in drops what is redirected to it" in relay.datapath()[1]
    both = Stream(client, relay.public(client), owner), Stream(owner, bare, client)
    goes_on(*both)
    assert [stream.end() for stream in both] == [[], []]


def test_asked_for_xdp_it_compares_under_load_and_no_turn_loses_a_packet(relays):
    relay = relays(datapath="XDP", checksums=False)
    owner, client = relay.owner(), relay.client()
    relay.start()
    assert relay.datapath() == ("TCX", "on in, out; native XDP is compared with TC under load")
    assert "prog/xdp" in relay.node.ip("link show dev out")
    both = talking(relay, owner, client)
    before = redirected(relay)
    eventually(lambda: redirected(relay) > before + 200, "XDP's turn")
    at = redirected(relay)
    eventually(lambda: relay.kernel_packets("forwarded") > 5_000, "TC's turn again")
    assert redirected(relay) > at
    assert [stream.end() for stream in both] == [[], []]


@pytest.mark.parametrize(
    ("first", "second"), [("XDPNative", "Auto"), ("Auto", "XDPNative"), ("XDPGeneric", "XDPNative")]
)
def test_a_restart_into_another_way_loses_no_packet(relays, first, second):
    relay = relays(datapath=first, checksums=False)
    owner, client = relay.owner(), relay.client()
    relay.start()
    both = talking(relay, owner, client)
    goes_on(*both)
    relay.kill()
    relay.settings["datapath"] = second
    relay.start()
    mode, reason = relay.datapath()
    assert mode == second.replace("Auto", "TCX"), reason
    goes_on(*both)
    assert [stream.end() for stream in both] == [[], []]


@pytest.fixture
def open_engine(namespaces, bpffs):
    """Opens a fast path in a relay node whose neighbour does GRO."""
    spaces, opened = [], []

    def make():
        spaces.append(namespaces())
        return spaces[-1]

    def open_one(datapath):
        opened.append(KernelFastPath(place(bpffs), datapath))
        return opened[-1]

    node = relay_node(make)
    for link in ("o0", "i0"):
        spaces[1].run("ethtool", "-K", link, "gro", "on")
    with node.inside():
        yield open_one
        for one in opened:
            one.close(keep=False)


@pytest.mark.parametrize("use_xdp", [True, False])
def test_a_verdict_is_followed_and_told(open_engine, use_xdp):
    found = open_engine("XDP")
    assert (found.mode, found._xdp) == (Mode.TCX, Xdp.OFF)
    found._trial.verdict = Verdict(use_xdp, 1.8, 2.5, 12)
    found.tend(0.0)
    assert (found.mode, found._xdp) == ((Mode.XDP_NATIVE, Xdp.FIRST) if use_xdp else (Mode.TCX, Xdp.OFF))
    used = "is used" if use_xdp else "is not used"
    told = f"native XDP {used}: 1.80 µs of interrupt time a packet, TC 2.50, in 12 comparisons"
    assert found.reason == f"on in, out; {told}"


def test_without_tc_generic_xdp_carries_what_needs_no_egress_hook(open_engine, monkeypatch):
    attach = Hooks.attach

    def no_tc(self, mode, program_fd, interface, side):
        if mode in (Mode.TCX, Mode.CLSACT):
            raise OSError(errno.EINVAL, f"no {mode.value}")
        return attach(self, mode, program_fd, interface, side)

    monkeypatch.setattr(Hooks, "attach", no_tc)
    found = open_engine("Auto")
    assert (found.mode, found._xdp) == (Mode.XDP_GENERIC, Xdp.ALONE)
    assert found.reason == "on in, out; TCX: no TCX; Clsact: no Clsact"
    assert found.way("10.0.0.1") is None  # a transceiver on this node: its answers would pass no hook
    assert found.way("10.1.0.3") is not None


@pytest.mark.parametrize(
    ("features", "why"),
    [(None, "the kernel does not say what interfaces can do with it (6.3)"), (4, "in cannot redirect")],
)
def test_native_xdp_is_not_used_where_the_kernel_does_not_vouch_for_it(open_engine, monkeypatch, features, why):
    monkeypatch.setattr(coverage, "xdp_features", lambda _: features)
    found = open_engine("XDP")
    assert found.mode is Mode.TCX
    assert found.reason.replace("out cannot", "in cannot") == f"on in, out; XDPNative: {why}"
    assert found._trial is None

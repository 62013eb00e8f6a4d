"""The packet table: a frame, what becomes of it, the bytes afterwards, and the one counter that moves."""

from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.bpf_test_run import REDIRECT, UP
from tests.support.fastpath_world import (
    CLIENT,
    CLIENT6,
    INNER,
    INNER6,
    LOCAL,
    LOST,
    NEIGHBOUR,
    ONE_ARM,
    OWNER,
    OWNER6,
    RELAY,
    RELAY6,
    RULES,
    loaded,
)
from tests.support.frames import build_frame, checksum, ends, without_link_addresses
from tests.support.namespaces import Namespace, mount_bpffs, unmount
from voicefleet_dataplane.fastpath.maps import Xdp

RTP = b"\x80\x6f" + bytes(range(170))
RTCP = b"\x81\xc9\x00\x07" + bytes(28)
STUN = b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes(12)
DTLS = b"\x17\xfe\xfd" + bytes(40)


class Case(NamedTuple):
    name: str
    frame: bytes
    sent: bool = False
    out: bytes | None = None  # None: not a bit changed
    counter: str | None = None
    egress: bool = False
    link: str = "out"


def inward(payload=RTP, **fields):
    return build_frame(ends(CLIENT, RELAY), payload, **fields)


def inward6(payload=RTP, **fields):
    return build_frame(ends(CLIENT6, RELAY6), payload, **fields)


CASES = [
    # ---- forwarded
    Case("media inward", inward(), True, build_frame(ends(INNER, OWNER), RTP, hops=63), "forwarded"),
    Case(
        "media outward",
        build_frame(ends(OWNER, INNER), RTP),
        True,
        build_frame(ends(RELAY, CLIENT), RTP, hops=63),
        "forwarded",
        link="in",
    ),
    Case("RTCP inward", inward(RTCP), True, build_frame(ends(INNER, OWNER), RTCP, hops=63), "forwarded"),
    Case("IPv6 inward", inward6(), True, build_frame(ends(INNER6, OWNER6), RTP, hops=63), "forwarded"),
    Case(
        "IPv6 outward",
        build_frame(ends(OWNER6, INNER6), RTP),
        True,
        build_frame(ends(RELAY6, CLIENT6), RTP, hops=63),
        "forwarded",
        link="in",
    ),
    Case(
        "out by the link that it came by",
        build_frame(ends(("10.0.0.6", 5000), RELAY), RTP),
        True,
        build_frame(ends(("10.0.0.1", 20_001), ONE_ARM), RTP, hops=63),
        "forwarded",
    ),
    Case("one byte of media", inward(b"\x80"), True, build_frame(ends(INNER, OWNER), b"\x80", hops=63), "forwarded"),
    Case(
        "the last media byte, 191",
        inward(b"\xbf" * 20),
        True,
        build_frame(ends(INNER, OWNER), b"\xbf" * 20, hops=63),
        "forwarded",
    ),
    Case(
        "an odd number of bytes",
        inward(RTP[:-1]),
        True,
        build_frame(ends(INNER, OWNER), RTP[:-1], hops=63),
        "forwarded",
    ),
    Case(
        "no checksum stays none",
        inward(udp_checksum=False),
        True,
        build_frame(ends(INNER, OWNER), RTP, hops=63, udp_checksum=False),
        "forwarded",
    ),
    Case(
        "marked traffic keeps its mark",
        inward(tos=0xB8),
        True,
        build_frame(ends(INNER, OWNER), RTP, hops=63, tos=0xB8),
        "forwarded",
    ),
    # ---- a transceiver on this node
    Case(
        "delivered here",
        build_frame(ends(NEIGHBOUR, RELAY), RTP),
        False,
        build_frame(ends(NEIGHBOUR, LOCAL), RTP),
        "delivered",
    ),
    Case(
        "returned from here",
        build_frame(ends(LOCAL, NEIGHBOUR), RTP),
        False,
        build_frame(ends(RELAY, NEIGHBOUR), RTP),
        "returned",
        egress=True,
    ),
    Case("a return rule seen at ingress", build_frame(ends(LOCAL, NEIGHBOUR), RTP), egress=False),
    Case("an ingress rule seen at egress", build_frame(ends(OWNER, INNER), RTP), egress=True),
    Case("what the relay sends by itself", build_frame(ends(RELAY, CLIENT), RTP), egress=True),
    Case("STUN of a local transceiver", build_frame(ends(LOCAL, NEIGHBOUR), STUN), egress=True),
    # ---- passed up: the process decides
    Case("STUN of a bound client", inward(STUN), counter="up_not_media"),
    Case("DTLS of a bound client", inward(DTLS), counter="up_not_media"),
    Case("first byte 127", inward(b"\x7f" * 20), counter="up_not_media"),
    Case("first byte 192", inward(b"\xc0" * 20), counter="up_not_media"),
    Case("media of a stranger", build_frame(ends(("10.0.0.9", 5000), RELAY), RTP), counter="up_no_rule"),
    Case("media of a bound host's other port", build_frame(ends((CLIENT[0], 5001), RELAY), RTP), counter="up_no_rule"),
    Case(
        "media to another of our addresses", build_frame(ends(CLIENT, (INNER[0], RELAY[1])), RTP), counter="up_no_rule"
    ),
    Case("the last hop", inward(hops=1), counter="up_ttl"),
    Case("no hop left", inward(hops=0), counter="up_ttl"),
    Case("IPv6: the last hop", inward6(hops=1), counter="up_ttl"),
    Case("no route to the owner", build_frame(ends(LOST, RELAY), RTP), counter="up_no_route"),
    # ---- not ours, or not read: nothing moves
    Case("another port", build_frame(ends(CLIENT, (RELAY[0], 5353)), RTP)),
    Case("an owner to a flow port that is nobody's", build_frame(ends(OWNER, (INNER[0], 20_777)), RTP), link="in"),
    Case("a stranger to a flow port", build_frame(ends((OWNER[0], 7001), INNER), RTP), link="in"),
    Case("STUN to a flow port", build_frame(ends(OWNER, INNER), STUN), link="in"),
    Case("a VLAN tag", inward(vlan=5)),
    Case("IP options", inward(options=b"\x94\x04\x00\x00")),
    Case("a first fragment", inward(fragment=0x2000)),
    Case("a last fragment", inward(fragment=0x0010)),
    Case(
        "don't-fragment is no fragment",
        inward(fragment=0x4000),
        True,
        build_frame(ends(INNER, OWNER), RTP, hops=63, fragment=0x4000),
        "forwarded",
    ),
    Case("IPv6 with an extension header", inward6(extension=b"\x11\x00\x01\x04\0\0\0\0")),
    Case("empty", inward(b"")),
    Case("TCP", inward()[:23] + b"\x06" + inward()[24:]),
    Case("a UDP length that disagrees", inward()[:38] + b"\x00\x20" + inward()[40:]),
    Case("cut off on the way", inward()[:-1]),
    Case("cut off in the UDP header", inward()[:38]),
    Case(
        "padded by the link",
        inward(b"\x80") + bytes(17),
        True,
        build_frame(ends(INNER, OWNER), b"\x80", hops=63) + bytes(17),
        "forwarded",
    ),
    Case("a frame for a neighbour", bytes.fromhex("0200000000ff") + inward()[6:]),
    Case("ARP", inward()[:12] + b"\x08\x06" + inward()[14:]),
]


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    bpffs = tmp_path_factory.mktemp("bpf")
    mount_bpffs(bpffs)
    with loaded(Namespace, bpffs, RULES) as found:
        yield found
    unmount(bpffs)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_tc(programs, case):
    verdict, out, moved = programs.run("tc", case.frame, egress=case.egress, link=case.link)
    assert verdict == (REDIRECT if case.sent else UP)["tc"]
    assert out == without_link_addresses(case.frame if case.out is None else case.out)
    assert moved == ({case.counter: 1} if case.counter else {})


XDP_CASES = [case for case in CASES if not case.egress and case.name != "a frame for a neighbour"]


@pytest.mark.parametrize("case", XDP_CASES, ids=lambda case: case.name)
def test_xdp(programs, case):
    verdict, out, moved = programs.run("xdp", case.frame, link=case.link)
    came_back = case.name == "out by the link that it came by"
    assert verdict == (3 if came_back else (REDIRECT if case.sent else UP)["xdp"])
    assert out == without_link_addresses(case.frame if case.out is None else case.out)
    assert moved == ({case.counter: 1} if case.counter else {})


@pytest.mark.parametrize("case", XDP_CASES, ids=lambda case: case.name)
def test_xdp_before_tc_counts_only_what_it_sends_on(programs, case):
    programs.tell_xdp(Xdp.FIRST)
    _, out, moved = programs.run("xdp", case.frame, link=case.link)
    programs.tell_xdp(Xdp.ALONE)
    assert out == without_link_addresses(case.frame if case.out is None else case.out)
    assert moved == ({case.counter: 1} if case.counter in ("forwarded", "delivered") else {})


def test_xdp_that_is_off_passes_everything_on(programs):
    programs.tell_xdp(Xdp.OFF)
    found = {programs.run("xdp", case.frame, link=case.link)[::2] == (UP["xdp"], {}) for case in XDP_CASES}
    programs.tell_xdp(Xdp.ALONE)
    assert found == {True}


def with_pseudo_sum(frame):
    """The frame as it comes from a container: a card is to finish its checksum."""
    header, addresses = (14 + 20, frame[26:34]) if frame[12:14] == b"\x08\x00" else (14 + 40, frame[22:54])
    pseudo = checksum(addresses + frame[header + 4 : header + 6] + b"\0\x11") ^ 0xFFFF
    return frame[: header + 6] + pseudo.to_bytes(2, "big") + frame[header + 8 :]


@pytest.mark.parametrize(
    ("seen", "to"), [(ends(CLIENT, RELAY), ends(INNER, OWNER)), (ends(CLIENT6, RELAY6), ends(INNER6, OWNER6))]
)
def test_a_checksum_that_a_card_should_finish_stays_for_it_or_for_tc(programs, seen, to):
    frame = with_pseudo_sum(build_frame(seen, RTP))
    out = with_pseudo_sum(build_frame(to, RTP, hops=63))[12:]
    assert programs.run("xdp", frame) == (REDIRECT["xdp"], out, {"forwarded": 1})
    programs.tell_xdp(Xdp.FIRST)
    assert programs.run("xdp", frame) == (UP["xdp"], frame[12:], {})
    programs.tell_xdp(Xdp.ALONE)


def test_a_packet_too_big_for_the_way_out_goes_up(namespaces, bpffs):
    with loaded(namespaces, bpffs, RULES, mtu=1300) as programs:
        fits, big = RTP + bytes(1300 - 28 - len(RTP)), RTP + bytes(1301 - 28 - len(RTP))
        assert programs.run("tc", inward(fits))[0] == REDIRECT["tc"]
        verdict, out, moved = programs.run("tc", inward(big))
        assert (verdict, out, moved) == (UP["tc"], inward(big)[12:], {"up_too_big": 1})


def test_a_link_without_forwarding_passes_up(namespaces, bpffs):
    with loaded(namespaces, bpffs, RULES) as programs:
        Path("/proc/sys/net/ipv4/conf/out/forwarding").write_text("0")
        verdict, out, moved = programs.run("tc", inward())
        assert (verdict, out, moved) == (UP["tc"], inward()[12:], {"up_no_route": 1})


def test_rules_have_no_force_after_the_lease(namespaces, bpffs):
    with loaded(namespaces, bpffs, RULES) as programs:
        programs.engine._renew(-60.0)  # 60 seconds before the clock's start: a relay that has been away
        verdict, out, moved = programs.run("tc", inward())
        assert (verdict, out, moved) == (UP["tc"], inward()[12:], {"up_no_lease": 1})
        programs.engine.tend(1e6)
        assert programs.run("tc", inward())[0] == REDIRECT["tc"]


def test_a_rule_counts_what_it_carries(namespaces, bpffs):
    with loaded(namespaces, bpffs, RULES) as programs:
        for _ in range(3):
            programs.run("tc", inward())
        programs.run("tc", inward(hops=1))
        carried = dict(entry for batch in programs.engine.carried() for entry in batch)
        first = carried.pop(RULES[0].seen.encode())
        assert (first.packets, first.bytes) == (3, 3 * len(RTP))
        assert first.last_ns > 0
        assert all(other == (0, 0, 0) for other in carried.values())

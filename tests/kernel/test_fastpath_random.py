"""Random and damaged frames: the program and the reference parser agree on verdict, bytes, and the counter that moves."""

import os
import random

import pytest

from tests.support.bpf_test_run import REDIRECT, UP, XDP_TX
from tests.support.fastpath_reference import expect
from tests.support.fastpath_world import (
    CLIENT,
    CLIENT6,
    FLOW_PORTS,
    INNER,
    LOCAL,
    LOST,
    NEIGHBOUR,
    OWNER,
    PUBLIC,
    RELAY,
    RELAY6,
    RULES,
    loaded,
)
from tests.support.frames import build_frame, ends
from voicefleet_dataplane.fastpath.maps import Counter

FRAMES = int(os.environ.get("VOICEFLEET_FRAMES", "4000"))  # `make fuzz` sets both
SEED = int(os.environ.get("VOICEFLEET_FRAMES_SEED", "5"))
_ENDS = [rule.seen for rule in RULES if rule.seen.source.host != LOST[0]] + [
    ends((CLIENT[0], 5001), RELAY),
    ends(CLIENT, (RELAY[0], PUBLIC + 1)),
    ends(OWNER, (INNER[0], 20_500)),
    ends(RELAY, CLIENT),
    ends(RELAY6, CLIENT6),
    ends(LOCAL, NEIGHBOUR),
]


def random_frame(chance):
    """A frame that a relay could get, damaged one time in two."""
    first = chance.choice((0, 1, 22, 64, 127, 128, 144, 191, 192, 255, chance.randrange(256)))
    payload = bytes([first]) + chance.randbytes(chance.choice((0, 1, 2, 20, 171, 172, 1100)))
    six = False
    picked = chance.choice(_ENDS)
    six = ":" in picked.source.host
    frame = build_frame(
        picked,
        payload,
        hops=chance.choice((0, 1, 2, 64, 255)),
        udp_checksum=six or chance.random() < 0.9,
        options=b"" if six else chance.choice((b"", b"", b"", b"\x01\x01\x01\x01")),
        fragment=0 if six else chance.choice((0, 0, 0x4000, 0x2000, 0x0001)),
        vlan=chance.choice((None, None, None, 7)),
        extension=chance.choice((b"", b"", b"\x11\x00\x01\x04\0\0\0\0")) if six else b"",
    )
    if chance.random() < 0.5:
        damaged = bytearray(frame)
        for _ in range(chance.choice((1, 1, 2, 8))):
            damaged[chance.randrange(12, min(len(damaged), 70))] = chance.randrange(256)
        frame = bytes(damaged)
    if chance.random() < 0.1:
        shortest = 54 if frame[12:14] == b"\x86\xdd" else 34  # the kernel tries nothing shorter
        frame = frame[: chance.randrange(shortest, max(len(frame), shortest) + 1)]
    if chance.random() < 0.05:
        frame += chance.randbytes(chance.randrange(1, 20))
    return frame


@pytest.mark.parametrize("kind", ["tc", "xdp"])
def test_program_and_reference_agree(namespaces, bpffs, kind):
    chance = random.Random(SEED)
    print("seed", SEED)
    rules = {rule.seen: (rule.to, rule.how) for rule in RULES}
    seen = set()
    with loaded(namespaces, bpffs, RULES) as programs:
        for number in range(FRAMES):
            frame = random_frame(chance)
            egress = kind == "tc" and chance.random() < 0.3
            wanted = expect(frame, rules, public_port=PUBLIC, flow_ports=FLOW_PORTS, egress=egress, xdp=kind == "xdp")
            verdict, out, moved = programs.run(kind, frame, egress=egress)
            sent = verdict in ((REDIRECT["tc"],) if kind == "tc" else (REDIRECT["xdp"], XDP_TX))
            assert sent or verdict == UP[kind]
            told = f"frame {number}, egress {egress}: {frame.hex()}"
            assert (sent, moved) == (
                wanted.sent,
                {wanted.counter.name.lower(): 1} if wanted.counter is not None else {},
            ), told
            assert out.hex() == wanted.frame.hex(), told
            seen.add(wanted.counter)
    everything = {Counter.FORWARDED, Counter.DELIVERED, Counter.UP_NOT_MEDIA, Counter.UP_NO_RULE, Counter.UP_TTL, None}
    assert seen >= everything | ({Counter.RETURNED} if kind == "tc" else set()), "the frames are not varied enough"

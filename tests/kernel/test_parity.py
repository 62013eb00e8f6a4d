"""The same packets and flows: what the program forwards, `core.relay` forwards to the same place; what the core drops, the
program does not forward. And what the program may forward it does: it does not pass up media of an open flow."""

import random

from tests.support.fastpath_world import CLIENT, FLOW_PORTS, INNER, OWNER, RELAY, RULES, loaded
from tests.support.frames import build_frame, ends
from voicefleet_contract.addresses import Address
from voicefleet_contract.keys import KeyRing
from voicefleet_contract.spp import HEADER_BYTES, encode_spp
from voicefleet_contract.topology import Member, Pool, Topology, TopologyIndex
from voicefleet_dataplane.core.relay.relay import Relay

RELAY_INNER = Address(INNER[0], 3479)
STRANGER = ("10.0.0.9", 5000)


def test_core_and_program_give_the_same_verdicts(namespaces, bpffs):
    relay = Relay(RELAY_INNER, KeyRing({1: b"k" * 32}, signing=1), max_flows=10, idle_s=1e9)
    member = Member(slot=5, generation=1, address=OWNER[0], port=OWNER[1])
    relay.set_topology(TopologyIndex(Topology(cluster=9, pools=(Pool(name="agents", members=(member,)),))))
    client, owner, bare = Address(*CLIENT), Address(*OWNER), Address(*INNER)
    relay.adopt(client, (5, 1), owner, bare, 0.0, awaits_owner=False)
    header = encode_spp(client, RELAY_INNER)
    chance = random.Random(11)
    forwarded = 0
    with loaded(namespaces, bpffs, RULES[:2]) as programs:
        for _ in range(2_000):
            payload = bytes([chance.randrange(256)]) + chance.randbytes(chance.choice((0, 1, 19, 171)))
            media = 128 <= payload[0] <= 191
            inward = chance.random() < 0.5
            if inward:
                source = chance.choice((CLIENT, CLIENT, STRANGER))
                verdict = relay.receive_outside(payload, Address(*source), 0.0)
                frame, expected = build_frame(ends(source, RELAY), payload), ends(INNER, OWNER)
                carried = verdict[0][HEADER_BYTES:] if isinstance(verdict, tuple) else None
                link = "out"
                open_flow = source == CLIENT
            else:
                source = chance.choice((OWNER, OWNER, ("10.1.0.9", 7000)))
                port = chance.choice((INNER[1], INNER[1], FLOW_PORTS[777]))
                verdict = relay.receive_inside(header + payload, Address(*source), 0.0)
                frame, expected = build_frame(ends(source, (INNER[0], port)), payload), ends(RELAY, CLIENT)
                carried = verdict[0] if isinstance(verdict, tuple) else None
                link = "in"
                open_flow = source == OWNER and port == INNER[1]
            _, out, moved = programs.run("tc", frame, link=link)
            sent = moved == {"forwarded": 1}
            assert sent == (media and open_flow)
            if sent:
                forwarded += 1
                assert carried == payload
                assert verdict[1] == (owner if inward else client)
                assert out == build_frame(expected, payload, hops=63)[12:]
            else:
                assert out == frame[12:]
                assert "forwarded" not in moved
    assert forwarded > 200

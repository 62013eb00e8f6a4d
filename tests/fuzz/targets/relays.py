"""A relay's core, with both sides talking: clients with valid ufrags, members with the right address, and what neither should say."""

from tests.fuzz.target import Script, Target
from tests.unit.test_relay import ALICE, INNER, MALLORY, OWNER_A, OWNER_B, RTP, a_relay, check, topology, ufrag
from voicefleet_contract.addresses import Address
from voicefleet_contract.hint import ice_pwd
from voicefleet_contract.keys import KeyRing
from voicefleet_contract.spp import HEADER_BYTES, encode_spp
from voicefleet_contract.topology import MemberState
from voicefleet_dataplane.wire.stun import SOFTWARE, build_binding_error, build_binding_request, build_binding_success

CLIENTS = (ALICE, MALLORY, Address("2001:db8::1", 1), Address("198.51.100.2", 9))
OWNERS = (OWNER_A, OWNER_B, MALLORY)
UFRAGS = (ufrag(), ufrag(slot=2, generation=7), ufrag(nonce=6), ufrag(slot=3), ufrag(cluster=10))
KEYS = KeyRing({1: b"k" * 32}, signing=1)
MOST_FLOWS = 3


def relay(data: bytes) -> None:
    script, core, now = Script(data), a_relay(max_flows=MOST_FLOWS), 0.0
    came_in: set[Address] = set()
    while script.goes_on:
        now += script.number() / 32
        name = script.pick(UFRAGS)
        key = ice_pwd(name, 1, KEYS).encode()
        client, owner = script.pick(CLIENTS), script.pick(OWNERS)
        what = script.number() % 12
        dropped = sum(core.drops.values())
        verdict = None
        if what < 6:
            packet = (
                check(name),
                build_binding_request(
                    script.chunk().ljust(12, b"t")[:12],
                    f"{name}:c",
                    key,
                    extra=[(script.number(2) | 0x8000, script.chunk())],
                ),
                script.bent(check(name)),
                script.bent(RTP + script.chunk()),
                script.chunk(),
                build_binding_request(b"t" * 12, "A" * 24 + ":c", b"no", extra=[(SOFTWARE, name.encode())]),
            )[what]
            verdict = core.receive_outside(packet, client, now)
            if isinstance(verdict, tuple):
                came_in.add(client)
                assert topology().member_at(verdict[1]) is not None
                assert verdict[0][HEADER_BYTES:] == packet
        elif what < 10:
            said = (
                RTP,
                build_binding_success(b"t" * 12, client, key),
                build_binding_error(b"t" * 12, script.pick((403, 487, 400)), key),
                script.bent(b"\x15\xfe\xfd" + bytes(8) + b"\0\2\1\0" + script.chunk()),
            )[what - 6]
            header = encode_spp(client, script.pick((INNER, INNER, OWNER_A)))
            verdict = core.receive_inside(
                script.bent(header + said) if script.number() % 3 == 0 else header + said, owner, now
            )
            if isinstance(verdict, tuple):
                assert verdict[1] in came_in
                assert owner is not MALLORY
        elif what == 10:
            core.set_topology(topology(script.pick(list(MemberState))))
        else:
            core.set_keys(KEYS)
        core.advance(now)
        assert sum(core.drops.values()) - dropped == (verdict is not None and not isinstance(verdict, tuple))
        assert len(core.flows) <= MOST_FLOWS
        assert len(core.flows.by_header) == len(core.flows)
        assert core.flows._of_ufrag.total() == core.flows._of_owner.total() == len(core.flows)


TARGETS = [
    Target(
        "relay",
        relay,
        [
            bytes((1, 0, 0, 0, 0)) * 3 + bytes((1, 1, 0, 1, 0, 1, 0, 0, 0, 6, 0, 1)),
            bytes((1, 0, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 1, 64, 0, 0, 0, 3, 0, 0, 0)),
            bytes((1, 2, 1, 0, 1, 3)) + b"abc\x80\x22\x02no" + bytes((1, 0, 0, 0, 9, 1, 7, 7, 0, 0)),
        ],
        max_bytes=600,
        tries=600,
        steps_per_byte=4_000,
        steps_at_least=200_000,
    ),
]

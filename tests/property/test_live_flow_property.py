"""No sequence of packets by others rebinds, renames or ends a live flow.

The victim has a call behind a relay, says nothing but its consent checks, and its agent says nothing at all: the owner's silence
is what an attacker needs. The attacker spoofs the victim's address, knows its ufrag and the bytes of all its packets, and has
calls of its own, live ones and ended ones, of the victim's owner and of another.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.support.examples import examples
from tests.support.relayed_calls import ATTACKER, OWNERS, Fleet
from tests.support.transceiver import CLIENT, HINT_KEYS
from voicefleet_contract.addresses import Address
from voicefleet_dataplane.wire.stun import SOFTWARE, build_binding_error, build_binding_request, build_binding_success

CHECK_S = 2.5


class Attack(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        fleet = self.fleet = Fleet(failed_checks=100.0, failed_checks_of_a_network=20.0, new_flows_of_a_network=100.0)
        self.calls = []
        for slot in OWNERS:
            for over in (False, True):
                port = ATTACKER.port + len(self.calls)
                caller = fleet.worlds[slot].connected(Address(ATTACKER.host, port))
                self.calls.append(caller)
                if over:
                    fleet.worlds[slot].core.calls.hang_up(caller.session.agreed.call_id)
                    fleet.settle()
        self.victim = fleet.worlds[5].connected(CLIENT)
        self.seen: list[bytes] = [self.victim.build_check(), b"\x80\x6f" + bytes(40), b"\x15\xfe\xfd" + bytes(20)]
        self.next_check_at = fleet.now + CHECK_S
        self.transaction = 0

    @rule(number=st.integers(0, 3), times=st.sampled_from([1, 5]), nominate=st.booleans())
    def a_check_of_the_attackers(self, number: int, times: int, nominate: bool) -> None:
        for _ in range(times):
            self.calls[number].check(address=CLIENT, nominate=nominate)
        self.fleet.settle()

    @rule(times=st.sampled_from([1, 10, 60]), elsewhere=st.booleans(), sha256=st.booleans())
    def forged_checks_with_the_victims_ufrag(self, times: int, elsewhere: bool, sha256: bool) -> None:
        name = "A" * 24 if elsewhere else self.victim.server_ufrag
        extra = [(SOFTWARE, self.victim.server_ufrag.encode())]
        forged = build_binding_request(b"f" * 12, f"{name}:x", b"wrong", extra=extra, sha1=not sha256, sha256=sha256)
        for _ in range(times):
            self.fleet.receive(forged, CLIENT)

    @rule(packet=st.integers(0, 2), cut=st.integers(0, 60))
    def what_was_seen_or_garbage(self, packet: int, cut: int) -> None:
        self.fleet.receive(self.seen[packet][: cut or None], CLIENT)
        self.fleet.settle()

    @rule(number=st.integers(0, 3), error=st.booleans())
    def answers_from_outside(self, number: int, error: bool) -> None:
        key = self.calls[number].pwd.encode()
        build = build_binding_error(b"a" * 12, 403, key) if error else build_binding_success(b"a" * 12, CLIENT, key)
        self.fleet.receive(build, CLIENT)

    @rule()
    def keys_are_rotated(self) -> None:
        self.fleet.relay.set_keys(HINT_KEYS)

    @rule(seconds=st.sampled_from([0.1, 0.5, 2.0, 2.4]))
    def time_passes(self, seconds: float) -> None:
        until = self.fleet.now + seconds
        while self.next_check_at <= until:
            self.fleet.pass_time(self.next_check_at - self.fleet.now)
            self.next_check_at += CHECK_S
            # A flood may keep one check out, of a caller whose ufrag is known; those of a call are ten and more in its consent.
            self.victim.check()
            self.victim.session.note_message(self.fleet.now)
            self.fleet.settle()
        self.fleet.pass_time(until - self.fleet.now)

    @invariant()
    def the_flow_is_the_victims(self) -> None:
        flow = self.fleet.flow(CLIENT)
        assert flow is not None
        assert flow.owner_address == OWNERS[5]
        assert flow.ufrag == self.victim.server_ufrag.encode()
        assert flow.patience_s is None
        assert self.fleet.relay.flows.is_live(flow, self.fleet.now)

    @invariant()
    def its_call_goes_on(self) -> None:
        assert self.victim.session.state == "connected"
        before = self.victim.session.packets_in
        assert self.victim.speak() is None
        assert self.victim.session.packets_in == before + 1
        selected = self.victim.session.ice.selected
        assert selected is not None
        assert selected.client == CLIENT


TestAttack = Attack.TestCase
TestAttack.settings = settings(examples(30), stateful_step_count=30)

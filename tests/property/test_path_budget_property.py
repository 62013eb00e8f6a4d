"""Whatever a caller sends as if from addresses where nobody of his is, in whatever order: they get three bytes for one, and no more."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.support.transceiver import CLIENT_PWD, OTHER_RELAY, RELAY, World
from tests.unit.test_path_budget import SPEECH, block_for, speak
from voicefleet_contract.addresses import Address
from voicefleet_dataplane.wire.sdp.model import SetupRole
from voicefleet_dataplane.wire.stun import build_binding_request, build_binding_success

VICTIMS = [Address("198.51.100.77", 41_000), Address("2001:db8::77", 41_000)]
victims, relays = st.sampled_from(VICTIMS), st.sampled_from([RELAY, OTHER_RELAY])


class Aim(RuleBasedStateMachine):
    @initialize(setup=st.sampled_from([SetupRole.ACTPASS, SetupRole.ACTIVE]), early=st.none() | victims)
    def a_call(self, setup: SetupRole, early: Address | None) -> None:
        self.world = World()
        self.caller = self.world.call(setup=setup)
        self.sent = dict.fromkeys(VICTIMS, 0)
        if early is not None:
            self.a_check(early, True, RELAY)
        self.caller.check()
        self.world.settle()
        self.world.pass_time(0.2)

    def send(self, datagram: bytes, address: Address, relay: Address = RELAY) -> None:
        self.sent[address] += len(datagram)
        self.caller.send(datagram, address=address, relay=relay)
        self.world.settle()

    @rule(address=victims, nominate=st.booleans(), relay=relays)
    def a_check(self, address: Address, nominate: bool, relay: Address) -> None:
        self.send(self.caller.build_check(nominate=nominate), address, relay)

    @rule(nominate=st.booleans())
    def a_check_of_the_callers_own(self, nominate: bool) -> None:
        self.caller.check(nominate=nominate)
        self.world.settle()

    @rule(address=victims, count=st.integers(1, 5))
    def audio(self, address: Address, count: int) -> None:
        for _ in range(count if self.caller.srtp else 0):
            self.send(self.caller.build_audio(SPEECH), address)

    @rule(address=victims, guess=st.integers(0, 0xFFFFFFFF), count=st.integers(1, 20))
    def reports(self, address: Address, guess: int, count: int) -> None:
        for number in range(count if self.caller.srtp else 0):
            self.send(block_for(self.caller, (guess + number) & 0xFFFFFFFF), address)

    @rule(address=victims, transaction=st.binary(min_size=12, max_size=12))
    def answers(self, address: Address, transaction: bytes) -> None:
        self.send(build_binding_success(transaction, RELAY, CLIENT_PWD), address)
        self.send(build_binding_request(transaction, "a:b", b"wrong"), address)

    @rule(count=st.sampled_from([1, 50]), data=st.booleans())
    def the_agent_speaks(self, count: int, data: bool) -> None:
        speak(self.caller, count)
        if data:
            self.caller.session.send_sctp(b"data" * 200, self.world.now)
        self.world.settle()

    @rule(seconds=st.sampled_from([0.02, 1.0, 6.0, 31.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule()
    def it_is_hung_up(self) -> None:
        self.world.core.calls.hang_up(self.caller.session.agreed.call_id)
        self.world.settle()

    @invariant()
    def nobody_gets_more_than_three_for_one(self) -> None:
        for address in VICTIMS if hasattr(self, "world") else ():
            assert self.world.sent_bytes.get(address, 0) <= 3 * self.sent[address]
            path = self.caller.session.ice.paths.get(address)
            assert path is None or not path.budget.is_proven


TestAim = Aim.TestCase
TestAim.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)

"""Any order of checks, nominations, media, reports and replays by two addresses: media goes only where the rule's table says, and a live
client's address stays its own."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.support.transceiver import CLIENT, World
from tests.unit.test_paths import report
from voicefleet_contract.addresses import Address
from voicefleet_contract.drops import DropReason
from voicefleet_dataplane.core.call.model import Limits
from voicefleet_dataplane.core.call.paths import CONSENT_S, EVIDENCE_S, MAX_PATHS, PROBE_GAP_S, PROBES, SILENT_S

PLACES = [CLIENT, Address("203.0.113.9", 5_555), Address("2001:db8::9", 5_555)]
places, ages = st.sampled_from(PLACES), st.integers(0, 40)


class Follow(RuleBasedStateMachine):
    """The model remembers what a reader of the table would: when each path was heard, nominated and selected."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.caller = self.world.connected()
        for place in PLACES:
            self.world.clients[place] = self.caller
        self.selected, self.selected_at = CLIENT, self.world.now
        # The handshake's records were evidence of none; its check nominated.
        self.checked = {CLIENT: self.world.now}
        self.heard: dict[Address, float] = {}
        self.nominated = {CLIENT}
        self.recorded: list[bytes] = []
        self.newest = 0

    def is_silent(self) -> bool:
        return self.world.now >= max(self.heard.get(self.selected, 0.0), self.selected_at) + SILENT_S

    def select(self, place: Address) -> None:
        if place != self.selected:
            self.selected, self.selected_at = place, self.world.now

    @rule(place=places, nominates=st.booleans())
    def a_check(self, place: Address, nominates: bool) -> None:
        assert self.caller.check(address=place, nominate=nominates) is None
        if nominates:
            later = self.heard.get(place, 0.0) > self.heard.get(self.selected, 0.0)
            if place not in self.nominated or later or self.is_silent():
                self.select(place)
            self.nominated.add(place)
        self.checked[place] = self.world.now
        # Answers to checks that prove a path are consent too, of where they were asked; nothing else follows of them.
        self.world.settle()

    @rule(place=places)
    def speech(self, place: Address) -> None:
        self.hear(self.caller.build_audio(), place, is_newest=True)

    @rule(place=places, gap=st.integers(2, 30), order=st.permutations([0, 1]))
    def speech_out_of_order(self, place: Address, gap: int, order: list[int]) -> None:
        packets = [self.caller.build_audio() for _ in range(gap)]
        for index in (packets[-1], packets[0]) if order[0] else (packets[0], packets[-1]):
            self.hear(index, place, is_newest=order[0] == 0 or index is packets[-1])

    @rule(place=places)
    def a_report(self, place: Address) -> None:
        self.hear(report(self.caller), place, is_newest=True)

    def hear(self, packet: bytes, place: Address, *, is_newest: bool) -> None:
        reason = self.caller.send(packet, address=place)
        if place not in self.checked:  # it was not opened: whoever has it can still be the first to bring it
            assert reason is DropReason.ADDRESS_NOT_CHECKED
            return
        assert reason is None
        self.recorded.append(packet)
        if is_newest and place != self.selected and self.is_silent():
            self.select(place)
        self.heard[place] = self.world.now

    @rule(place=places, age=ages, flip=st.booleans())
    def a_recording(self, place: Address, age: int, flip: bool) -> None:
        for packet in self.recorded[-age - 1 :][:1]:
            again = packet[:-1] + bytes([packet[-1] ^ 1]) if flip else packet
            self.caller.send(again, address=place)

    @rule(seconds=st.sampled_from([0.02, 0.4, 1.0, 5.0]))
    def time_passes(self, seconds: float) -> None:
        alive = max(self.checked[self.selected], self.heard.get(self.selected, 0.0))
        if self.world.now + seconds - alive > min(CONSENT_S, EVIDENCE_S) - 1 or self.world.now > 140.0:
            return
        self.world.pass_time(seconds)
        gone = [place for place in self.checked if place not in self.caller.session.ice.paths]
        for place in gone:
            assert place != self.selected
            assert self.world.now - max(self.checked[place], self.heard.get(place, 0.0)) >= min(CONSENT_S, EVIDENCE_S)
            self.checked.pop(place)
            self.heard.pop(place, None)
            self.nominated.discard(place)

    @invariant()
    def media_goes_where_the_table_says(self) -> None:
        assert self.caller.session.ice.selected.client == self.selected
        assert self.caller.session.ice.paths.keys() == self.checked.keys()
        assert len(self.checked) <= MAX_PATHS


class Take(RuleBasedStateMachine):
    """A caller with calls of his own spoofs the address of a client that is alive."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(limits=Limits(idle_s=0))
        self.victim = self.world.connected(CLIENT)
        self.attackers = [self.world.connected(PLACES[1]), self.world.connected(PLACES[2])]
        self.spoofed_bytes = 0

    @rule(who=st.sampled_from([0, 1]), nominates=st.booleans(), count=st.integers(1, 30))
    def a_spoofed_check(self, who: int, nominates: bool, count: int) -> None:
        for _ in range(count):
            check = self.attackers[who].build_check(nominate=nominates)
            self.spoofed_bytes += len(check)
            assert self.attackers[who].send(check, address=CLIENT) is DropReason.ICE_TUPLE_TAKEN

    @rule(who=st.sampled_from([0, 1]))
    def spoofed_media(self, who: int) -> None:
        assert self.attackers[who].speak() is None
        packet = self.attackers[who].build_audio()
        assert self.attackers[who].send(packet, address=CLIENT) is not None

    @rule(answers=st.booleans())
    def the_victim_answers_or_not(self, answers: bool) -> None:
        self.victim.answers_checks = answers

    @rule(
        gap=st.sampled_from([0.1, 0.5, PROBES * PROBE_GAP_S - 0.1, 10.0]),
        says=st.sampled_from(["speech", "report", "check"]),
    )
    def the_victim_lives(self, gap: float, says: str) -> None:
        self.world.pass_time(gap)
        if says == "speech":
            assert self.victim.speak() is None
        elif says == "report":
            assert self.victim.send(report(self.victim)) is None
        else:
            assert self.victim.check() is None
        for attacker in self.attackers:
            attacker.check()
        self.world.settle()

    @invariant()
    def the_address_is_the_victims(self) -> None:
        assert self.victim.heard.ended == []
        assert self.world.core._routes.by_client[CLIENT].session is self.victim.session
        assert self.victim.session.ice.selected.client == CLIENT
        assert sum(map(len, self.victim.asked)) <= self.spoofed_bytes * PROBES


TestFollow = Follow.TestCase
TestFollow.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
TestTake = Take.TestCase
TestTake.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)

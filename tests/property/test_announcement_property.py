"""Checks, announcements, repetitions and forgeries through two relays, in any order: where does the owner's media go?

The model is two sentences: a new check moves the path to the relay that it came through; an authentic announcement does, if it was
made after the path and after every one that was believed before. Nothing else moves it.
"""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.support.transceiver import CLIENT, HINT_KEYS, OTHER_RELAY, RELAY, World
from voicefleet_contract.addresses import Address
from voicefleet_contract.announcement import Addressee, encode_announcement
from voicefleet_contract.drops import DropReason
from voicefleet_contract.keys import KeyRing
from voicefleet_contract.spp import encode_spp
from voicefleet_dataplane.core.call.paths import ANNOUNCEMENT_WINDOW_S

HERE, ELSEWHERE = Addressee(7, 5, 2), Addressee(7, 6, 2)
STRANGE_KEYS = KeyRing({1: b"x" * 32}, 1)
WALL_S = 1_700_000_000.0

relays = st.sampled_from([RELAY, OTHER_RELAY])
offsets_ms = st.sampled_from([-60_000, -9_000, -1_000, -3, 0, 3, 1_000, 9_000, 60_000])


class Owner(RuleBasedStateMachine):
    @initialize()
    def a_call(self) -> None:
        self.caller = World().connected(echo=True)
        self.world = self.caller.world
        self.through = RELAY
        self.believed_ms = int((WALL_S + self.world.now) * 1e3)
        self.said: list[tuple[bytes, Address, int]] = []
        self.world.now += 0.5

    def hear(self, datagram: bytes, relay: Address, said_ms: int) -> DropReason | None:
        now_ms = (WALL_S + self.world.now) * 1e3
        fresh = said_ms > self.believed_ms and abs(now_ms - said_ms) <= ANNOUNCEMENT_WINDOW_S * 1e3
        verdict = self.world.core.receive(datagram, relay, self.world.now)
        assert (verdict is None) == fresh, (verdict, said_ms - self.believed_ms)
        if fresh:
            self.through, self.believed_ms = relay, said_ms
        return verdict

    @rule(relay=relays, off_ms=offsets_ms)
    def a_relay_announces(self, relay: Address, off_ms: int) -> None:
        said_ms = int((WALL_S + self.world.now) * 1e3) + off_ms
        datagram = encode_announcement(encode_spp(CLIENT, relay), HERE, said_ms, HINT_KEYS)
        self.said.append((datagram, relay, said_ms))
        self.hear(datagram, relay, said_ms)

    @rule(data=st.data())
    def an_announcement_is_repeated(self, data: st.DataObject) -> None:
        if self.said:
            self.hear(*data.draw(st.sampled_from(self.said)))

    @rule(relay=relays, keys=st.sampled_from([HINT_KEYS, STRANGE_KEYS]), cut=st.integers(1, 23))
    def somebody_forges_one(self, relay: Address, keys: KeyRing, cut: int) -> None:
        said_ms = int((WALL_S + self.world.now) * 1e3)
        to = ELSEWHERE if keys is HINT_KEYS else HERE
        datagram = encode_announcement(encode_spp(CLIENT, relay), to, said_ms, keys)
        for attempt in (datagram, datagram[:-cut]):
            assert self.world.core.receive(attempt, relay, self.world.now) is not None

    @rule(relay=relays)
    def a_check_comes(self, relay: Address) -> None:
        assert self.caller.check(relay=relay) is None
        self.through = relay
        self.world.drain()

    @rule(relay=relays)
    def media_comes(self, relay: Address) -> None:
        assert self.caller.send(self.caller.build_audio(), relay=relay) is None
        assert {destination for _, destination in self.world.drain()} == {self.through}

    @rule(pause=st.sampled_from([0.001, 0.5, 3.0]))
    def time_passes(self, pause: float) -> None:
        self.world.now += pause
        self.caller.check(relay=self.through)  # consent goes on
        self.world.drain()

    @invariant()
    def the_path_goes_where_the_model_says(self) -> None:
        path = self.caller.session.ice.selected
        assert (path.destination, path.prefix) == (self.through, encode_spp(CLIENT, self.through))
        assert len(self.caller.session.ice.paths) == 1  # no address was learnt


TestOwner = Owner.TestCase

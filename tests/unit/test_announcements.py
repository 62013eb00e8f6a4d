"""A relay's announcement at the owner: it leads a checked path to the relay that sent it, once, and does nothing else."""

import pytest

from tests.support.transceiver import CLIENT, HINT_KEYS, OTHER_RELAY, RELAY, STRANGER, World
from voicefleet_contract.addresses import Address
from voicefleet_contract.announcement import Addressee, encode_announcement
from voicefleet_contract.drops import DropReason
from voicefleet_contract.keys import KeyRing
from voicefleet_contract.spp import encode_spp
from voicefleet_dataplane.core.call.model import EndReason
from voicefleet_dataplane.core.call.paths import ANNOUNCEMENT_WINDOW_S, CONSENT_S

HERE = Addressee(7, 5, 2)
WALL_S = 1_700_000_000.0  # what the world's clock is off from Unix time


def announcement(at, relay=OTHER_RELAY, client=CLIENT, to=HERE, keys=HINT_KEYS):
    return encode_announcement(encode_spp(client, relay), to, int((WALL_S + at) * 1e3), keys)


@pytest.fixture
def caller():
    caller = World().connected(echo=True)
    caller.world.now += 1.0
    return caller


def announce(caller, at=None, source=OTHER_RELAY, **fields):
    at = caller.world.now if at is None else at
    return caller.world.core.receive(announcement(at, **fields), source, caller.world.now)


def way_back(caller):
    caller.speak()
    sent = caller.world.drain()
    assert sent
    return {destination for _, destination in sent}


def test_media_goes_back_through_the_relay_that_announced_the_flow_before_the_next_check(caller):
    assert way_back(caller) == {RELAY}
    assert announce(caller) is None
    assert way_back(caller) == {OTHER_RELAY}
    assert caller.send(caller.build_audio(), relay=OTHER_RELAY) is None
    [(datagram, _)] = caller.world.drain()
    assert datagram.startswith(encode_spp(CLIENT, OTHER_RELAY))
    assert caller.world.core.announcements_followed == 1


def test_nothing_is_sent_in_answer(caller):
    announce(caller)
    assert caller.world.drain() == []


def test_an_announcement_that_was_believed_is_never_believed_again(caller):
    """R1 announces and dies; a check comes through R2, with no word of R2: R1's announcement does not lead back."""
    first = caller.world.now
    assert announce(caller, first) is None
    caller.check(relay=RELAY)
    caller.world.drain()
    for _ in range(3):
        caller.world.now += 0.5
        assert announce(caller, first) is DropReason.ANNOUNCEMENT_STALE
    assert way_back(caller) == {RELAY}


def test_announcements_are_believed_in_ascending_order(caller):
    now = caller.world.now
    assert announce(caller, now) is None
    assert announce(caller, now - 0.5, source=RELAY, relay=RELAY) is DropReason.ANNOUNCEMENT_STALE
    assert way_back(caller) == {OTHER_RELAY}
    assert announce(caller, now + 0.5, source=RELAY, relay=RELAY) is None
    assert way_back(caller) == {RELAY}


@pytest.mark.parametrize("off_s", [-ANNOUNCEMENT_WINDOW_S - 1, ANNOUNCEMENT_WINDOW_S + 1])
def test_a_relay_whose_clock_is_far_off_waits_for_the_next_check(caller, off_s):
    caller.world.now += 20.0
    assert announce(caller, caller.world.now + off_s) is DropReason.ANNOUNCEMENT_STALE
    assert way_back(caller) == {RELAY}


def test_an_announcement_from_before_the_path_was_made_is_too_old(caller):
    """So one of an earlier call on the same address cannot be repeated in this one."""
    assert announce(caller, caller.world.now - 1.5) is DropReason.ANNOUNCEMENT_STALE


OTHER_KEYS = KeyRing({1: b"x" * 32}, 1)
ANOTHER_EPOCH = KeyRing({2: b"h" * 32}, 2)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"keys": OTHER_KEYS}, DropReason.ANNOUNCEMENT_FORGED),
        ({"keys": ANOTHER_EPOCH}, DropReason.ANNOUNCEMENT_FORGED),
        ({"to": Addressee(7, 6, 2)}, DropReason.ANNOUNCEMENT_FORGED),
        ({"to": Addressee(7, 5, 1)}, DropReason.ANNOUNCEMENT_FORGED),
        ({"to": Addressee(8, 5, 2)}, DropReason.ANNOUNCEMENT_FORGED),
        ({"source": STRANGER, "relay": STRANGER}, DropReason.SPP_FROM_STRANGER),
        ({"client": Address("203.0.113.5", 1)}, DropReason.ADDRESS_NOT_CHECKED),
    ],
)
def test_an_announcement_is_dropped_and_counted_that_is(caller, fields, reason):
    before = caller.world.drops()
    assert announce(caller, **fields) is reason
    after = caller.world.drops()
    assert after == {**before, reason: before.get(reason, 0) + 1}
    assert way_back(caller) == {RELAY}


def test_an_announcement_under_another_header_is_a_forgery(caller):
    """The tag covers the header: another client's, or another relay's, cannot be put in front of it."""
    body = announcement(caller.world.now)[38:]
    for header in (encode_spp(CLIENT, RELAY), encode_spp(Address("203.0.113.5", 1), OTHER_RELAY)):
        verdict = caller.world.core.receive(header + body, OTHER_RELAY, caller.world.now)
        assert verdict is DropReason.ANNOUNCEMENT_FORGED


def test_a_later_versions_announcement_is_a_packet_of_an_unknown_kind(caller):
    later = bytearray(announcement(caller.world.now))
    later[39] = 2 << 5 | 1
    assert caller.world.core.receive(bytes(later), OTHER_RELAY, caller.world.now) is DropReason.UNKNOWN_KIND


def test_without_a_relay_there_is_nobody_to_announce():
    caller = World(accept_direct=True).connected(relay=None, echo=True)
    body = announcement(caller.world.now)[38:]
    assert caller.send(body, address=CLIENT) is not None
    assert caller.world.core.announcements_followed == 0


def test_it_prolongs_no_consent(caller):
    for _ in range(int(CONSENT_S)):
        caller.world.pass_time(1.0)
        announce(caller)
    caller.world.pass_time(1.0)
    assert caller.session.end_reason is EndReason.CONSENT_EXPIRED
    assert announce(caller) is DropReason.ADDRESS_NOT_CHECKED


def test_it_moves_the_announced_path_and_not_the_selected_one(caller):
    other = Address("198.51.100.2", 40_001)
    caller.check(address=other, nominate=False)
    caller.world.drain()
    caller.world.now += 0.1
    assert announce(caller, client=other) is None
    assert way_back(caller) == {RELAY}

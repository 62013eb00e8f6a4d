"""What an address gets that has not proved that it receives: three bytes for one, media included, whatever the call has proved elsewhere."""

import pytest

from tests.support.transceiver import CLIENT, CLIENT_PWD, OTHER_RELAY, RELAY, World
from voicefleet_contract.addresses import Address
from voicefleet_contract.drops import DropReason
from voicefleet_contract.spp import HEADER_BYTES, decode_spp
from voicefleet_dataplane.core.call.path_budget import PathBudget
from voicefleet_dataplane.core.call.path_proof import MOST_CHECKS, MOST_MISSES, MOST_REPORTS, REPORT_SHIFT_BITS
from voicefleet_dataplane.wire.rtcp import ReportBlock, SenderInfo, build_report, parse_rtcp
from voicefleet_dataplane.wire.sdp.model import SetupRole
from voicefleet_dataplane.wire.stun import build_binding_success, is_response, parse_binding_request

VICTIM = Address("198.51.100.77", 41_000)
ELSEWHERE = Address("203.0.113.9", 5_555)
SPEECH = b"o" * 80


def speak(caller, count=1):
    """The agent speaks: so many frames, of which each says whether it left."""
    session = caller.session
    first = session.sending.packets + 1
    return [session.send_audio(SPEECH, first + n, (first + n) * 960) for n in range(count)]


# ---- media at a victim


@pytest.mark.parametrize("setup", [SetupRole.ACTPASS, SetupRole.ACTIVE])
def test_one_spoofed_nominating_check_aims_no_audio_at_a_stranger(setup):
    world = World()
    caller = world.connected(setup=setup)
    check = caller.build_check()
    assert caller.send(check, address=VICTIM) is None
    assert caller.session.ice.selected.client == VICTIM
    for _ in range(25):
        speak(caller)
        world.pass_time(1.0)
    assert 0 < world.sent_bytes[VICTIM] <= 3 * len(check)


def test_nor_do_spoofed_checks_and_audio_without_end_bring_it_more_than_three_bytes_for_one():
    world = World()
    caller = world.connected()
    sent = 0
    for second in range(120):
        check = caller.build_check()
        sent += len(check)
        assert caller.send(check, address=VICTIM) is None
        for _ in range(second % 3):
            packet = caller.build_audio()
            sent += len(packet)
            assert caller.send(packet, address=VICTIM) is None
        if second % 20 == 0:
            caller.check(nominate=False)
        for _ in range(50):
            speak(caller)
            world.pass_time(0.02)
        caller.session.send_sctp(b"data" * 100, world.now)
        world.settle()
    world.core.calls.hang_up(caller.session.agreed.call_id)
    world.settle()
    assert sent / 3 < world.sent_bytes[VICTIM] <= 3 * sent
    assert world.drops().get(DropReason.PATH_NOT_PROVEN, 0) == 0  # the rest went where the caller is


def test_what_has_no_other_way_is_counted():
    world = World()
    caller = world.connected()
    caller.check(address=VICTIM)
    world.pass_time(20.0)
    caller.check(address=VICTIM)
    world.pass_time(11.0)  # its own path has had no check for 30 s
    assert list(caller.session.ice.paths) == [VICTIM]
    before = caller.session.packets_out
    left = speak(caller, 30)
    assert left.count(True) <= 2
    assert world.drops()[DropReason.PATH_NOT_PROVEN] == left.count(False)
    assert caller.session.packets_out == before + left.count(True)


@pytest.mark.parametrize("kind", ["the path's own password", "another transaction", "of another call"])
def test_an_answer_that_is_guessed_proves_nothing(kind):
    world = World()
    caller, other = world.connected(), world.connected(ELSEWHERE)
    caller.check(address=VICTIM)
    (asked,) = [packet for packet in sent_to(world, VICTIM) if not is_response(packet) and packet[0] == 0]
    transaction = parse_binding_request(asked).transaction_id
    key = caller.pwd.encode() if kind == "the path's own password" else CLIENT_PWD
    if kind == "another transaction":
        transaction = transaction[:-1] + bytes((transaction[-1] ^ 1,))
    answer = build_binding_success(transaction, RELAY, key)
    sender = other if kind == "of another call" else caller
    assert sender.send(answer) is DropReason.STUN_NOT_REQUEST
    assert not caller.session.ice.paths[VICTIM].budget.is_proven


def sent_to(world, address):
    found = []
    for datagram, _ in world.drain():
        to, _ = decode_spp(datagram)
        if to == address:
            found.append(datagram[HEADER_BYTES:])
    return found


def block_for(caller, last_report):
    block = ReportBlock(caller.ssrc, 0, 0, 0, 0, last_report, 0)
    return caller.srtp.protect_rtcp(build_report(SenderInfo(77, 0, 0, 0, 0), (block,), "c"))


def reports_sent(caller, address):
    """The LSRs that reports to an address will be named by."""
    clear = [
        caller.srtp.unprotect_rtcp_untrusted(p)
        for p in sent_to(caller.world, address)
        if p[0] & 0xC0 == 0x80 and p[1] == 200
    ]
    return [report.middle_ntp for packet in clear for report in parse_rtcp(packet).senders]


def test_the_time_of_a_report_is_not_guessed():
    """Whoever has the call knows our clock from its other reports, to the millisecond."""
    world = World()
    caller = world.connected()
    speak(caller)
    caller.check(address=VICTIM)
    (secret,) = reports_sent(caller, VICTIM)
    now = (int((world.now + 1_700_000_000.0 + 2_208_988_800) * 65_536)) & 0xFFFFFFFF
    assert 0 <= (now - secret) & 0xFFFFFFFF < 1 << REPORT_SHIFT_BITS
    for guess in range(secret - MOST_MISSES, secret):
        caller.send(block_for(caller, guess & 0xFFFFFFFF))
    caller.send(block_for(caller, secret))  # too late: those that were out count no more
    assert not caller.session.ice.paths[VICTIM].budget.is_proven


def test_a_path_that_is_checked_again_after_its_consent_ran_out_proves_itself_again():
    world = World()
    caller = world.connected()
    world.clients[ELSEWHERE] = caller
    caller.check(address=ELSEWHERE)
    world.settle()
    assert caller.session.ice.paths[ELSEWHERE].budget.is_proven
    for _ in range(16):
        world.pass_time(2.0)
        caller.check()
        world.settle()
    assert ELSEWHERE not in caller.session.ice.paths
    del world.clients[ELSEWHERE]
    caller.check(address=ELSEWHERE)
    assert not caller.session.ice.paths[ELSEWHERE].budget.is_proven


# ---- ordinary calls


@pytest.mark.parametrize("setup", [SetupRole.ACTPASS, SetupRole.ACTIVE, SetupRole.PASSIVE])
def test_a_call_of_one_path_is_proven_by_its_handshake_and_is_asked_nothing(setup):
    world = World()
    caller = world.connected(setup=setup)
    assert caller.session.ice.selected.budget.is_proven
    assert all(speak(caller, 500))
    world.pass_time(10.0)
    assert caller.asked == []
    assert len(caller.media) == 500


@pytest.mark.parametrize("setup", [SetupRole.ACTPASS, SetupRole.ACTIVE])
def test_a_handshake_over_two_paths_proves_neither_and_one_round_trip_more_does(setup):
    """The other path is nominated while our flight is under way, and the flight is repeated there."""
    world = World()
    caller = world.call(setup=setup)
    world.clients[ELSEWHERE] = caller
    arrive, lost = world.arrive, []

    def arrive_but_for_our_flight(datagram, destination):
        if not lost and datagram[HEADER_BYTES] == 22 and len(datagram) > 400:
            lost.append(datagram)
            caller.address = ELSEWHERE
            assert caller.check() is None
        else:
            arrive(datagram, destination)

    world.arrive = arrive_but_for_our_flight
    caller.check(nominate=False)
    world.settle()
    world.pass_time(0.5)
    assert lost
    assert caller.session.state == "connected"
    assert caller.session.ice.selected.client == ELSEWHERE
    assert caller.asked
    assert caller.session.ice.selected.budget.is_proven
    assert not caller.session.ice.paths[CLIENT].budget.is_proven
    assert all(speak(caller, 500))


def moved(world, **options):
    """A call whose client now has another address, and has nominated it."""
    caller = world.connected(**options)
    world.clients[ELSEWHERE] = caller
    del world.clients[CLIENT]
    return caller


@pytest.mark.parametrize("relay", [RELAY, OTHER_RELAY])
def test_a_client_that_moves_and_only_listens_hears_all_but_a_round_trip(relay):
    world = World()
    caller = moved(world)
    assert caller.check(address=ELSEWHERE, relay=relay) is None
    world.settle()
    assert caller.session.ice.selected.budget.is_proven
    assert all(speak(caller, 100))
    world.settle()
    assert len(caller.media) == 100


def test_one_that_answers_no_checks_is_proven_by_its_report_and_hears_what_it_says_times_three_until_then():
    world = World()
    caller = moved(world)
    caller.answers_checks = False
    speak(caller)
    assert caller.check(address=ELSEWHERE) is None
    (named,) = reports_sent(caller, ELSEWHERE)
    heard = sum(speak(caller, 50))
    assert len(sent_to(world, ELSEWHERE)) <= 2  # of the check's 300 bytes little is left
    assert heard == 50  # the rest went to where it was
    for _ in range(25):
        packet = caller.build_audio(SPEECH)
        assert caller.send(packet, address=ELSEWHERE) is None
        speak(caller)
    assert len(sent_to(world, ELSEWHERE)) >= 25  # it speaks: it hears
    assert caller.send(block_for(caller, named), address=ELSEWHERE) is None
    assert caller.session.ice.selected.budget.is_proven
    assert caller.session.reports.rtt_s is None  # of a time that was off nobody tells a round trip
    sent_to(world, ELSEWHERE)
    speak(caller, 50)
    assert len(sent_to(world, ELSEWHERE)) == 50


def test_it_is_asked_again_until_it_answers_more_and_more_seldom():
    world = World()
    caller = moved(world)
    caller.answers_checks = False
    caller.check(address=ELSEWHERE)
    world.clients[CLIENT] = caller
    for _ in range(10):
        world.pass_time(2.5)
        caller.check(address=ELSEWHERE)
    assert 10 <= len(caller.asked) <= 30
    caller.answers_checks = True
    world.pass_time(6.0)
    assert caller.session.ice.selected.budget.is_proven


def test_what_is_remembered_of_questions_is_bounded():
    world = World()
    caller = moved(world)
    caller.answers_checks = False
    speak(caller)
    for _ in range(200):
        caller.check(address=ELSEWHERE)
        caller.session.note_message(world.now)
        world.pass_time(1.0)
    proof = caller.session._outgoing.proof
    assert (len(proof._checks), len(proof._reports)) <= (MOST_CHECKS, MOST_REPORTS)


def test_a_budget_is_three_for_one_until_there_is_a_proof():
    budget = PathBudget(received_bytes=100)
    assert budget.may_send(300)
    assert not budget.may_send(1)
    budget.received_bytes += 1
    assert budget.may_send(3)
    budget.is_proven = True
    assert budget.may_send(1_000_000)

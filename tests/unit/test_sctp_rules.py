"""Our SCTP by the letter of its RFCs: what each chunk is answered with, one at a time. Section numbers are RFC 9260's."""

import pytest

from tests.support.sctp import End, Network, World
from tests.support.sctp_attacks import Victim
from voicefleet_dataplane.core.call.sctp import chunks as c
from voicefleet_dataplane.core.call.sctp.channels import Outcome
from voicefleet_dataplane.core.call.sctp.congestion import INITIAL_PACKETS
from voicefleet_dataplane.core.call.sctp.events import Dropped, State
from voicefleet_dataplane.core.call.sctp.handshake import COOKIE_LIFETIME_MS, STATE_COOKIE, UNRECOGNIZED
from voicefleet_dataplane.core.call.sctp.inbound import SACK_DELAY_S
from voicefleet_dataplane.core.call.sctp.outbox import PAYLOAD_BYTES

FORWARD_TSN_SUPPORTED, EXTENSIONS, ZERO_CHECKSUM = 0xC000, 0x8008, 0x8001
I_DATA = 64


def answers(end: End, now: float, *packets: bytes) -> list[tuple[int, c.Chunk]]:
    """The chunks that packets are answered with, each with its tag."""
    for packet in packets:
        end.channels.receive(packet, now)
    end.drain()
    found = []
    for packet in end.channels.poll(now):
        tag, chunks = c.parse_packet(packet)
        found += [(tag, chunk) for chunk in chunks]
    return found


def kinds(found: list[tuple[int, c.Chunk]]) -> list[int]:
    return [chunk[0] for _, chunk in found]


def alone(kind: int, value: bytes = b"", tag: int = 0, flags: int = 0) -> bytes:
    return c.build_packet((5000, 5000), tag, [c.build_chunk(kind, value, flags)])


def init(tag: int = 77, tsn: int = 1_000, parameters=((EXTENSIONS, b"\x82\xc0"),), streams=(10, 10)) -> bytes:
    return c.build_packet(
        (5000, 5000), 0, [c.build_init(c.INIT, c.Init(tag, 1 << 20, *streams, tsn, tuple(parameters)))]
    )


def init_ack(found) -> c.Init:
    return c.parse_init(next(chunk[2] for _, chunk in found if chunk[0] == c.INIT_ACK))


# ---- coming up (section 5)


def called(parameters=((EXTENSIONS, b"\x82\xc0"),)) -> tuple[End, c.Init]:
    """One that calls and is called."""
    end = End(1)
    found = answers(end, 0.0, init(parameters=parameters))
    assert kinds(found) == [c.INIT, c.INIT_ACK]
    assert found[1][0] == 77
    return end, init_ack(found)


def echo_of(ack: c.Init) -> bytes:
    return alone(c.COOKIE_ECHO, dict(ack.parameters)[STATE_COOKIE], ack.tag)


def test_a_collision_is_answered_with_the_tag_of_our_own_init():
    end, ack = called()
    assert (ack.tag, ack.tsn) == (end.life.setup.our_tag, end.life.setup.our_tsn)
    assert kinds(answers(end, 0.1, echo_of(ack)))[0] == c.COOKIE_ACK
    assert end.channels.is_up
    assert kinds(answers(end, 0.2, echo_of(ack)))[0] == c.COOKIE_ACK  # table 12, D: ours was lost
    assert end.closed == []


@pytest.mark.parametrize("change", [lambda cookie: cookie[:-1], lambda cookie: cookie[:-1] + b"x", lambda _: b""])
def test_a_cookie_that_is_not_ours_meets_silence(change):
    end, ack = called()
    forged = alone(c.COOKIE_ECHO, change(dict(ack.parameters)[STATE_COOKIE]), ack.tag)
    assert end.channels.receive(forged, 0.1) is Dropped.WRONG_TAG
    assert end.channels.poll(0.1) == []


def test_a_cookie_that_is_too_old_gets_an_error_and_opens_nothing():
    end, ack = called()
    late = COOKIE_LIFETIME_MS / 1e3 + 1
    ((tag, error),) = [one for one in answers(end, late, echo_of(ack)) if one[1][0] == c.ERROR]
    assert tag == 77
    assert c.parse_parameters(error[2]) == [(c.STALE_COOKIE, (1_000_000).to_bytes(4, "big"))]
    assert not end.channels.is_up


def test_who_starts_again_gets_another_tag_and_only_its_cookie_ends_what_was():
    end, ack = called()
    answers(end, 0.1, echo_of(ack))
    again = init_ack(answers(end, 1.0, init(tag=88, tsn=5)))
    assert again.tag != ack.tag
    assert end.association.state is State.ESTABLISHED
    channel = end.open(1, negotiated=True)
    assert kinds(answers(end, 1.1, echo_of(again)))[0] == c.COOKIE_ACK  # table 12, A
    assert end.closed == [1]
    assert end.channels.send(channel, "late", 1.2) is Outcome.CLOSED
    assert end.life.outbox.peers_tag == 88
    assert end.life.inbound.cumulative == 4
    assert end.channels.receive(echo_of(ack), 1.3) is Dropped.WRONG_TAG  # table 12, C: a cookie of before


def test_init_must_be_alone_and_have_no_tag():
    end = End(1)
    good = c.build_init(c.INIT, c.Init(77, 1 << 20, 1, 1, 1))
    assert end.channels.receive(c.build_packet((1, 2), 9, [good]), 0.0) is Dropped.MALFORMED
    assert end.channels.receive(c.build_packet((1, 2), 0, [good, good]), 0.0) is Dropped.MALFORMED
    assert end.channels.receive(init(tag=0), 0.0) is Dropped.MALFORMED
    assert kinds(answers(end, 0.0, init(streams=(0, 1)))) == [c.INIT, c.ABORT]


def test_unknown_parameters_are_reported_as_their_bits_say():
    """The first bit: go on after it. The second: report it (section 3.2.1)."""
    _, ack = called([(0x8123, b"quiet"), (0xC123, b"loud"), (0x4123, b"stop"), (0xC124, b"not reached")])
    reported = [value for kind, value in ack.parameters if kind == UNRECOGNIZED]
    assert reported == [c.build_parameters(((0xC123, b"loud"),)), c.build_parameters(((0x4123, b"stop"),))]


def test_what_we_do_not_offer_is_declined_in_silence():
    """Zero checksum (RFC 9653) and I-DATA (RFC 8260): who offers them must go on without."""
    end, ack = called([(ZERO_CHECKSUM, b"\0\0\0\1"), (EXTENSIONS, bytes((I_DATA, 194, 130, 192)))])
    assert UNRECOGNIZED not in dict(ack.parameters)
    assert ZERO_CHECKSUM not in dict(ack.parameters)
    assert set(dict(ack.parameters)[EXTENSIONS]) == {c.RE_CONFIG, c.FORWARD_TSN}
    answers(end, 0.1, echo_of(ack))
    no_checksum = bytearray(alone(c.HEARTBEAT, b"\0\1\0\4", ack.tag))
    no_checksum[8:12] = bytes(4)
    assert end.channels.receive(bytes(no_checksum), 0.2) is Dropped.MALFORMED


def test_init_is_repeated_until_somebody_answers_and_then_who_calls_is_still_answered():
    end, now, sent = End(1), 0.0, 0
    end.channels.poll(now)
    while (due := end.channels.deadline()) is not None:
        now = due
        end.channels.advance(now)
        sent += len(end.channels.poll(now))
    assert 30 < now < 60
    assert sent == 15
    assert end.association.state is State.CLOSED
    ack = init_ack(answers(end, now, init()))
    answers(end, now, echo_of(ack))
    assert end.channels.is_up


# ---- tags, unknown chunks, ends (sections 8.4, 8.5, 3.2, 9)


def test_a_wrong_tag_meets_silence_also_from_an_abort():
    victim = Victim()
    for tag in (0, victim.life.setup.our_tag ^ 1):
        assert victim.receive(alone(c.ABORT, tag=tag)) is Dropped.WRONG_TAG
    assert victim.receive(alone(c.ABORT, tag=victim.life.setup.our_tag, flags=c.REFLECTED)) is Dropped.WRONG_TAG
    assert victim.receive(alone(c.ABORT, tag=victim.life.outbox.peers_tag, flags=c.REFLECTED)) is None
    assert victim.end.is_over


@pytest.mark.parametrize(
    ("kind", "reported", "goes_on"),
    [(0x3F, False, False), (0x7F, True, False), (0xBF, False, True), (0xFF, True, True)],
)
def test_unknown_chunks_are_passed_over_as_their_bits_say(kind, reported, goes_on):
    victim = Victim()
    packet = victim.packet(c.build_chunk(kind, b"what?"), c.build_chunk(c.HEARTBEAT, b"\0\1\0\4"))
    found = kinds(answers(victim.end, victim.now, packet))
    assert (c.ERROR in found) == reported
    assert (c.HEARTBEAT_ACK in found) == goes_on


def test_i_data_is_an_unknown_chunk():
    victim = Victim()
    assert kinds(answers(victim.end, victim.now, victim.packet(c.build_chunk(I_DATA, bytes(17))))) == [c.ERROR]


def test_shutdown_is_agreed_to_when_the_peer_has_everything():
    victim = Victim()
    channel = victim.end.open(1, negotiated=True)
    victim.end.channels.send(channel, "last words", victim.now)
    assert kinds(answers(victim.end, victim.now))[-1] == c.DATA
    sent = victim.life.outbound.sent
    shutdown = victim.packet(c.build_chunk(c.SHUTDOWN, (sent.cumulative & 0xFFFFFFFF).to_bytes(4, "big")))
    assert c.SHUTDOWN_ACK not in kinds(answers(victim.end, victim.now, shutdown))
    assert victim.end.left == 1
    assert victim.end.channels.send(channel, "more", victim.now) is Outcome.CLOSED
    everything = victim.packet(c.build_sack((sent.next_tsn - 1) & 0xFFFFFFFF, 1 << 20, [], []))
    assert kinds(answers(victim.end, victim.now, everything)) == [c.SHUTDOWN_ACK]
    victim.end.channels.advance(victim.now + 1)
    assert kinds(answers(victim.end, victim.now + 1)) == [c.SHUTDOWN_ACK]
    answers(victim.end, victim.now + 1, victim.packet(c.build_chunk(c.SHUTDOWN_COMPLETE)))
    assert victim.end.closed == [1]
    assert victim.end.left == 1
    assert victim.end.channels.deadline() is None


def test_a_peer_that_leaves_is_heard_after_its_messages_also_by_an_end_that_holds_them_back():
    victim = Victim()
    channel = victim.end.open(1, negotiated=True)
    victim.end.channels._hold_bytes = 1_000
    victim.end.channels.send(channel, b"x" * 2_000, victim.now)
    answers(victim.end, victim.now, victim.packet(victim.data(victim.tsn, flags=3)))
    assert victim.end.heard == {}  # it waits
    answers(victim.end, victim.now, victim.packet(c.build_chunk(c.SHUTDOWN, bytes(4))))
    assert [list(victim.end.heard), victim.end.left] == [[1], 1]


def test_an_abort_without_a_cause_is_a_leave():
    victim = Victim()
    answers(victim.end, victim.now, victim.packet(c.build_chunk(c.ABORT)))
    assert victim.end.is_over
    assert victim.end.left == 1


def test_an_abort_with_a_cause_is_no_leave_nor_is_one_of_who_does_not_know_us():
    failed = c.build_causes(c.ABORT, c.USER_ABORT, b"Too many retransmissions")
    for chunk, is_reflected in ((failed, False), (c.build_chunk(c.ABORT, flags=c.REFLECTED), True)):
        victim = Victim()
        tag = victim.life.outbox.peers_tag if is_reflected else victim.life.setup.our_tag
        answers(victim.end, victim.now, c.build_packet((5000, 5000), tag, [chunk]))
        assert victim.end.is_over
        assert victim.end.left == 0


def test_who_shuts_down_and_then_aborts_has_left_once():
    victim = Victim()
    told = (victim.life.outbound.sent.cumulative & 0xFFFFFFFF).to_bytes(4, "big")
    for chunk in (c.build_chunk(c.SHUTDOWN, told), c.build_chunk(c.ABORT)):
        answers(victim.end, victim.now, victim.packet(chunk))
    assert victim.end.left == 1


def test_who_starts_again_has_not_left_nor_has_an_abort_of_before():
    victim = Victim()
    before = victim.packet(c.build_chunk(c.ABORT))
    ack = init_ack(answers(victim.end, victim.now, init()))
    answers(victim.end, victim.now, echo_of(ack))
    victim.end.channels.receive(before, victim.now)
    assert victim.end.left == 0
    assert not victim.end.is_over


def test_who_goes_on_after_the_end_is_told_but_for_words_that_would_echo():
    victim = Victim()
    victim.end.channels.abort("over")
    assert kinds(answers(victim.end, victim.now)) == [c.ABORT]
    ((tag, (kind, flags, _)),) = answers(victim.end, victim.now, victim.packet(victim.data(victim.tsn)))
    assert (tag, kind, flags) == (victim.life.setup.our_tag, c.ABORT, c.REFLECTED)
    assert kinds(answers(victim.end, victim.now, victim.packet(c.build_chunk(c.SHUTDOWN_ACK)))) == [c.SHUTDOWN_COMPLETE]
    for kind in (c.ABORT, c.SHUTDOWN_COMPLETE, c.COOKIE_ACK, c.ERROR):
        assert answers(victim.end, victim.now, victim.packet(c.build_chunk(kind))) == []


# ---- acknowledging (section 6.2)


def sacks(victim: Victim, now: float) -> list[bytes]:
    return [chunk[2] for _, chunk in answers(victim.end, now) if chunk[0] == c.SACK]


def test_every_second_packet_is_acknowledged_and_one_alone_after_200_ms():
    victim, now = Victim(), 10.0
    victim.end.channels.poll(now)
    first = victim.tsn
    whole = c.BEGINS | c.ENDS
    victim.receive(victim.packet(victim.data(first, whole)))
    assert len(sacks(victim, now)) == 1  # the very first
    victim.now = now
    victim.receive(victim.packet(victim.data(first + 1, whole, ssn=1)))
    assert sacks(victim, now) == []
    assert victim.end.channels.deadline() == pytest.approx(now + SACK_DELAY_S)
    assert len(sacks(victim, now + SACK_DELAY_S)) == 1
    for number in (2, 3):
        victim.receive(victim.packet(victim.data(first + number, whole, ssn=number)))
    assert len(sacks(victim, now + 1)) == 1
    victim.receive(victim.packet(victim.data(first + 4, whole | c.AT_ONCE, ssn=4)))
    assert len(sacks(victim, now + 1)) == 1  # RFC 7053


def test_holes_and_doubles_are_reported_at_once():
    victim = Victim()
    first = victim.tsn
    for offset in (1, 3, 4, 3):
        victim.receive(victim.packet(victim.data(first + offset, 3, ssn=offset)))
    (value,) = sacks(victim, victim.now)
    sack = c.parse_sack(value)
    assert sack.gaps == ((2, 2), (4, 5))
    assert value[-4:] == ((first + 3) & 0xFFFFFFFF).to_bytes(4, "big")


# ---- sending (sections 6.1, 6.3, 7.2)


def sending(count: int) -> tuple[Victim, list[int]]:
    """A victim that has sent so many full chunks at once, and their TSNs."""
    victim = Victim()
    channel = victim.end.open(1, negotiated=True)
    for _ in range(count):
        victim.end.channels.send(channel, b"x" * PAYLOAD_BYTES, victim.now)
    return victim, tsns(answers(victim.end, victim.now))


def tsns(found) -> list[int]:
    return [int.from_bytes(chunk[2][:4], "big") for _, chunk in found if chunk[0] == c.DATA]


def sack(victim: Victim, cumulative: int, *gaps: tuple[int, int], window: int = 1 << 20) -> list[int]:
    """The TSNs that are sent when a SACK has come."""
    packet = victim.packet(c.build_sack(cumulative & 0xFFFFFFFF, window, list(gaps), []))
    return tsns(answers(victim.end, victim.now, packet))


def test_ten_packets_go_at_once_and_then_one_more_for_each_that_is_acknowledged():
    victim, sent = sending(40)
    assert len(sent) == INITIAL_PACKETS
    assert len(sack(victim, sent[1])) == 3  # two have left, and the window has grown by one


def test_what_three_sacks_miss_goes_again_at_once_and_halves_the_window_once():
    victim, sent = sending(20)
    victim.now += 0.05
    before = victim.life.outbound.congestion.window
    assert sent[0] not in sack(victim, sent[0] - 1, (2, 2))
    assert sent[0] not in sack(victim, sent[0] - 1, (2, 3))
    again = sack(victim, sent[0] - 1, (2, 4))
    assert again[0] == sent[0]
    assert victim.life.outbound.congestion.window == before // 2
    assert sent[0] not in sack(victim, sent[0] - 1, (2, 5))  # once: from here on the timer looks after it
    assert victim.life.outbound.congestion.window == before // 2


def test_after_a_timeout_everything_goes_again_also_what_was_reported():
    """The peer may throw away what it has reported (section 6.2.1): here it has."""
    victim, sent = sending(5)
    sack(victim, sent[0] - 1, (2, 5))
    victim.now = victim.end.channels.deadline()
    victim.end.channels.advance(victim.now)
    resent = tsns(answers(victim.end, victim.now))
    while resent[-1] != sent[-1]:
        resent += sack(victim, resent[-1])
    assert resent == sent


def test_a_closed_window_is_probed_with_one_chunk_and_its_answers_count_as_life():
    victim, sent = sending(5)
    sack(victim, sent[-1], window=0)
    channel = victim.end.channels.open_channels[0]
    victim.end.channels.send(channel, b"x" * 3 * PAYLOAD_BYTES, victim.now)
    probe = tsns(answers(victim.end, victim.now))
    assert len(probe) == 1
    for _ in range(40):
        victim.now = victim.end.channels.deadline()
        victim.end.channels.advance(victim.now)
        assert tsns(answers(victim.end, victim.now)) in (probe, [])
        sack(victim, probe[0] - 1, window=0)
    assert victim.end.association.state is State.ESTABLISHED
    assert len(sack(victim, probe[0])) == 2


def test_a_silent_association_asks_whether_the_peer_is_there():
    world = World(network=Network(delay_s=0.01)).up()
    world.pass_time(100)
    beats = [packet for packet in world.ours.sent if packet[c.HEADER_BYTES] == c.HEARTBEAT]
    assert len(beats) == 3
    assert world.ours.life.heartbeat.unanswered == 0

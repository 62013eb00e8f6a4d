"""What a client may make our SCTP do and keep. Steps are counted (core/call/sctp/meter.py), never timed.

A packet may cost what it releases, once, and beside that A_CHUNK for each chunk and ITEMS for what its bytes can list: whatever came
before. So the same packet costs the same against a state of N, 2N and 4N.
"""

import json

import pytest

from bench.docs import ROOT
from bench.report import RESULTS
from tests.support.sctp import World
from tests.support.sctp_attacks import ROOM, Known, Victim, search
from voicefleet_dataplane.core.call.sctp import chunks as c
from voicefleet_dataplane.core.call.sctp.channels import Outcome
from voicefleet_dataplane.core.call.sctp.events import Dropped, State
from voicefleet_dataplane.core.call.sctp.inbound import MAX_AHEAD, MAX_HOLES, WINDOW_BYTES
from voicefleet_dataplane.core.call.sctp.meter import STEPS_AT_ONCE, STEPS_PER_S
from voicefleet_dataplane.core.call.sctp.reassembly import FRAGMENT_BYTES, MAX_STREAMS

SIZES = (100, 200, 400)
A_CHUNK = 8
ITEMS = ROOM // 2 + 100  # a list of streams has two bytes for each


def flat(costs: list[int]) -> int:
    """The cost, which does not grow with the state."""
    assert max(costs) <= min(costs) + 16, costs
    return max(costs)


@pytest.mark.parametrize(
    ("attack", "bound"),
    [
        (lambda victim, _: Known.wide_sack(victim), 300 + 20),
        (lambda victim, at: Known.one_byte_fragments(victim, 4_000 + 200 * at), 50 * A_CHUNK),
        (lambda victim, at: Known.many_streams(victim, 1_000 * at), 280 + 100),
    ],
)
def test_packets_that_cost_a_call_dear_before_cost_their_length(attack, bound):
    costs = []
    for size in SIZES:
        victim = Victim().burden(size)
        costs.append(max(victim.hit(attack(victim, at)) for at in range(1, 8)))
        assert victim.end.association.state is State.ESTABLISHED
    assert flat(costs) <= bound


@pytest.mark.parametrize("seed", range(3))
def test_the_worst_packet_that_a_search_finds_is_no_worse_against_a_larger_state(seed):
    found = [search(size, 60, seed) for size in SIZES]
    flat([steps for steps, _ in found])
    for steps, chunks in found:
        assert steps <= A_CHUNK * len(chunks) + ITEMS


def test_thousands_of_fragments_with_holes_are_kept_within_bounds():
    victim = Victim()
    dropped = 0
    for at in range(0, 40_000, 100):
        dropped += victim.receive(Known.one_byte_fragments(victim, at + 1)) is Dropped.NO_ROOM
        assert len(victim.end.channels.poll(victim.now)) <= 1
    inbound = victim.life.inbound
    assert dropped
    assert len(inbound._ahead) == MAX_HOLES
    assert inbound.messages.kept_bytes <= MAX_HOLES * 257
    assert max(inbound._ahead.lasts) <= inbound.cumulative + MAX_AHEAD


def test_a_message_without_end_costs_the_association_and_no_more():
    victim = Victim()
    kept = 0
    while victim.end.association.state is State.ESTABLISHED:
        victim.hit(victim.packet(victim.data(victim.tsn, payload=b"x" * 1_000)))
        kept = max(kept, victim.life.inbound.messages.kept_bytes)
    assert victim.end.channels.ended == "a message is longer than 262144 bytes"
    assert kept < 400_000


def test_messages_whose_turn_never_comes_cost_the_association_and_no_more():
    victim = Victim()
    number = kept = 0
    while victim.end.association.state is State.ESTABLISHED:
        number += 1
        victim.hit(victim.packet(victim.data(victim.tsn, c.BEGINS | c.ENDS, ssn=number, payload=b"x" * 1_000)))
        kept = max(kept, victim.life.inbound.messages.kept_bytes)
    assert victim.end.channels.ended == "what is kept cannot become messages"
    assert kept < 3 * WINDOW_BYTES


def test_a_peer_that_ignores_our_window_is_not_heard_past_it():
    victim = Victim()
    first, size = victim.tsn, 1_000
    reasons = []
    for number in range(3_000):  # the first chunk never comes: nothing can be delivered
        packet = victim.packet(victim.data(first + 1 + number, c.BEGINS | c.ENDS, ssn=1 + number, payload=b"x" * size))
        reasons.append(victim.receive(packet))
        victim.end.channels.poll(victim.now)
    assert victim.life.inbound.window < size + FRAGMENT_BYTES
    assert victim.life.inbound.messages.kept_bytes <= 1.5 * WINDOW_BYTES
    taken = reasons.count(None)
    assert reasons == [None] * taken + [Dropped.NO_ROOM] * (3_000 - taken)
    victim.hit(victim.packet(victim.data(first, c.BEGINS | c.ENDS, payload=b"x" * size)))
    assert len(victim.end.heard[1]) == taken + 1
    assert victim.life.inbound.window == WINDOW_BYTES


def test_streams_are_bounded_and_the_peer_hears_of_it():
    victim = Victim()
    for stream in range(2 * MAX_STREAMS):
        victim.receive(victim.packet(victim.data(victim.tsn, 3, stream)))
        victim.hit(victim.packet(c.build_forward_tsn(victim.tsn, [(1_000 + stream, 1)])))
    assert len(victim.life.inbound.messages._streams) == MAX_STREAMS
    assert victim.receive(victim.packet(victim.data(victim.tsn, 3, 60_000))) is Dropped.NO_ROOM
    (packet,) = victim.end.channels.poll(victim.now)
    _, chunks = c.parse_packet(packet)
    assert (c.ERROR, 0, b"\0\1\0\x08\xea\x60\0\0") in chunks


def test_what_was_joined_leaves_no_trace():
    """A fragment that nobody needs stays for ever in front; a hundred thousand messages in two fragments pass it."""
    victim = Victim()
    victim.hit(victim.packet(victim.data(victim.tsn, 0, payload=b"lost")))
    for number in range(2_000):
        tsn = victim.tsn
        begins, ends = (victim.data(tsn + at, (c.BEGINS, c.ENDS)[at], ssn=number) for at in (0, 1))
        victim.hit(victim.packet(begins, ends))
    messages = victim.life.inbound.messages
    assert len(victim.end.heard[1]) == 2_000
    assert len(messages._firsts) < 100
    assert len(messages._by_first) == len(messages._by_last) == 1


def test_past_its_share_of_steps_a_call_is_not_heard_until_time_has_passed():
    victim = Victim()
    packet = Known.wide_sack(victim)
    channels, now = victim.end.channels, victim.now + 10
    taken = 0
    while channels.receive(packet, now) is None:
        taken += 1
    assert taken == pytest.approx(STEPS_AT_ONCE / 309, rel=0.02)
    assert channels.receive(packet, now) is Dropped.TOO_MANY_STEPS
    heard = sum(channels.receive(packet, now + ms / 1e3) is None for ms in range(1_000))
    assert heard == pytest.approx(STEPS_PER_S / 309, rel=0.05)


def test_a_calls_share_of_steps_is_at_most_half_of_a_core_as_they_were_measured():
    rows = json.loads((RESULTS / "sctp.json").read_text())["rows"]
    dearest_ns = max(row["interval"][1] for row in rows if row["table"] == "steps")
    assert dearest_ns * 1e-9 * STEPS_PER_S <= 0.5
    assert f"{STEPS_PER_S:,} counted steps a second" in (ROOT / "docs" / "clients.md").read_text()


@pytest.mark.parametrize("count", [1, 8])
def test_answers_are_bounded_by_what_asks_for_them(count):
    victim = Victim()
    unknown = [c.build_chunk(0xC9)] * 250
    heartbeats = [c.build_chunk(c.HEARTBEAT)] * 250
    for chunks in (unknown, heartbeats):
        for _ in range(count):
            victim.receive(victim.packet(*chunks))
        packets = victim.end.channels.poll(victim.now)
        assert sum(map(len, packets)) <= count * len(victim.packet(*chunks))


def test_a_sack_of_what_was_never_sent_ends_the_association():
    victim = Victim()
    victim.hit(victim.packet(c.build_sack(victim.life.outbound.sent.next_tsn, 1 << 20, [], [])))
    assert victim.end.channels.ended == "what was never sent is acknowledged"


def test_nothing_but_nonsense_ends_in_no_exception():
    """The search's packets, many of them, against one end: it may end, and that is all."""
    for seed in range(8):
        search(10, 40, seed)


def test_a_call_with_an_honest_client_never_meets_its_bounds():
    world = World().up()
    channel = world.client.open(0)
    sent = 0
    while sent < 60:
        sent += world.client.channels.send(channel, b"x" * 262_144, world.now) is Outcome.QUEUED
        world.step()
    world.run(lambda: len(world.ours.heard.get(0, [])) == sent)
    assert world.ours.drops == []

"""When native XDP is used: turns that fall on both alike, and verdicts that noise does not make."""

import random

import pytest

from voicefleet_dataplane.fastpath.trial import LEAST, MOST, PACKETS, WINDOW_S, Trial


def tried(xdp_ns, tc_ns, *, packets_a_second=5_000, noise=0.0, drift=0.0, seconds=10_000):
    """Run a trial in which a packet costs this and that; gives the trial and how long it took."""
    chance = random.Random(3)
    trial, packets, ns, now = Trial(), 0, 0, 100.0
    trial.look(now, packets, ns)
    while trial.verdict is None and now < 100.0 + seconds:
        now += WINDOW_S / 4
        count = int(packets_a_second * WINDOW_S / 4)
        packets += count
        cost = (xdp_ns if trial.use_xdp else tc_ns) * (1 + drift * (now - 100.0)) * (1 + noise * chance.uniform(-1, 1))
        ns += int(count * cost)
        trial.look(now, packets, ns)
    return trial, now - 100.0


def test_what_is_plainly_cheaper_is_used():
    trial, took = tried(1_000, 1_500, noise=0.2)
    assert trial.use_xdp
    assert str(trial.verdict).startswith("native XDP is used: ")
    assert trial.verdict.xdp_us == pytest.approx(1.0, abs=0.1)
    assert trial.verdict.tc_us == pytest.approx(1.5, abs=0.1)
    assert took < 3 * LEAST * 4 * WINDOW_S


@pytest.mark.parametrize("xdp_ns", [1_600, 1_500, 1_470])
def test_what_is_dearer_or_hardly_cheaper_is_not(xdp_ns):
    trial, _ = tried(xdp_ns, 1_500, noise=0.1)
    assert trial.verdict is not None
    assert not trial.use_xdp


def test_a_load_that_grows_all_the_while_decides_nothing():
    trial, _ = tried(1_500, 1_500, drift=0.01)
    assert not trial.use_xdp


def test_noise_alone_is_no_gain():
    trial, _ = tried(1_500, 1_500, noise=0.9)
    assert not trial.use_xdp


def test_what_cannot_be_told_ends_with_tc():
    trial, _ = tried(1_380, 1_500, noise=5.0)
    assert not trial.use_xdp
    assert trial.verdict.comparisons <= MOST


def test_an_idle_relay_decides_nothing_and_tc_has_as_many_turns():
    trial, _ = tried(1_000, 2_000, packets_a_second=PACKETS // (2 * WINDOW_S) - 100, seconds=3_600)
    assert trial.verdict is None
    turns = []
    for second in range(int(8 * WINDOW_S)):
        trial.look(10_000.0 + second, 0, 0)
        turns.append(trial.use_xdp)
    assert turns.count(True) == turns.count(False)


def test_a_clock_that_does_not_move_is_no_comparison():
    trial, _ = tried(0, 0, seconds=600)
    assert trial.verdict is None

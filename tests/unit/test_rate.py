"""Growth of a counter over a window."""

from voicefleet_dataplane.core.transceiver.rate import Rate


def test_it_is_growth_over_the_window_and_forgets_what_is_older():
    rate = Rate(30.0)
    assert rate.note(100, 0.0) == 0.0
    assert rate.note(120, 10.0) == 2.0
    for at in range(12, 41, 2):
        last = rate.note(120, float(at))
    assert last == 0.0


def test_its_memory_is_bounded_by_the_window():
    rate = Rate(30.0)
    for at in range(10_000):
        rate.note(at, at * 2.0)
    assert len(rate._noted) <= 17
    assert rate.note(10_000, 20_000.0) == 0.5

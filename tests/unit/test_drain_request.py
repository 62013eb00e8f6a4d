"""The drain annotation: what people may write, and what they are told when they write something else."""

import pytest

from voicefleet_contract.drain import DrainRequest, DrainRequestError, parse_drain
from voicefleet_contract.resources import DrainPolicy


@pytest.mark.parametrize(
    ("value", "asked"),
    [
        ("", None),
        ("false", None),
        ("true", DrainRequest()),
        ("10m", DrainRequest(deadline_s=600)),
        ("HangUp", DrainRequest(DrainPolicy.HANG_UP)),
        ("Wait 1h30m", DrainRequest(DrainPolicy.WAIT, 5400)),
        ("30s HangUp", DrainRequest(DrainPolicy.HANG_UP, 30)),
    ],
)
def test_it_says_a_policy_a_deadline_both_or_neither(value, asked):
    assert parse_drain(value) == asked


@pytest.mark.parametrize(
    "value", ["yes", "10", "10 m", "Migrate", "Wait HangUp", "1m 2m", "25h", "true 10m", "x" * 9999]
)
def test_anything_else_is_refused_with_what_may_be_written(value):
    with pytest.raises(DrainRequestError, match="write true, Wait, HangUp, a duration up to 24h") as caught:
        parse_drain(value)
    assert len(str(caught.value)) < 200

"""A pool's load as an autoscaler reads it."""

import pytest

from voicefleet_operator.sessions_api.external_metrics import pool_loads, values
from voicefleet_operator.sessions_api.pages import SlotView
from voicefleet_operator.sessions_api.status import StatusError

SLOTS = [
    SlotView(0, 0, "agents", sessions=300, capacity=400, state="active", setups_per_s=1.5),
    SlotView(1, 0, "agents", sessions=100, capacity=400, state="active", setups_per_s=0.5),
    SlotView(2, 0, "agents", sessions=400, capacity=400, state="draining", setups_per_s=9.0),
    SlotView(3, 0, "others", sessions=0, capacity=10, state="active"),
    SlotView(4, 0, known=False),
]


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("voicefleet_pool_utilization", "500m"),
        ("voicefleet_pool_free_sessions", "400000m"),
        ("voicefleet_pool_sessions", "400000m"),
        ("voicefleet_pool_setups_per_second", "2000m"),
    ],
)
def test_only_members_that_take_calls_count(metric, value):
    [item] = values(pool_loads(SLOTS), metric, "pool=agents", 0.0)["items"]
    assert (item["value"], item["metricLabels"]) == (value, {"pool": "agents"})


def test_without_a_selector_every_pool_is_told():
    found = values(pool_loads(SLOTS), "voicefleet_pool_sessions", "", 0.0)["items"]
    assert [item["metricLabels"]["pool"] for item in found] == ["agents", "others"]


@pytest.mark.parametrize(
    ("metric", "selector", "code"),
    [
        ("voicefleet_nothing", "", 404),
        ("voicefleet_pool_sessions", "node=a", 400),
        ("voicefleet_pool_sessions", "pool=a,b=c", 400),
    ],
)
def test_what_there_is_not_is_refused_with_what_there_is(metric, selector, code):
    with pytest.raises(StatusError) as refused:
        values(pool_loads(SLOTS), metric, selector, 0.0)
    assert refused.value.code == code

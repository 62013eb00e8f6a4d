"""Each attack of `make attack`, in short: packets are counted, no time is."""

import pytest

from bench.attack.__main__ import QUICK_SECONDS, attack, describe
from bench.attack.attacks import ATTACKS

pytestmark = pytest.mark.interop


@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "nothing"])
async def test_an_attack_costs_the_call_beside_it_and_its_victim_nothing(fleet, name):
    (result,) = await attack(fleet, [name], QUICK_SECONDS)
    assert result.outcome.sent > 0
    assert result.is_harmless, describe(result)

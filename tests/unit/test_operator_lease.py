"""One leader, in virtual time: what an API server that stalls, fails or is away costs."""

import asyncio

import pytest

from tests.support.objects_api import Api
from tests.support.virtual_loop import virtually
from voicefleet_operator.cluster.api import KubeError
from voicefleet_operator.cluster.lease import LIFE_S, RENEW_S, RETRY_S, STOP_BEFORE_S, Lease


class Weather(Api):
    """An API server that is ``bad`` between two times: it fails (500) or stalls."""

    def __init__(self, *bad: tuple[float, float], stalls: bool = False):
        super().__init__()
        self.bad, self.stalls = bad, stalls

    async def get(self, kind, name):
        now = asyncio.get_running_loop().time() - 1_000.0
        if any(start <= now < end for start, end in self.bad):
            if self.stalls:
                await asyncio.sleep(30)
            raise KubeError(500, "GET lease", "injected")
        return await super().get(kind, name)


def held_until(api: Weather, at_most: float) -> float | None:
    """When `hold` gave up, in seconds after the Lease was had; None: it still held it."""

    async def story():
        lease = Lease(api, "l", "a")
        await lease.acquire()
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(at_most):
                await lease.hold()
        except TimeoutError:
            assert lease.held()
            return None
        assert lease.held(), "it writes until it ends, and others must wait until then"
        return asyncio.get_running_loop().time() - began

    return virtually(story())


@pytest.mark.parametrize("stalls", [False, True])
def test_a_leader_outlives_an_api_server_that_is_bad_for_less_than_the_leases_life(stalls):
    assert held_until(Weather((4.0, 10.0), (40.0, 46.0), stalls=stalls), 120) is None


@pytest.mark.parametrize("stalls", [False, True])
def test_a_leader_that_cannot_renew_ends_before_another_one_can_lead(stalls):
    ended = held_until(Weather((4.0, 1e9), stalls=stalls), 120)
    assert ended is not None
    assert LIFE_S - STOP_BEFORE_S - 1 <= ended < LIFE_S - 1


def test_a_standby_waits_for_an_api_server_that_is_away_and_leads_soon_after(caplog):
    async def story():
        api = Weather((0.0, 1_200.0))
        lease = Lease(api, "l", "a")
        await lease.acquire()
        return asyncio.get_running_loop().time() - 1_000.0

    with caplog.at_level("INFO"):
        assert 1_200 <= virtually(story()) <= 1_200 + RETRY_S + RENEW_S
    assert len(caplog.records) == 2, "said once, not every three seconds"


def test_a_standby_takes_over_within_the_leases_life_of_a_leader_that_died():
    async def story():
        api = Api()
        dead, other = Lease(api, "l", "dead"), Lease(api, "l", "other")
        await dead.acquire()
        await other.acquire()
        return asyncio.get_running_loop().time() - 1_000.0

    assert virtually(story()) <= LIFE_S + RETRY_S + 1e-6

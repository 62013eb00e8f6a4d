"""Which ingress a call gets."""

from collections import Counter

import pytest

from voicefleet_contract.topology import Relay
from voicefleet_dataplane.core.gateway.geo import Place
from voicefleet_dataplane.core.gateway.placement import UnknownRegionError, rank_ingresses, ready_relays, region_place

BERLIN, TOKYO = Place(52.5, 13.4), Place(35.7, 139.7)


def relay(name: str, region: str = "eu", at: tuple[float, float] = (50.11, 8.68), **fields) -> Relay:
    known = {
        "advertise": [{"address": "203.0.113.1", "port": 3478}],
        "inner": [{"address": "10.0.0.1", "port": 3479}],
    }
    return Relay(name=name, region=region, latitude=at[0], longitude=at[1], **(known | fields))


FRA, IAD, NRT = relay("fra"), relay("iad", "us", (38.9, -77.5)), relay("nrt", "asia", (35.8, 140.4))
WORLD = [FRA, IAD, NRT]


def test_the_nearest_relay_comes_first() -> None:
    assert [r.name for r in rank_ingresses(WORLD, BERLIN, b"key")] == ["fra", "iad", "nrt"]
    assert [r.name for r in rank_ingresses(WORLD, TOKYO, b"key")] == ["nrt", "fra", "iad"]


def test_a_named_region_comes_before_a_nearer_one() -> None:
    assert rank_ingresses(WORLD, BERLIN, b"key", region="us")[0] is IAD


def test_a_region_whose_relays_are_away_falls_back_to_the_nearest() -> None:
    away = [FRA, IAD.model_copy(update={"state": "draining"}), NRT]
    assert rank_ingresses(away, region_place(away, "us"), b"key", region="us")[0] is FRA


@pytest.mark.parametrize(
    "fields", [{"state": "draining"}, {"state": "gone"}, {"weight": 0}, {"advertise": []}, {"inner": []}]
)
def test_a_relay_that_is_not_ready_is_given_to_nobody(fields: dict) -> None:
    assert ready_relays([relay("fra", **fields)]) == []
    assert rank_ingresses([relay("fra", **fields)], BERLIN, b"key") == []


def test_an_unknown_region_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(UnknownRegionError, match="asia, eu, us"):
        region_place(WORLD, "mars")


def test_relays_at_one_place_share_calls_by_weight() -> None:
    pair = [relay("fra-a", weight=100), relay("fra-b", weight=300)]
    drawn = Counter(rank_ingresses(pair, BERLIN, str(i).encode())[0].name for i in range(4000))
    assert 0.70 < drawn["fra-b"] / 4000 < 0.80  # expected 0.75; six standard deviations are 0.04


def test_one_key_always_draws_the_same_relay() -> None:
    pair = [relay("fra-a"), relay("fra-b")]
    assert rank_ingresses(pair, BERLIN, b"key")[0].name == rank_ingresses(pair[::-1], BERLIN, b"key")[0].name

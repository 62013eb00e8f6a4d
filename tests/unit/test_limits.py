"""Limits, keys and addresses of callers, in simulated time."""

import pytest

from voicefleet_contract.networks import limit_key, parse_networks
from voicefleet_dataplane.core.gateway.api_keys import ApiKeyError, ApiKeys
from voicefleet_dataplane.core.gateway.client_address import client_address
from voicefleet_dataplane.core.limits import ConcurrencyLimit, RateLimit

KEY_A, KEY_B = "sk-aaaaaaaaaaaaaaaa", "sk-bbbbbbbbbbbbbbbb"


def test_a_burst_passes_and_the_next_request_waits_one_interval() -> None:
    limit = RateLimit(per_second=10, burst=3)
    assert [limit.take("a", 100.0) for _ in range(3)] == [0, 0, 0]
    assert limit.take("a", 100.0) == pytest.approx(0.1)
    assert limit.take("a", 100.1) == 0


def test_waiting_as_told_is_always_enough() -> None:
    limit, now = RateLimit(per_second=7, burst=2), 5.0
    for _ in range(50):
        wait_s = limit.take("a", now)
        if wait_s:
            now += wait_s
            assert limit.take("a", now) == 0


def test_a_refused_request_costs_the_key_nothing() -> None:
    limit = RateLimit(per_second=1, burst=1)
    limit.take("a", 0.0)
    for _ in range(100):
        assert limit.take("a", 0.5) > 0
    assert limit.take("a", 1.0) == 0


def test_keys_do_not_share_a_rate() -> None:
    limit = RateLimit(per_second=1, burst=1)
    assert limit.take("a", 0.0) == limit.take("b", 0.0) == 0


def test_the_long_run_average_is_the_rate() -> None:
    limit = RateLimit(per_second=5, burst=10)
    passed = sum(limit.take("a", step / 100) == 0 for step in range(10_000))  # 100 s, asked 100 times a second
    assert passed == pytest.approx(5 * 100 + 10, abs=2)


def test_memory_is_bounded() -> None:
    limit = RateLimit(per_second=1, burst=1, max_keys=10)
    for number in range(1000):
        limit.take(str(number), 0.0)
    assert len(limit) == 10


def test_concurrency_is_counted_by_key_and_given_back() -> None:
    limit = ConcurrencyLimit(2)
    assert limit.enter("a") and limit.enter("a") and not limit.enter("a")
    assert limit.enter("b")
    limit.leave("a")
    assert limit.enter("a")
    for key in "aab":
        limit.leave(key)
    assert len(limit) == 0


def test_a_bearer_key_names_its_tenant() -> None:
    keys = ApiKeys({"acme": KEY_A + "\n", "beta": KEY_B})
    assert keys.tenant(f"Bearer {KEY_A}") == "acme"
    assert keys.tenant(f"bearer {KEY_B}") == "beta"


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", f"Basic {KEY_A}", KEY_A, f"Bearer {KEY_A}x", "Bearer \udcff"]
)
def test_anything_else_names_nobody(header: str | None) -> None:
    assert ApiKeys({"acme": KEY_A}).tenant(header) is None


def test_a_short_key_is_refused_without_being_printed() -> None:
    with pytest.raises(ApiKeyError) as error:
        ApiKeys({"acme": "hunter2"})
    assert "acme" in str(error.value)
    assert "hunter2" not in str(error.value)


TRUSTED = parse_networks("10.0.0.0/8, 2001:db8::/32")


@pytest.mark.parametrize(
    "peer, header, client",
    [
        ("192.0.2.1", "", "192.0.2.1"),
        ("192.0.2.1", "198.51.100.9", "192.0.2.1"),  # nobody we trust says so
        ("10.1.1.1", "198.51.100.9", "198.51.100.9"),
        ("10.1.1.1", "6.6.6.6, 198.51.100.9", "198.51.100.9"),  # the client wrote 6.6.6.6 itself
        ("10.1.1.1", "198.51.100.9, 10.2.2.2", "198.51.100.9"),  # two forwarders
        ("::ffff:10.1.1.1", "198.51.100.9", "198.51.100.9"),
        ("10.1.1.1", "unknown", "10.1.1.1"),
        ("10.1.1.1", "", "10.1.1.1"),
    ],
)
def test_the_client_is_the_rightmost_address_that_no_trusted_forwarder_owns(
    peer: str, header: str, client: str
) -> None:
    assert client_address(peer, header, TRUSTED) == client


def test_limits_count_a_v6_subscriber_by_its_64() -> None:
    assert limit_key("2001:db8:1:2:3::4") == limit_key("2001:db8:1:2:ffff::1") != limit_key("2001:db8:1:3::1")
    assert limit_key("192.0.2.1") == "192.0.2.1"

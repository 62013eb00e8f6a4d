"""Where the registry is, in one URL."""

import pytest

from voicefleet_contract.registry_url import RegistryUrl


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://redis:6379/0", RegistryUrl("single")),
        ("rediss://redis/0", RegistryUrl("single")),
        (
            "redis+cluster://a:1,b,[::1]:7,[::2]",
            RegistryUrl("cluster", (("a", 1), ("b", 6379), ("::1", 7), ("::2", 6379))),
        ),
        ("redis+sentinel://s1:2,s2/fleet", RegistryUrl("sentinel", (("s1", 2), ("s2", 26379)), "fleet")),
    ],
)
def test_each_form_is_read(url, expected):
    assert RegistryUrl.parse(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "redis",
        "http://x",
        "redis+sentinel://s1",
        "redis+cluster://",
        "redis+cluster://a:b:c",
        "redis+cluster://a:99999",
    ],
)
def test_what_is_no_registry_is_told_what_would_be_one(url):
    with pytest.raises(ValueError, match="HOST"):
        RegistryUrl.parse(url)

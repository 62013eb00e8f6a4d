"""Where an agent's URL may lead."""

import pytest

from voicefleet_dataplane.media.agent_address import Network, refusal_of_address, refusal_of_url

PRIVATE = [
    "10.0.0.1",
    "172.16.5.5",
    "192.168.1.1",
    "100.64.0.1",
    "fd00::1",
    "198.18.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::a00:1",
]
NOBODYS = [
    "0.0.0.0",
    "::",
    "224.0.0.1",
    "ff02::1",
    "169.254.169.254",
    "fe80::1",
    "fe80::1%eth0",
    "::ffff:169.254.169.254",
]
OURS = ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "2002:7f00:1::"]
PUBLIC = ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"]


@pytest.mark.parametrize("host", PUBLIC)
@pytest.mark.parametrize("network", Network)
def test_public_addresses_are_dialled(host, network):
    assert refusal_of_address(host, network) is None


@pytest.mark.parametrize("host", PRIVATE)
def test_private_addresses_want_a_word_of_the_resource(host):
    assert "spec.backend.network" in refusal_of_address(host, Network.PUBLIC)
    assert refusal_of_address(host, Network.PRIVATE) is None


@pytest.mark.parametrize("host", [*NOBODYS, *OURS])
@pytest.mark.parametrize("network", [Network.PUBLIC, Network.PRIVATE])
def test_the_machine_itself_its_link_and_the_metadata_service_are_never_dialled(host, network):
    assert refusal_of_address(host, network) is not None


@pytest.mark.parametrize("host", OURS)
def test_the_machine_itself_is_for_developers(host):
    assert refusal_of_address(host, Network.LOOPBACK) is None


@pytest.mark.parametrize("host", NOBODYS)
def test_not_even_developers_dial_what_is_no_machine(host):
    assert refusal_of_address(host, Network.LOOPBACK) is not None


@pytest.mark.parametrize(
    "url", ["ws://agent.voice.svc:8080/x", "wss://api.example.com/v1/realtime?model=m", "wss://[2001:db8::1]:1/"]
)
def test_websocket_urls_are_taken(url):
    assert refusal_of_url(url) is None


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://api.example.com/", "ws:// or wss://"),
        ("", "ws:// or wss://"),
        ("wss:///path", "no host"),
        ("wss://host:0/", "no host"),
        ("wss://host:99999/", "not a URL"),
        ("wss://[::1/", "not a URL"),
        ("wss://user:pass@host/", "secretRef"),
        ("wss://host/#x", "fragment"),
    ],
)
def test_other_urls_are_refused_with_the_fix(url, why):
    assert why in refusal_of_url(url)

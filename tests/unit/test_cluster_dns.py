"""CoreDNS's manifests and the one query that the start asks."""

import json

import pytest

from e2e.cluster import dns
from e2e.cluster.nodes import DNS_ADDRESS

QUERY = dns.build_query("kubernetes.default.svc.cluster.local", 0x1234)


def answer(flags: int = 0x8580, answers: int = 1, owner: bytes = b"\xc0\x0c", kind: int = 1) -> bytes:
    record = owner + kind.to_bytes(2) + b"\0\1" + b"\0\0\0\5" + b"\0\4" + bytes([10, 96, 0, 1])
    return QUERY[:2] + flags.to_bytes(2) + b"\0\1" + answers.to_bytes(2) + QUERY[8:] + record


@pytest.mark.parametrize("owner", [b"\xc0\x0c", b"\1a\0", b"\0", b"\1a\xc0\x0c"])
def test_the_address_is_read_whatever_form_its_owner_name_has(owner: bytes):
    assert dns.parse_address(answer(owner=owner), QUERY) == "10.96.0.1"


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        QUERY,
        answer(flags=0x8583),
        answer(answers=0),
        answer(kind=28),
        b"\0\0" + answer()[2:],
        *(answer()[:n] for n in range(len(answer()))),
    ],
)
def test_anything_but_an_address_is_none(bad: bytes):
    assert dns.parse_address(bad, QUERY) is None


def test_the_service_has_the_address_that_kubelets_hand_to_pods():
    items = {item["kind"]: item for item in json.loads(dns.manifests())["items"]}
    assert items["Service"]["spec"]["clusterIP"] == DNS_ADDRESS
    assert items["Service"]["spec"]["selector"] == items["Deployment"]["spec"]["template"]["metadata"]["labels"]


def test_the_corefile_names_no_plugin_that_is_not_built_in():
    from e2e.cluster.places import GOMOD

    main = (GOMOD / "kubernetes" / "coredns" / "main.go").read_text()
    for plugin in ("errors", "health", "ready", "kubernetes", "template"):
        assert f"    {plugin}" in dns.COREFILE and f"plugin/{plugin}" in main
    assert "forward" not in dns.COREFILE

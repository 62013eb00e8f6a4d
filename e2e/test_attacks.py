"""The attack table on the cluster: no byte comes back, exactly its own counter moves, and the valid twin passes."""

import asyncio
import secrets
import socket
from typing import Any

import httpx
import pytest

from e2e.cluster.nodes import HOST_ADDRESS
from e2e.fleet import Fleet
from e2e.spoof import send_spoofed
from e2e.talk import calling, control, relay_drops
from voicefleet_contract.addresses import Address
from voicefleet_contract.hint import ice_pwd, peek_hint
from voicefleet_contract.keys import KeyRing
from voicefleet_contract.spp import encode_spp
from voicefleet_dataplane.wire.stun import build_binding_request

RTP = b"\x80\x6f" + bytes(60)


def send_and_listen(packet: bytes, host: str, port: int) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.settimeout(0.5)
        one.sendto(packet, (host, port))
        try:
            return one.recv(2048)
        except TimeoutError:
            return b""


def moved(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {reason: count - before.get(reason, 0) for reason, count in after.items() if count != before.get(reason, 0)}


def check(ufrag: str, password: str) -> bytes:
    return build_binding_request(secrets.token_bytes(12), f"{ufrag}:abcd", password.encode())


async def test_strangers_get_no_byte_from_a_relay_and_each_moves_its_own_counter(fleet: Fleet) -> None:
    keys = KeyRing.parse(fleet.kube.secret("voicefleet-hint-keys")["keys.json"])
    async with calling(fleet, seconds=15) as caller:
        ufrag, ingress = caller.result.ufrag, caller.result.ingress
        host = ingress.rsplit(":", 1)[0]
        [relay] = [pod for pod in fleet.relays() if pod["status"]["hostIP"] == host]
        password = ice_pwd(ufrag, peek_hint(ufrag).key_epoch, keys)
        forged = ufrag[:-1] + ("A" if ufrag[-1] != "A" else "B")
        victim = Address("198.51.100.9", 4000)
        table = [
            ("hint_tag", check(forged, password), 3478),
            ("stun_bad_integrity", check(ufrag, "wrong"), 3478),
            ("flow_unknown", RTP, 3478),
            ("unknown_kind", b"\xff" * 30, 3478),
            ("spp_from_stranger", encode_spp(victim, Address(host, 3479)) + RTP, 3479),
        ]
        for reason, packet, port in table:
            before = await asyncio.to_thread(relay_drops, relay)
            assert await asyncio.to_thread(send_and_listen, packet, host, port) == b"", reason
            after = await asyncio.to_thread(relay_drops, relay)
            assert moved(before, after) == {reason: 1}
    assert not caller.result.error
    assert caller.result.loss == 0  # the valid twin, all the while


async def test_a_replayed_check_from_another_address_gets_no_answer_and_moves_nothing(fleet: Fleet) -> None:
    async with calling(fleet, seconds=8) as caller:
        host = caller.result.ingress.rsplit(":", 1)[0]
        [owner] = [pod for pod in fleet.transceivers() if slot_of(pod) == peek_hint(caller.result.ufrag).slot]
        before = control(fleet, owner, "/v1/status")["drops"]
        assert await asyncio.to_thread(send_and_listen, caller.last_check, host, 3478) == b""
        assert moved(before, control(fleet, owner, "/v1/status")["drops"]) == {"ice_replay": 1}
    assert not caller.result.error
    assert caller.result.loss == 0


async def test_a_valid_check_of_another_call_from_a_live_victims_tuple_takes_nothing_over(fleet: Fleet) -> None:
    keys = KeyRing.parse(fleet.kube.secret("voicefleet-hint-keys")["keys.json"])
    async with calling(fleet, seconds=12) as victim:
        mine = victim.result.ingress.rsplit(":", 1)[0]
        async with calling(fleet, seconds=3) as attacker:
            ufrag = attacker.result.ufrag
            packet = check(ufrag, ice_pwd(ufrag, peek_hint(ufrag).key_epoch, keys))
            for _ in range(10):
                send_spoofed(packet, victim.address, Address(mine, 3478))
    assert not victim.result.error
    assert victim.result.loss == 0


async def test_who_spoofs_a_member_reaches_no_stranger(fleet: Fleet) -> None:
    """Return traffic with a member's source address, for a client that has no flow."""
    relay = fleet.relays()[0]
    host = relay["status"]["hostIP"]
    member = next(pod for pod in fleet.transceivers() if pod["status"]["hostIP"] != host)
    source = Address(member["status"]["hostIP"], int(member["metadata"]["labels"]["voicefleet.dev/port"]))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.settimeout(0.5)
        stranger.bind((HOST_ADDRESS, 0))
        client = Address(HOST_ADDRESS, stranger.getsockname()[1])
        before = relay_drops(relay)
        send_spoofed(encode_spp(client, Address(host, 3479)) + RTP, source, Address(host, 3479))
        with pytest.raises(TimeoutError):
            stranger.recv(2048)
    assert moved(before, relay_drops(relay)) == {"flow_unknown": 1}


def slot_of(pod: Any) -> int:
    return int(pod["metadata"]["labels"]["voicefleet.dev/slot"])


async def test_a_transceiver_takes_nothing_from_a_stranger(fleet: Fleet) -> None:
    pod = fleet.transceivers()[0]
    host, port = pod["status"]["hostIP"], int(pod["metadata"]["labels"]["voicefleet.dev/port"])
    for reason, packet in (
        ("spp_from_stranger", encode_spp(Address("198.51.100.9", 4000), Address(host, 3479)) + RTP),
        ("direct_not_accepted", RTP),
    ):
        before = control(fleet, pod, "/v1/status")["drops"]
        assert await asyncio.to_thread(send_and_listen, packet, host, port) == b""
        assert moved(before, control(fleet, pod, "/v1/status")["drops"]) == {reason: 1}


@pytest.mark.parametrize("certificate", [None, "relay"])
def test_the_control_api_answers_only_gateway_and_operator_certificates(fleet: Fleet, certificate: str | None) -> None:
    pod = fleet.transceivers()[0]
    with pytest.raises(httpx.HTTPError):
        control(fleet, pod, "/v1/status", certificate=certificate)
    assert control(fleet, pod, "/v1/status", certificate="operator")["slot"] >= 0


def test_a_wrong_manifest_is_refused_with_the_field_and_the_fix(fleet: Fleet) -> None:
    manifest = (
        "apiVersion: voicefleet.dev/v1alpha1\nkind: Transceiver\nmetadata: {name: bad}\n"
        "spec: {ports: {min: 20000, max: 19000}}\n"
    )
    assert "spec.ports" in fleet.kube.refused(manifest)


@pytest.mark.parametrize(
    ("key", "body", "status"), [("sk-wrong", "v=0", 401), (None, "garbage", 400), (None, "x" * 1_000_000, 413)]
)
def test_bad_offers_get_an_openai_shaped_error(fleet: Fleet, key: str | None, body: str, status: int) -> None:
    headers = {"Authorization": f"Bearer {key or fleet.api_key}", "Content-Type": "application/sdp"}
    answer = httpx.post(
        fleet.url + "/v1/realtime/calls", content=body, headers=headers, verify=False, trust_env=False, timeout=10
    )
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"code", "message", "param", "type"}

"""The attack table on the cluster: no byte comes back, exactly its own counter moves, and the valid twin passes.

Counters are read from every relay and every transceiver, so that "exactly its own" is said of the whole fleet. The twin of most
attacks is a call that goes on meanwhile; of the others it stands at the end of the story.
"""

import asyncio
import secrets
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from e2e.cluster.nodes import HOST_ADDRESS
from e2e.fleet import Fleet
from e2e.spoof import send_spoofed
from e2e.talk import calling, control, hang_up, moved, refusals, talking
from voicefleet_contract import names
from voicefleet_contract.addresses import Address
from voicefleet_contract.hint import ice_pwd, peek_hint
from voicefleet_contract.keys import KeyRing
from voicefleet_contract.spp import encode_spp
from voicefleet_dataplane.shell.client.packet_caller import make_identity
from voicefleet_dataplane.wire.sdp.client import ClientAnswer, build_offer, parse_answer_untrusted
from voicefleet_dataplane.wire.stun import build_binding_request

RTP = b"\x80\x6f" + bytes(60)
INNER_PORT = 3479
CLIENT_UFRAG = "abcd"  # of the attackers' own calls


def send_and_listen(packet: bytes, to: Address) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.settimeout(0.5)
        one.sendto(packet, to)
        try:
            return one.recv(2048)
        except TimeoutError:
            return b""


async def fleet_counts(fleet: Fleet) -> dict[tuple[str, str], int]:
    return await asyncio.to_thread(refusals, fleet)


async def moves_only(fleet: Fleet, attack: Callable[[], Awaitable[object]]) -> dict[tuple[str, str], int]:
    """What an attack moved, in the whole fleet."""
    before = await fleet_counts(fleet)
    await attack()
    return moved(before, await fleet_counts(fleet))


async def gets_nothing(packet: bytes, to: Address) -> None:
    assert await asyncio.to_thread(send_and_listen, packet, to) == b""


def check(ufrag: str, password: str, client_ufrag: str = CLIENT_UFRAG) -> bytes:
    return build_binding_request(
        secrets.token_bytes(12), f"{ufrag}:{client_ufrag}", password.encode(), use_candidate=True
    )


def name(pod: Any) -> str:
    return str(pod["metadata"]["name"])


def address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    return Address(host, int(port))


async def answered_offer(fleet: Fleet, *, by: Callable[[int], bool]) -> tuple[str, ClientAnswer]:
    """A call of our own that an owner of the wanted kind has answered; those that others answered are hung up again."""
    headers = {"Authorization": f"Bearer {fleet.api_key}", "Content-Type": "application/sdp"}
    offer = build_offer(secrets.randbits(62), CLIENT_UFRAG, secrets.token_hex(16), make_identity().fingerprint, 77)
    url = fleet.url + "/v1/realtime/calls"
    async with httpx.AsyncClient(verify=False, timeout=15, trust_env=False) as http:
        for _ in range(40):  # a third and more of them are of the wanted kind
            response = await http.post(url, content=offer, headers=headers)
            assert response.status_code == 201, response.text
            call_id = response.headers["Location"].rsplit("/", 1)[-1]
            answer = parse_answer_untrusted(response.text)
            if by(peek_hint(answer.ufrag).slot):
                return call_id, answer
            await http.post(f"{url}/{call_id}/hangup", headers=headers)
    raise AssertionError("forty calls, and no owner of the wanted kind")


async def test_strangers_get_no_byte_from_a_relay_and_each_moves_its_own_counter(fleet: Fleet) -> None:
    keys = KeyRing.parse(fleet.kube.secret(names.SECRET_HINT_KEYS)[names.KEYS_FILE])
    async with talking(fleet, 1) as [caller]:
        ufrag, public = caller.result.ufrag, address(caller.result.ingress)
        relay = await asyncio.to_thread(fleet.relay_of, caller.result.ingress)
        inner = Address(relay["status"]["hostIP"], INNER_PORT)
        password = ice_pwd(ufrag, peek_hint(ufrag).key_epoch, keys)
        forged = ufrag[:-1] + ("A" if ufrag[-1] != "A" else "B")
        for reason, packet, to in (
            ("hint_tag", check(forged, password), public),
            ("stun_bad_integrity", check(ufrag, "wrong"), public),
            ("flow_unknown", RTP, public),
            ("unknown_kind", b"\xff" * 30, public),
            ("spp_from_stranger", encode_spp(Address("198.51.100.9", 4000), inner) + RTP, inner),
        ):
            found = await moves_only(fleet, lambda p=packet, t=to: gets_nothing(p, t))
            assert found == {(name(relay), reason): 1}, reason
    assert not caller.result.error
    assert caller.result.loss == 0


async def test_a_replayed_check_from_another_address_gets_no_answer_and_moves_nothing(fleet: Fleet) -> None:
    async with talking(fleet, 1) as [caller]:
        owner = await asyncio.to_thread(fleet.owner_of, peek_hint(caller.result.ufrag).slot)
        found = await moves_only(fleet, lambda: gets_nothing(caller.last_check, address(caller.result.ingress)))
        assert found == {(name(owner), "ice_replay"): 1}
    assert not caller.result.error
    assert caller.result.loss == 0


async def test_a_valid_check_from_a_live_victims_tuple_is_refused_by_an_owner_that_holds_the_tuple(
    fleet: Fleet,
) -> None:
    """The attacker's call is the victim's owner's too: it knows whose tuple that is."""
    fleet.site.only_local("this attack forges source addresses")
    async with talking(fleet, 1) as [victim]:
        held_by, public = peek_hint(victim.result.ufrag).slot, address(victim.result.ingress)
        owner = await asyncio.to_thread(fleet.owner_of, held_by)
        call_id, answer = await answered_offer(fleet, by=lambda slot: slot == held_by)
        tuple_of_victim = victim.address
        assert tuple_of_victim is not None

        async def attack() -> None:
            for _ in range(10):
                send_spoofed(check(answer.ufrag, answer.password), tuple_of_victim, public)
            await asyncio.sleep(0.5)

        assert await moves_only(fleet, attack) == {(name(owner), "ice_tuple_taken"): 10}
        # The twin: the same check from the attacker's own address.
        assert await asyncio.to_thread(send_and_listen, check(answer.ufrag, answer.password), public)
        await asyncio.to_thread(hang_up, fleet, call_id)
    assert not victim.result.error
    assert victim.result.loss == 0


async def test_a_valid_check_from_a_live_victims_tuple_brings_it_nothing_of_another_owner(fleet: Fleet) -> None:
    """Its check is its owner's business, who believes it and sends the attacker's media there: the relay drops all of it."""
    fleet.site.only_local("this attack forges source addresses")
    async with talking(fleet, 1) as [victim]:
        held_by, public = peek_hint(victim.result.ufrag).slot, address(victim.result.ingress)
        relay = await asyncio.to_thread(fleet.relay_of, victim.result.ingress)
        tuple_of_victim = victim.address
        assert tuple_of_victim is not None
        for _ in range(8):  # two of three are of another owner
            async with calling(fleet, seconds=6) as attacker:
                if peek_hint(attacker.result.ufrag).slot == held_by:
                    attacker.give_up()
                    continue
                answer = attacker.answer

                async def attack(answer: ClientAnswer = answer, client_ufrag: str = attacker.client_ufrag) -> None:
                    send_spoofed(check(answer.ufrag, answer.password, client_ufrag), tuple_of_victim, public)
                    await asyncio.sleep(0.5)

                found = await moves_only(fleet, attack)
                assert found.keys() == {(name(relay), "flow_of_another_owner")}, found
            break
        else:
            raise AssertionError("eight calls, and none of another owner")
        # The twin: the attacker's own checks name its path again, and its own media comes back.
        assert not attacker.result.error
        assert max(attacker.result.heard) >= attacker.result.sent - 2
    assert not victim.result.error
    assert victim.result.loss == 0


async def test_who_spoofs_a_member_reaches_neither_a_stranger_nor_another_members_client(fleet: Fleet) -> None:
    """Return traffic with a member's source address: for a client that has no flow, and for one of another owner."""
    fleet.site.only_local("this attack forges source addresses")
    async with talking(fleet, 1) as [victim]:
        relay = await asyncio.to_thread(fleet.relay_of, victim.result.ingress)
        inner = Address(relay["status"]["hostIP"], INNER_PORT)
        held_by, client = peek_hint(victim.result.ufrag).slot, victim.address
        assert client is not None
        # Not a member of the relay's own node: a node takes no packet from outside that names its own address.
        other = next(
            pod
            for pod in await asyncio.to_thread(fleet.transceivers)
            if pod["metadata"]["labels"][names.LABEL_SLOT] != str(held_by) and pod["status"]["hostIP"] != inner.host
        )
        member = Address(other["status"]["hostIP"], int(other["metadata"]["labels"][names.LABEL_PORT]))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.bind((HOST_ADDRESS, 0))
            stranger.setblocking(False)
            for reason, towards in (
                ("flow_unknown", Address(HOST_ADDRESS, stranger.getsockname()[1])),
                ("flow_of_another_owner", client),
            ):

                async def attack(to: Address = towards) -> None:
                    send_spoofed(encode_spp(to, inner) + RTP, member, inner)
                    await asyncio.sleep(0.3)

                assert await moves_only(fleet, attack) == {(name(relay), reason): 1}
            with pytest.raises(BlockingIOError):
                stranger.recv(2048)
    assert not victim.result.error
    assert victim.result.loss == 0


async def test_a_transceiver_takes_nothing_from_a_stranger(fleet: Fleet) -> None:
    async with talking(fleet, 1) as [caller]:
        pod = await asyncio.to_thread(fleet.owner_of, peek_hint(caller.result.ufrag).slot)
        to = Address(pod["status"]["hostIP"], int(pod["metadata"]["labels"][names.LABEL_PORT]))
        for reason, packet in (
            ("spp_from_stranger", encode_spp(Address("198.51.100.9", 4000), Address(to.host, INNER_PORT)) + RTP),
            ("direct_not_accepted", RTP),
        ):
            found = await moves_only(fleet, lambda p=packet: gets_nothing(p, to))
            assert found == {(name(pod), reason): 1}
    assert not caller.result.error
    assert caller.result.loss == 0


@pytest.mark.parametrize(("certificate", "reason"), [(None, "no_certificate"), ("relay", "wrong_role")])
async def test_the_control_api_answers_only_gateway_and_operator_certificates(
    fleet: Fleet, certificate: str | None, reason: str
) -> None:
    pod = fleet.transceivers()[0]

    async def attack() -> None:
        with pytest.raises(httpx.HTTPError):
            await asyncio.to_thread(control, fleet, pod, "/v1/status", certificate=certificate)

    assert await moves_only(fleet, attack) == {(name(pod), f"control:{reason}"): 1}
    assert control(fleet, pod, "/v1/status", certificate="operator")["slot"] >= 0


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

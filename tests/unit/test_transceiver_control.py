"""The control API of a transceiver over real mutual TLS: who may ask, and what is answered."""

import asyncio
import re
import socket
import ssl
import time
from pathlib import Path

import httpx
import pytest

from tests.support.offers import CHROMIUM, without
from tests.support.transceiver_process import HOST, RunningTransceiver, make_settings, running_transceiver
from voicefleet_contract.http_api import MAX_OFFER_BYTES, DrainOrder, Refusal, RefusalReason, SessionCreated
from voicefleet_contract.topology import Member, MemberState, Pool, Topology, TopologyIndex
from voicefleet_dataplane.commands.dev_secrets import InnerAuthority, write_dev_secrets
from voicefleet_dataplane.media.backend import Backend, CallConfig, Ending
from voicefleet_dataplane.shell.gateway.control_client import client_context
from voicefleet_dataplane.shell.transceiver.control_api import MAX_BODY_BYTES
from voicefleet_dataplane.shell.transceiver.process import TransceiverProcess
from voicefleet_dataplane.wire.stun import FORBIDDEN, build_binding_request, parse_binding_response

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def secrets_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("secrets")
    write_dev_secrets(directory, "sk-test-0123456789abcdef")
    InnerAuthority("another authority").issue(directory / "stranger", "gateway.voicefleet.internal")
    return directory


def refusal_of(response: httpx.Response) -> Refusal:
    return Refusal.model_validate_json(response.content)


# ---- who may ask


async def test_a_gateway_and_the_operator_are_served(secrets_dir):
    for role in ("gateway", "operator"):
        async with running_transceiver(secrets_dir, role=role) as transceiver:
            assert (await transceiver.status()).state == "active"


async def test_a_relays_certificate_opens_nothing(secrets_dir):
    async with running_transceiver(secrets_dir, role="relay") as transceiver:
        for method, path in (("GET", "/v1/status"), ("POST", "/v1/drain"), ("GET", "/metrics"), ("GET", "/nothing")):
            assert (await transceiver.request(method, path)).status_code == 403
        assert transceiver.process.core.calls.state == "active"
        assert transceiver.process.status().control_refused == {"wrong_role": 4}


async def test_no_certificate_or_one_of_another_authority_fails_the_handshake(secrets_dir):
    async with running_transceiver(secrets_dir) as transceiver:
        anonymous = ssl.create_default_context(cafile=str(secrets_dir / "gateway" / "ca.crt"))
        stranger = ssl.create_default_context(cafile=str(secrets_dir / "gateway" / "ca.crt"))
        stranger.load_cert_chain(secrets_dir / "stranger" / "tls.crt", secrets_dir / "stranger" / "tls.key")
        for context in (anonymous, stranger):
            async with httpx.AsyncClient(verify=context, trust_env=False) as http:
                with pytest.raises((httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError)):
                    await http.get(
                        transceiver.url + "/v1/status", extensions={"sni_hostname": "transceiver.voicefleet.internal"}
                    )
        assert (await transceiver.status()).control_refused == {"no_certificate": 1, "other_authority": 1}


async def test_plain_http_gets_no_answer(secrets_dir):
    async with running_transceiver(secrets_dir) as transceiver, httpx.AsyncClient(trust_env=False) as http:
        with pytest.raises(httpx.HTTPError):
            await http.get(f"http://{HOST}:{transceiver.process.port}/v1/status")
        assert (await transceiver.status()).control_refused == {"handshake": 1}


async def test_a_renewed_certificate_is_used_by_the_next_connection(tmp_path):
    write_dev_secrets(tmp_path, "sk-test-0123456789abcdef")
    process = TransceiverProcess(make_settings(tmp_path), lambda: None)
    await process.start()
    try:
        write_dev_secrets(tmp_path, "sk-test-0123456789abcdef")  # another CA, too
        assert process._tls.check()
        async with httpx.AsyncClient(verify=client_context(tmp_path / "gateway"), trust_env=False) as http:
            transceiver = RunningTransceiver(process, http)
            assert (await transceiver.status()).slot == 5
    finally:
        await process.stop()


# ---- offers


async def test_an_offer_is_answered_with_the_candidates_given(secrets_dir):
    async with running_transceiver(secrets_dir) as transceiver:
        created = await transceiver.create(CHROMIUM, [{"address": "192.0.2.9", "port": 3478}])
        assert (created.slot, created.generation) == (5, 2)
        assert "192.0.2.9 3478 typ host" in created.answer
        assert created.call_id in await transceiver.sessions()


async def test_a_repeated_request_is_the_same_call(secrets_dir):
    async with running_transceiver(secrets_dir) as transceiver:
        answers = [await transceiver.offer(CHROMIUM, request_id="same-request") for _ in range(2)]
        assert answers[0].content == answers[1].content
        assert len(await transceiver.sessions()) == 1


@pytest.mark.parametrize(
    ("sdp", "param"),
    [("garbage", "v="), (without("a=fingerprint"), "a=fingerprint"), (without("a=rtpmap:111"), "a=rtpmap")],
)
async def test_a_bad_offer_is_refused_by_its_field(secrets_dir, sdp, param):
    async with running_transceiver(secrets_dir) as transceiver:
        response = await transceiver.offer(sdp)
        assert response.status_code == 422
        assert refusal_of(response).reason is RefusalReason.OFFER
        assert refusal_of(response).param == param
        assert await transceiver.sessions() == {}


async def test_a_body_that_is_not_ours_is_refused(secrets_dir):
    async with running_transceiver(secrets_dir) as transceiver:
        for body in (b"", b"{}", b"[1]", b"\xff", b'{"version":99}'):
            assert (await transceiver.request("POST", "/v1/sessions", content=body)).status_code == 422
        too_long = await transceiver.request("POST", "/v1/sessions", content=b"x" * (MAX_BODY_BYTES + 1))
        assert too_long.status_code == 413
        assert (await transceiver.status()).sessions_total == 0


async def test_the_longest_offer_of_line_ends_still_fits_a_body(secrets_dir):
    async with running_transceiver(secrets_dir) as transceiver:
        response = await transceiver.offer("v=0\r\n" + "\n" * (MAX_OFFER_BYTES - 5))
        assert response.status_code == 422


async def test_a_transceiver_that_holds_its_share_refuses_by_its_own_count_and_says_it(secrets_dir):
    async with running_transceiver(secrets_dir) as transceiver:
        assert (await transceiver.create(CHROMIUM, below=1)).sessions == 1
        assert (await transceiver.create(CHROMIUM, below=2)).sessions == 2
        response = await transceiver.offer(CHROMIUM, below=2)
        assert response.status_code == 503
        assert (refusal_of(response).reason, refusal_of(response).sessions) == (RefusalReason.BUSY, 2)
        assert (await transceiver.create(CHROMIUM)).sessions == 3  # room it has


async def test_a_full_transceiver_says_503_and_when_to_ask_again(secrets_dir):
    async with running_transceiver(secrets_dir, capacity=1) as transceiver:
        await transceiver.create(CHROMIUM)
        response = await transceiver.offer(CHROMIUM)
        assert response.status_code == 503
        assert refusal_of(response).reason is RefusalReason.FULL
        assert int(response.headers["Retry-After"]) == refusal_of(response).retry_after_s


# ---- life


async def test_without_a_topology_it_is_starting_and_with_one_it_is_active(secrets_dir):
    index: list[TopologyIndex | None] = [None]
    process = TransceiverProcess(make_settings(secrets_dir, accept_direct=False), lambda: index[0])
    await process.start()
    try:
        assert process.core.calls.state == "starting"
        index[0] = TopologyIndex(Topology(cluster=7, revision=9))
        process._use_topology()
        assert process.core.calls.state == "active"
        assert process.status().topology_revision == 9
    finally:
        await process.stop()


async def test_draining_refuses_new_calls_and_waits_for_the_others(secrets_dir):
    async with running_transceiver(secrets_dir) as transceiver:
        created = await transceiver.create(CHROMIUM)
        response = await transceiver.request("POST", "/v1/drain")
        assert response.status_code == 202
        assert response.json()["state"] == "draining"
        refused = await transceiver.offer(CHROMIUM)
        assert refused.status_code == 503
        assert refusal_of(refused).reason is RefusalReason.DRAINING
        drained = asyncio.create_task(transceiver.process.wait_drained(30))
        await asyncio.sleep(0)
        assert not drained.done()
        assert (await transceiver.hang_up(created.call_id)).status_code == 200
        await asyncio.wait_for(drained, 10)


async def test_the_drain_deadline_hangs_up_what_is_left(secrets_dir):
    async with running_transceiver(secrets_dir) as transceiver:
        await transceiver.create(CHROMIUM)
        process = transceiver.process
        await process.wait_drained(0)
        await process.stop()
        assert process.core.calls.tally.ended["drain_deadline"] == 1


async def test_whom_the_deadline_hangs_up_may_ask_once_more_whether_there_is_consent(secrets_dir):
    async with running_transceiver(secrets_dir) as transceiver:
        process = transceiver.process
        answer = (await transceiver.create(CHROMIUM)).answer
        ufrag, pwd = (re.search(rf"a=ice-{name}:(\S+)", answer)[1] for name in ("ufrag", "pwd"))
        leaving = asyncio.create_task(process.wait_drained(0))
        async with asyncio.timeout(10):
            while process.calls:
                await asyncio.sleep(0.005)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            client.connect((HOST, process.port))
            client.send(build_binding_request(b"t" * 12, f"{ufrag}:aB3+", pwd.encode()))
            told = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 2_048), 10)
        assert parse_binding_response(told).error_code == FORBIDDEN
        assert not leaving.done()
        await leaving


async def test_a_drain_order_hangs_up_after_its_time_and_a_wrong_one_changes_nothing(secrets_dir):
    async with running_transceiver(secrets_dir) as transceiver:
        process = transceiver.process
        await transceiver.create(CHROMIUM)
        wrong = await transceiver.request("POST", "/v1/drain", content='{"hang_up_after_s": -1}')
        assert (wrong.status_code, refusal_of(wrong).param) == (422, "hang_up_after_s")
        assert process.core.calls.state == "active"
        left = await transceiver.request("POST", "/v1/drain", content='{"hang_up_after_s": 3600}')
        assert left.json()["sessions"] == 1
        assert left.json()["oldest_started_at"] == left.json()["newest_started_at"]
        await transceiver.request("POST", "/v1/drain", content='{"hang_up_after_s": 0}')
        await asyncio.wait_for(process.wait_drained(3600), 10)
        assert process.core.calls.tally.ended["drain_deadline"] == 1


async def test_a_fence_in_the_topology_is_an_order_that_needs_no_operator(secrets_dir):
    me = Member(slot=5, generation=2, address=HOST, port=9, state=MemberState.DRAINING)
    another = me.model_copy(update={"generation": 1})
    index = [TopologyIndex(Topology(cluster=7, pools=(Pool(name="default", members=(another,)),)))]
    process = TransceiverProcess(make_settings(secrets_dir, drain_deadline_s=600), lambda: index[0])
    await process.start()
    try:
        assert process.core.calls.state == "active"  # it is an older generation that leaves
        index[0] = TopologyIndex(Topology(cluster=7, pools=(Pool(name="default", members=(another, me)),)))
        process._use_topology()
        assert process.core.calls.state == "draining"
        assert 599 < process.core.calls.leaving.deadline() - time.monotonic() <= 600
        process.drain(DrainOrder(hang_up_after_s=60))  # the operator knows better
        index[0] = TopologyIndex(Topology(cluster=7, revision=2, pools=(Pool(name="default", members=(me,)),)))
        process._use_topology()
        assert process.core.calls.leaving.deadline() - time.monotonic() <= 60
    finally:
        await process.stop()


async def test_media_and_control_share_one_port_number(secrets_dir):
    async with running_transceiver(secrets_dir) as transceiver:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            with socket.socket(socket.AF_INET, kind) as another, pytest.raises(OSError, match="in use"):
                another.bind((HOST, transceiver.process.port))


async def test_a_port_in_use_stops_the_start_and_leaves_nothing_bound(secrets_dir):
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = TransceiverProcess(make_settings(secrets_dir, port=port), lambda: None)
        with pytest.raises(OSError, match="in use"):
            await process.start()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind((HOST, port))


async def test_metrics_name_every_drop_reason_and_the_calls(secrets_dir):
    async with running_transceiver(secrets_dir) as transceiver:
        created: SessionCreated = await transceiver.create(CHROMIUM)
        await transceiver.hang_up(created.call_id)
        text = (await transceiver.request("GET", "/metrics")).text
        assert 'voicefleet_transceiver_drops_total{reason="srtp_replay"} 0.0' in text
        assert 'voicefleet_transceiver_sessions{pool="default"} 0.0' in text
        assert 'voicefleet_transceiver_sessions_ended_total{pool="default",reason="hang_up"} 1.0' in text


async def test_a_backend_that_fails_ends_its_own_call_only(secrets_dir):
    class Broken(Backend):
        def __init__(self, call):
            pass

        def on_connected(self):
            raise RuntimeError("no agent there")

        def on_ended(self):
            raise RuntimeError("also at the end")

    async with running_transceiver(secrets_dir) as transceiver:
        process = transceiver.process
        process._make_backend = Broken
        first = await transceiver.create(CHROMIUM)
        second = await transceiver.create(CHROMIUM)
        process.calls[first.call_id].on_connected()
        assert process.core.calls.tally.ended["backend_failed"] == 1
        assert list(await transceiver.sessions()) == [second.call_id]


async def test_a_backend_learns_what_came_with_the_call_and_may_end_it_with_a_reason(secrets_dir):
    made = []

    class Polite(Backend):
        def __init__(self, call):
            made.append(call)

        def on_connected(self):
            made[0].hang_up(Ending.BACKEND_CLOSED, "the agent has gone home")

    async with running_transceiver(secrets_dir) as transceiver:
        process = transceiver.process
        process._make_backend = Polite
        created = await transceiver.create(
            CHROMIUM, tenant="acme", session={"instructions": "be brief"}, traceparent=TRACE
        )
        (call,) = made
        assert call.config == CallConfig(created.call_id, "acme", {"instructions": "be brief"}, TRACE)
        process.calls[created.call_id].on_connected()
        assert process.core.calls.tally.ended["backend_closed"] == 1
        assert call.session.end_detail == "the agent has gone home"


async def test_the_set_up_of_a_traced_call_is_an_exemplar_for_whoever_reads_openmetrics(secrets_dir):
    async with running_transceiver(secrets_dir) as transceiver:
        created = await transceiver.create(CHROMIUM, traceparent=TRACE)
        session = transceiver.process.calls[created.call_id].session
        session.checked_at = session.lifetime.started_at + 0.02
        await transceiver.hang_up(created.call_id)
        accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
        text = (await transceiver.request("GET", "/metrics", headers=accept)).text
        [bucket] = [line for line in text.splitlines() if "setup_seconds_bucket" in line and " # " in line]
        assert 'stage="checked"' in bucket
        assert TRACE.split("-")[1] in bucket
        assert created.call_id not in text


async def test_a_backend_that_cannot_be_made_refuses_the_call_so_that_another_member_is_asked(secrets_dir):
    def unreachable(call):
        raise OSError("no agent there")

    async with running_transceiver(secrets_dir) as transceiver:
        transceiver.process._make_backend = unreachable
        response = await transceiver.offer(CHROMIUM)
        assert response.status_code == 503
        assert await transceiver.sessions() == {}

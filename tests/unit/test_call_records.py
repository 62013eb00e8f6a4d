"""Records of ended calls: what they say, and how they reach a log, a stream and a webhook that come and go."""

import asyncio
import base64
import hashlib
import hmac
import json

import pytest
from aiohttp import web

from tests.support.redis_server import running_redis
from tests.support.transceiver import World
from tests.support.transceiver_process import HOST
from voicefleet_contract.call_records import CallRecord, event_id, sign_webhook
from voicefleet_contract.registry import call_records_key
from voicefleet_contract.settings import TransceiverSettings
from voicefleet_dataplane.core.call.model import EndReason
from voicefleet_dataplane.shell.transceiver import call_records
from voicefleet_dataplane.shell.transceiver.call_records import CallRecords, make_record


def settings(**fields: object) -> TransceiverSettings:
    values = {
        "cluster_id": 7,
        "slot": 5,
        "generation": 2,
        "inner_address": HOST,
        "port": 1,
        "process_name": "agents-5-2",
    }
    return TransceiverSettings.model_validate(values | {"pool": "agents"} | fields)


def ended_call(**fields: object) -> CallRecord:
    world = World()
    caller = world.connected()
    world.now += 2.0
    caller.session.end(EndReason.HANG_UP)
    return make_record(settings(**fields), caller.session, "fra-1", world.now, 1_000_000.0)


def test_a_record_says_where_how_and_why_and_keeps_the_network_only():
    record = ended_call()
    assert (record.pool, record.slot, record.pod, record.relay) == ("agents", 5, "agents-5-2", "fra-1")
    assert (record.ended_reason, record.client) == ("hang_up", "198.51.100.0/24")
    assert record.checked_ms is not None
    assert record.connected_ms is not None
    assert record.connected_ms >= record.checked_ms >= 0
    assert record.audio_ms is None  # none came
    assert record.duration_s == pytest.approx(record.ended_at - record.started_at, abs=0.01)


def test_addresses_are_kept_where_that_was_decided():
    assert ended_call(call_record_addresses="Full").client == "198.51.100.1"


def test_the_event_id_follows_from_the_call():
    assert event_id("call_a") == event_id("call_a") != event_id("call_b")


def test_a_delivery_is_signed_over_id_time_and_body():
    headers = sign_webhook(b"secret", "id", 5, b"body")
    expected = base64.b64encode(hmac.digest(b"secret", b"id.5.body", hashlib.sha256)).decode()
    assert headers == {"webhook-id": "id", "webhook-timestamp": "5", "webhook-signature": f"v1,{expected}"}


async def test_a_record_is_one_line_of_json_at_once():
    lines: list[str] = []
    records = CallRecords(settings(), lines.append)
    record = ended_call()
    records.put(record)
    assert [CallRecord.model_validate_json(line) for line in lines] == [record]
    assert "\n" not in lines[0]


async def test_the_stream_takes_records_when_redis_is_back_and_forgets_old_ones(monkeypatch):
    monkeypatch.setattr(call_records, "_PAUSES_S", (0.01,))
    async with running_redis() as redis:
        await redis.kill()
        records = CallRecords(
            settings(call_records_stdout=False, call_records_stream=True, redis_url=redis.url, call_records_keep_s=60)
        )
        records.start()
        records.put(ended_call())
        await redis.start()
        async with asyncio.timeout(20):
            while not records.counts()["stream", "delivered"]:
                await asyncio.sleep(0.01)
        [(_, fields)] = await redis.client.xrange(call_records_key(7))
        assert json.loads(fields[b"record"])["type"] == "call.ended"
        await records.close()


async def test_a_webhook_is_tried_again_with_the_same_id_and_a_redirect_is_no_delivery(tmp_path, monkeypatch):
    monkeypatch.setattr(call_records, "_PAUSES_S", (0.01,))
    (tmp_path / "secret").write_text("shared\n")
    got: list[tuple[str, bytes, str]] = []
    answers = [503, 302, 200]

    async def take(request: web.Request) -> web.Response:
        body = await request.read()
        got.append((request.headers["webhook-id"], body, request.headers["webhook-signature"]))
        stamp = request.headers["webhook-timestamp"]
        assert (
            request.headers["webhook-signature"]
            == sign_webhook(b"shared", got[-1][0], int(stamp), body)["webhook-signature"]
        )
        return web.Response(status=answers[len(got) - 1], headers={"Location": "http://198.51.100.1/"})

    app = web.Application()
    app.router.add_post("/calls", take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, HOST, 0)
    await site.start()
    port = runner.addresses[0][1]
    records = CallRecords(
        settings(
            call_records_stdout=False,
            call_records_webhook_url=f"http://{HOST}:{port}/calls",
            call_records_webhook_secret_file=str(tmp_path / "secret"),
        )
    )
    records.start()
    record = ended_call()
    records.put(record)
    await records.close()  # leaving waits for what is on its way
    await runner.cleanup()
    assert {message_id for message_id, _, _ in got} == {record.event_id}
    assert len(got) == 3
    assert records.counts()["webhook", "delivered"] == 1


async def test_what_no_longer_fits_is_dropped_oldest_first_and_counted(monkeypatch):
    monkeypatch.setattr(call_records, "_MOST_WAITING", 2)
    monkeypatch.setattr(call_records, "_LEAVE_S", 0.0)
    records = CallRecords(
        settings(call_records_stdout=False, call_records_stream=True, redis_url="redis://127.0.0.1:1/0")
    )
    for _ in range(5):
        records.put(ended_call())
    assert records.counts()["stream", "dropped"] == 3
    await records.close()
    assert records.counts()["stream", "dropped"] == 5


def test_a_webhook_without_a_secret_is_refused_at_start():
    with pytest.raises(ValueError, match="secret"):
        CallRecords(settings(call_records_webhook_url="https://example.com/calls"))

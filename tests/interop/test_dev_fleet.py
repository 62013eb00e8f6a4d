"""Calls with recorded speech through relay, transceivers and gateway, each a process of its own."""

import asyncio
import json
import re
import signal
import subprocess
import sys

import httpx
import pytest

from voicefleet_contract.hint import peek_hint
from voicefleet_dataplane.media.speech import decode_opus, encode_opus, read_wav, repeat, similarity
from voicefleet_dataplane.shell.client.packet_caller import Caller, CallResult, make_identity

pytestmark = pytest.mark.interop


def place(fleet, *options: str) -> tuple[int, list[dict], str]:
    argv = [sys.executable, "-m", "voicefleet_dataplane", "call", fleet.url, "--json", "--cacert", str(fleet.ca_file)]
    done = subprocess.run([*argv, *options], capture_output=True, text=True, check=False, timeout=100)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return done.returncode, lines, done.stderr


def test_ten_calls_at_once_each_hear_their_own_recording_and_no_other(fleet):
    code, lines, problem = place(fleet, "--key", fleet.api_key, "--count", "10", "--duration", "4")
    assert code == 0, (lines, problem)
    *calls, summary = lines
    assert summary["calls"] == summary["answered"] == summary["audio_ok"] == 10
    assert {peek_hint(call["ufrag"]).slot for call in calls} == {1, 2}
    assert all(call["own"] >= 0.7 and call["others"] <= 0.4 for call in calls)


def test_stock_aiortc_calls_and_hears_itself(fleet):
    """A client that shares no WebRTC code with the fleet."""
    options = ("--key", fleet.api_key, "--client", "aiortc", "--count", "2", "--duration", "4")
    code, lines, problem = place(fleet, *options)
    assert code == 0, (lines, problem)
    *calls, summary = lines
    assert summary["audio_ok"] == 2
    for call in calls:
        assert list(call["timeline_ms"]) == ["answer", "stun", "dtls", "audio"]
        assert call["sent"] == call["received"] == 200


def test_stock_aiortc_says_what_the_gateway_said(fleet):
    code, lines, _ = place(fleet, "--key", "sk-wrong-0123456789", "--client", "aiortc", "--duration", "1")
    assert code == 1
    assert re.search(r"401 .*key", lines[0]["error"])


def test_a_refused_call_shows_what_the_gateway_said(fleet):
    code, lines, _ = place(fleet, "--key", "sk-wrong-0123456789", "--duration", "1")
    assert code == 1
    assert re.search(r"401 .*key", lines[0]["error"])


def test_a_certificate_that_is_not_trusted_is_said_with_the_options_that_help(fleet):
    argv = [sys.executable, "-m", "voicefleet_dataplane", "call", fleet.url, "--json", "--duration", "1"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "--cacert" in json.loads(done.stdout.splitlines()[0])["error"]


def test_a_gateway_that_is_not_there_is_named(fleet):
    argv = [sys.executable, "-m", "voicefleet_dataplane", "call", "https://127.0.0.1:1", "--json", "--duration", "1"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "https://127.0.0.1:1" in json.loads(done.stdout.splitlines()[0])["error"]


async def talk(fleet, packets: list[bytes], during) -> CallResult:
    async with httpx.AsyncClient(verify=False, timeout=15, trust_env=False) as http:
        caller = Caller(http, make_identity(), packets)
        headers = {"Authorization": f"Bearer {fleet.api_key}"}
        call = asyncio.create_task(caller.run(fleet.url + "/v1/realtime/calls", headers))
        async with asyncio.timeout(20):
            while "audio" not in caller.result.timeline_ms:
                assert not call.done(), caller.result.error
                await asyncio.sleep(0.02)
        await during()
        return await call


async def test_a_killed_relay_costs_no_call(fleet, speech):
    """SIGKILL: the new process knows nothing, and the next check tells it enough."""
    packets = repeat(encode_opus(read_wav(speech[0])), 500)

    async def kill() -> None:
        fleet.kill("relay", signal.SIGKILL)
        fleet.restart("relay")
        await asyncio.to_thread(fleet.wait_ready)

    result = await talk(fleet, packets, kill)
    assert not result.error
    last = max(result.heard)
    assert last >= 490  # the end of the recording was heard: media came back without a new offer
    assert not set(range(last - 99, last)) - set(result.heard)  # and undisturbed
    heard, sent = decode_opus(result.heard), decode_opus(dict(enumerate(packets)))
    assert similarity(sent, heard) > 0.5


async def test_redis_killed_in_mid_call_costs_nothing(fleet, speech):
    packets = repeat(encode_opus(read_wav(speech[1])), 200)

    async def kill() -> None:
        fleet.kill("redis")

    result = await talk(fleet, packets, kill)
    assert not result.error
    assert result.loss == 0
    code, lines, _ = place(fleet, "--key", fleet.api_key, "--count", "2", "--duration", "2")
    assert code == 0, lines  # new calls too
    fleet.restart("redis")


async def test_a_call_whose_transceiver_died_says_for_how_long_nothing_came(fleet, speech):
    packets = repeat(encode_opus(read_wav(speech[2])), 250)

    async def kill() -> None:
        for slot in (1, 2):
            fleet.kill(f"transceiver-{slot}", signal.SIGKILL)

    result = await talk(fleet, packets, kill)
    for slot in (1, 2):
        fleet.restart(f"transceiver-{slot}")
    await asyncio.to_thread(fleet.wait_ready)
    assert result.silent_s > 2
    assert result.loss > 0.4

"""A NAT that rebinds in mid-call: each stack hears again within 2.5 s of its first check from the new address, counted in packets that it
sends meanwhile. When that check comes is the stack's own: Chromium's after 2.5 s at most, aiortc's after five or so.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.interop.test_bad_networks import front_of
from tests.support.aiortc_client import AiortcClient, use_loopback
from tests.support.chromium import chromium
from tests.support.lossy import BadNetwork
from tests.support.transceiver_process import HOST, RunningTransceiver, running_transceiver
from voicefleet_contract.addresses import Address
from voicefleet_contract.topology import Endpoint
from voicefleet_dataplane.media.opus import OpusEncoder
from voicefleet_dataplane.shell.client.packet_caller import Caller, make_identity
from voicefleet_dataplane.shell.client.trouble import Trouble

pytestmark = pytest.mark.interop

MOST_UNHEARD = round(2.5 * 50)
SILENCE = OpusEncoder(48_000, dtx=False).encode(bytes(1_920))


def ingress(network: BadNetwork) -> list[Endpoint]:
    return [Endpoint(address=network.address.host, port=network.address.port)]


@contextlib.asynccontextmanager
async def our_client(transceiver: RunningTransceiver, network: BadNetwork) -> AsyncIterator[None]:
    """Its checks nominate nothing, once it is connected."""
    async with httpx.AsyncClient(transport=transceiver.transport(ingress(network))) as http:
        caller = Caller(http, make_identity(), [SILENCE] * 3_000, Trouble(rebind_after_s=1e6))
        call = asyncio.create_task(caller.run("http://gateway/v1/realtime/calls", {}))
        try:
            yield
        finally:
            caller.give_up()
            await call
    assert caller.result.error == ""


@contextlib.asynccontextmanager
async def aiortc(transceiver: RunningTransceiver, network: BadNetwork) -> AsyncIterator[None]:
    client = AiortcClient()

    async def exchange(offer: str) -> str:
        return (await transceiver.create(offer, ingress(network))).answer

    try:
        await client.connect(exchange)
        yield
    finally:
        await client.close()


@contextlib.asynccontextmanager
async def a_browser(transceiver: RunningTransceiver, network: BadNetwork) -> AsyncIterator[None]:
    async with front_of(transceiver, network) as url, chromium(None) as browser:
        call = asyncio.create_task(browser.call(url, seconds=15.0))
        yield
        result = await call
        assert "failed" not in result.states


@pytest.mark.parametrize("stack", [our_client, aiortc, a_browser])
async def test_a_client_behind_a_nat_that_rebinds_hears_again(secrets_dir, monkeypatch, stack):
    if stack is aiortc:
        use_loopback(monkeypatch)
    async with (
        running_transceiver(secrets_dir) as transceiver,
        BadNetwork(Address(HOST, transceiver.process.port), 0.0, 0.0).running() as network,
        asyncio.timeout(60),
        stack(transceiver, network),
    ):
        await network.heard.wait()
        network.rebind()
        await network.heard.wait()
        assert network.unheard <= MOST_UNHEARD
        print(stack.__name__, "unheard:", network.unheard)
        assert (await transceiver.status()).sessions == 1


async def test_our_client_rebinds_by_itself_and_says_when_it_heard_again(secrets_dir):
    async with (
        running_transceiver(secrets_dir) as transceiver,
        httpx.AsyncClient(transport=transceiver.transport()) as http,
    ):
        caller = Caller(http, make_identity(), [SILENCE] * 300, Trouble(rebind_after_s=1.0))
        await caller.run("http://gateway/v1/realtime/calls", {})
        assert caller.result.error == ""
        assert caller.result.heard_again_s is not None


async def test_our_client_can_be_mute_and_can_check_never_again(secrets_dir):
    async with (
        running_transceiver(secrets_dir) as transceiver,
        httpx.AsyncClient(transport=transceiver.transport()) as http,
    ):
        mute = Caller(http, make_identity(), [SILENCE] * 50, Trouble(mutes=True))
        await mute.run("http://gateway/v1/realtime/calls", {})
        assert (mute.result.error, mute.result.sent, mute.result.received) == ("", 0, 0)
        silent = Caller(http, make_identity(), [SILENCE] * 150, Trouble(checks=False))
        await silent.run("http://gateway/v1/realtime/calls", {})
        assert silent.result.error == ""
        assert silent.last_check
        assert silent.result.received >= 100

"""A NAT that rebinds in mid-call: each stack hears again within 2.5 s of its first check from the new address, counted in packets that it
sends meanwhile. When that check comes is the stack's own: a relay and an owner learn addresses from checks alone.
"""

import asyncio

import httpx
import numpy as np
import pytest

from tests.interop.matrix.client import running
from tests.interop.matrix.content import recording
from tests.interop.matrix.stacks import STACKS
from tests.support.lossy import BadNetwork
from tests.support.transceiver_process import HOST, running_transceiver
from voicefleet_contract.addresses import Address
from voicefleet_contract.topology import Endpoint
from voicefleet_dataplane.media.opus import OpusEncoder
from voicefleet_dataplane.media.speech import read_wav, write_wav
from voicefleet_dataplane.shell.client.packet_caller import Caller, make_identity
from voicefleet_dataplane.shell.client.trouble import Trouble

pytestmark = pytest.mark.interop

MOST_UNHEARD = round(2.5 * 50)
SILENCE = OpusEncoder(48_000, dtx=False).encode(bytes(1_920))


@pytest.mark.parametrize("stack", [stack for stack in STACKS if stack.short], ids=lambda stack: stack.name)
async def test_a_client_behind_a_nat_that_rebinds_hears_again(secrets_dir, speech, tmp_path, stack):
    wav = tmp_path / "long.wav"
    wav.write_bytes(write_wav(np.tile(read_wav(speech[0]), 60)[: 48_000 * 60]))
    said = recording(wav, tmp_path)
    async with (
        running_transceiver(secrets_dir) as transceiver,
        BadNetwork(Address(HOST, transceiver.process.port), 0.0, 0.0).running() as network,
        running(stack.argv(), tmp_path) as client,
        asyncio.timeout(60),
    ):
        await client.do("offer", call="1", wav=str(said.wav), packets=str(said.packets), channels=[])
        offer = (await client.event("offer"))["sdp"]
        ingress = [Endpoint(address=network.address.host, port=network.address.port)]
        await client.do("answer", sdp=(await transceiver.create(offer, ingress)).answer)
        await network.in_conversation.wait()
        network.rebind()
        await network.heard.wait()
        assert network.unheard <= MOST_UNHEARD
        assert (await transceiver.status()).sessions == 1
        print(f"{stack.name} {client.version}: {network.unheard} packets unheard")


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

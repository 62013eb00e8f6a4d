"""The unmodified OpenAI SDK in Chromium, and OpenAI's Python client beside it, on the cluster.

Its pool stands for the minute that it takes, and the agent is a server of this test, on this machine's address in the nodes' network: it must be reachable from the nodes.
"""

import asyncio
import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import openai

from e2e.fleet import Fleet
from e2e.kube import eventually
from e2e.talk import SPEECH
from e2e.test_agents import offered
from e2e.test_chromium_hears_itself import FLAGS
from tests.support.agents_sdk import sdk_session
from tests.support.conversing_agent import ConversingAgent
from tests.support.sdk_story import HEARD_AS, TOOL_SAYS, script, spoken_exchange
from voicefleet_contract import names

POOL = """\
apiVersion: voicefleet.dev/v1alpha1
kind: Transceiver
metadata: {{name: sdk}}
spec:
  replicas: 1
  ports: {{min: 20300, max: 20309}}
  capacity: {{sessions: 10}}
  backend: {backend}
  drain: {{deadline: 5s, policy: HangUp}}
"""


def our_address(fleet: Fleet) -> str:
    """The address of this machine on the way to the nodes."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((fleet.nodes[0].address, 9))
        return str(probe.getsockname()[0])


@contextmanager
def pool_of(fleet: Fleet, agent: ConversingAgent) -> Iterator[str]:
    """A pool whose agent it is; gives the URL of its calls."""
    backend = {"type": "OpenAIRealtime", "url": agent.url, "network": "Private"}
    fleet.kube.apply(POOL.format(backend=json.dumps(backend)))
    try:
        eventually("pool sdk is Ready", lambda: fleet.condition("transceiver", "sdk"), within_s=60)
        taken = "unsupported_offer"  # by a member that takes calls: it read the offer
        eventually("a member of pool sdk takes calls", lambda: offered(fleet, "sdk") == taken, within_s=30)
        yield f"{fleet.url}/v1/realtime/calls?pool=sdk"
    finally:
        fleet.kube.run("delete", "transceiver", "sdk")
        selector = f"{names.LABEL_POOL}=sdk"  # the other stories count the fleet's pods
        eventually("the pods of sdk are gone", lambda: not fleet.kube.get("pods", selector=selector), within_s=60)


async def test_the_openai_sdk_talks_with_an_agent_and_a_server_watches(fleet: Fleet) -> None:
    speech = sorted(SPEECH.glob("*_*.wav"))
    http = openai.DefaultAsyncHttpxClient(verify=False, trust_env=False)
    unverified = ssl._create_unverified_context()
    agent = ConversingAgent(script(speech), HEARD_AS, host=our_address(fleet))
    async with (
        agent,
        openai.AsyncOpenAI(api_key=fleet.api_key, base_url=f"{fleet.url}/v1", http_client=http) as client,
    ):
        with pool_of(fleet, agent) as url:
            made = await client.realtime.client_secrets.create(
                session={"type": "realtime", "instructions": "of the key"}
            )
            async with sdk_session(url, made.value, speech[0], result=TOOL_SAYS, flags=FLAGS) as session:
                beside = client.realtime.connect(
                    call_id=session.call_id, websocket_connection_options={"ssl": unverified}
                )
                async with beside as server:
                    seen = asyncio.create_task(transcripts(server))
                    await spoken_exchange(agent, session, speech, "of the key")
                    assert await asyncio.wait_for(seen, 30) == [HEARD_AS] * 3  # it ends with the call


async def transcripts(server: Any) -> list[str]:
    """What the user said, as a server sees it, until the call is over."""
    kind = "conversation.item.input_audio_transcription.completed"
    return [event.transcript async for event in server if event.type == kind]

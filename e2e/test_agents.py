"""Agents in the cluster: a call to a Service with a key, what the agent heard, and an agent that dies."""

import asyncio
import base64
import json
from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from e2e.fleet import Fleet
from e2e.kube import eventually, ready
from e2e.talk import calling, speech
from voicefleet_contract import names
from voicefleet_dataplane.media.speech import Samples, decode_opus, similarity
from voicefleet_dataplane.shell.client.packet_caller import Caller, CallResult, make_identity

KEY = "sk-agent-0123456789"
SECONDS = 4.0
NODE_PORT = 30_900

# An agent of the Media Streams protocol: says what it hears, remembers it, and wants its key.
AGENT = """
import base64, json
from aiohttp import web

heard = {}

async def agent(request):
    if request.headers.get("Authorization") != "Bearer KEY":
        raise web.HTTPUnauthorized()
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        event = json.loads(message.data)
        if event["event"] == "start":
            codes = heard.setdefault(event["start"]["callSid"], bytearray())
        elif event["event"] == "media":
            codes += base64.b64decode(event["media"]["payload"])
            await socket.send_json({"event": "media", "media": {"payload": event["media"]["payload"]}})
    return socket

async def tell(request):
    return web.json_response({call: base64.b64encode(codes).decode() for call, codes in heard.items()})

app = web.Application()
app.router.add_get("/", agent)
app.router.add_get("/heard", tell)
web.run_app(app, host="0.0.0.0", port=9000)
""".replace("KEY", KEY)

POOL = """\
apiVersion: voicefleet.dev/v1alpha1
kind: Transceiver
metadata: {{name: phones}}
spec:
  replicas: 1
  ports: {{min: 20200, max: 20219}}
  capacity: {{sessions: 20}}
  backend: {backend}
  drain: {{deadline: 5s, policy: HangUp}}
"""
BACKEND = {
    "type": "MediaStream",
    "url": "ws://agent.voice.svc:9000/",
    "network": "Private",
    "secretRef": {"name": "agent", "key": "token"},
}


def manifest() -> str:
    return POOL.format(backend=json.dumps(BACKEND))


def objects(fleet: Fleet) -> list[dict]:
    image = fleet.kube.get("deployment", "voicefleet-gateway")["spec"]["template"]["spec"]["containers"][0]["image"]
    return [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "agent"}, "stringData": {"token": KEY + "\n"}},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "agent"},
            "spec": {
                "type": "NodePort",  # the test asks the agent what it heard
                "selector": {"app": "agent"},
                "ports": [{"port": 9000, "nodePort": NODE_PORT}],
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "agent", "labels": {"app": "agent"}},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [
                    {
                        "name": "agent",
                        "image": image,
                        "imagePullPolicy": "Never",
                        "command": ["/opt/voicefleet/bin/python", "-c", AGENT],
                        "readinessProbe": {"tcpSocket": {"port": 9000}, "periodSeconds": 1},
                    }
                ],
            },
        },
    ]


@pytest.fixture(scope="module")
def phones(fleet: Fleet) -> Iterator[Fleet]:
    """The fleet with an agent and a pool that speaks to it."""
    for one in objects(fleet):
        fleet.kube.apply(json.dumps(one))
    fleet.kube.apply(manifest())
    eventually("the agent is ready", lambda: ready(fleet.kube.get("pod", "agent")), within_s=60)
    eventually("pool phones is Ready", lambda: fleet.condition("transceiver", "phones"), within_s=60)
    taken = "unsupported_offer"  # by a member that takes calls: it read the offer
    eventually("a member of pool phones takes calls", lambda: offered(fleet) == taken, within_s=30)
    yield fleet
    fleet.kube.run("delete", "transceiver", "phones")
    selector = f"{names.LABEL_POOL}=phones"  # the other stories count the fleet's pods
    eventually("the pods of phones are gone", lambda: not fleet.kube.get("pods", selector=selector), within_s=60)
    for kind in ("pod", "service", "secret"):
        fleet.kube.run("delete", kind, "agent", "--ignore-not-found")


def offered(fleet: Fleet, pool: str = "phones") -> str:
    answer = httpx.post(
        f"{fleet.url}/v1/realtime/calls?pool={pool}",
        content="v=0\r\n",
        headers={"Content-Type": "application/sdp", "Authorization": f"Bearer {fleet.api_key}"},
        verify=False,
        trust_env=False,
    )
    return str(answer.json()["error"]["code"])


async def call_phones(fleet: Fleet, packets: list[bytes], *, kill_after_s: float | None = None) -> CallResult:
    async with httpx.AsyncClient(verify=False, timeout=15, trust_env=False) as http:
        caller = Caller(http, make_identity(), packets)
        headers = {"Authorization": f"Bearer {fleet.api_key}"}
        task = asyncio.create_task(caller.run(f"{fleet.url}/v1/realtime/calls?pool=phones", headers))
        if kill_after_s is not None:
            async with asyncio.timeout(20):
                while len(caller.result.heard) < kill_after_s * 50:  # noqa: ASYNC110  it has no event for what it hears
                    await asyncio.sleep(0.05)
            await asyncio.to_thread(fleet.kube.run, "delete", "pod", "agent", "--force", "--grace-period=0")
        await task
        return caller.result


def what_the_agent_heard(fleet: Fleet) -> dict[str, str]:
    """By call id."""
    answer = httpx.get(f"http://{httpx.URL(fleet.url).host}:{NODE_PORT}/heard", trust_env=False, timeout=10)
    answer.raise_for_status()
    return dict(answer.json())


def samples_of(codes: str) -> Samples:
    """µ-law at 8 kHz as samples at 48 kHz, by another implementation than the fleet's."""
    raw = ~np.frombuffer(base64.b64decode(codes), np.uint8)
    magnitude = (((raw & 0x0F).astype(np.int32) << 3) + 0x84 << ((raw >> 4) & 7)) - 0x84
    return np.repeat(np.where(raw & 0x80, -magnitude, magnitude).astype(np.int16), 6)


def recording(packets: list[bytes]) -> Samples:
    return decode_opus(dict(enumerate(packets)))


async def test_a_call_speaks_to_the_agent_and_the_agent_heard_the_recording_and_no_other(phones: Fleet) -> None:
    spoken = [speech(SECONDS, number) for number in (0, 3)]
    results = await asyncio.gather(*(call_phones(phones, packets) for packets in spoken))
    heard = what_the_agent_heard(phones)
    for index, result in enumerate(results):
        assert result.error == ""
        own, other = recording(spoken[index]), recording(spoken[1 - index])
        assert similarity(own, samples_of(heard[result.call_id])) > 0.8
        assert similarity(other, samples_of(heard[result.call_id])) < 0.4
        assert similarity(own, decode_opus(result.heard)) > 0.7


async def test_an_agent_that_dies_ends_its_own_calls_and_no_others(phones: Fleet) -> None:
    async with calling(phones, 8.0) as echo:
        result = await call_phones(phones, speech(30.0), kill_after_s=1.0)
        assert result.sent < 30.0 * 50 - 100, "the call of the dead agent went on"
    assert echo.result.error == ""
    assert echo.result.sent == 400
    log = phones.kube.run(
        "logs", "-l", "app.kubernetes.io/component=transceiver,voicefleet.dev/pool=phones", "--tail=20"
    )
    assert "backend_closed" in log or "backend_failed" in log

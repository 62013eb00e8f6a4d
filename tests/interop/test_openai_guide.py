"""docs/openai.md as its reader does it: its programs are run as they stand there, with a fleet's URL and key in the place of the example's."""

import asyncio
import contextlib
import json
import os
import re
import sys
import wave
from pathlib import Path

import pytest

from tests.interop.test_agents_sdk import AgentFleet, agents  # noqa: F401  the fixture
from tests.support.chromium import chromium
from tests.support.conversing_agent import ConversingAgent, Speak
from tests.support.npm import node_modules
from tests.support.sdk_story import at_24_khz
from voicefleet_dataplane.media.speech import read_wav

pytestmark = pytest.mark.interop

GUIDE = (Path(__file__).parents[2] / "docs" / "openai.md").read_text()
MAKE_KEY, WATCH = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
(PAGE,) = re.findall(r"```javascript\n(.*?)```", GUIDE, re.DOTALL)
_AS_MODULE = """
(source => new Promise((done, failed) => {
  const map = document.createElement('script');
  map.type = 'importmap';
  map.textContent = JSON.stringify(
    {imports: {'@openai/agents-realtime': '/npm/@openai/agents-realtime/dist/bundle/openai-realtime-agents.mjs'}});
  const module = document.createElement('script');
  module.type = 'module';
  module.textContent = source + '; window.guide = transport; window.dispatchEvent(new Event("guide"));';
  addEventListener('guide', () => done(window.guide.callId));
  addEventListener('error', event => failed(event.error));
  addEventListener('unhandledrejection', event => failed(event.reason));
  document.head.append(map, module);
}))
"""


def as_read(source: str, fleet: AgentFleet) -> str:
    assert "https://gateway.example.com" in source
    return source.replace("https://gateway.example.com", fleet.fleet.url).replace("sk-your-key", fleet.fleet.api_key)


@contextlib.asynccontextmanager
async def running(fleet: AgentFleet, source: str, *arguments: str):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", as_read(source, fleet), *arguments),
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"SSL_CERT_FILE": str(fleet.fleet.ca_file)},
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def one_sentence(speech: Path, to: Path) -> Path:
    """A microphone that says something and is silent for a while, again and again."""
    with wave.open(str(to), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(48_000)
        out.writeframes(read_wav(speech).tobytes() + bytes(2 * 48_000 * 4))
    return to


async def test_the_guides_programs_hold_a_call(agents, speech, tmp_path):  # noqa: F811
    answer = Speak(at_24_khz(speech[3]), "this is the answer")
    agent = ConversingAgent([answer] * 50, "what the user said", agents.port)
    async with agent, running(agents, MAKE_KEY) as made:
        said, _ = await asyncio.wait_for(made.communicate(), 60)
        key = said.decode().strip()
        assert key.startswith("ek_")
        files = {"/npm": await asyncio.to_thread(node_modules)}
        microphone = one_sentence(speech[0], tmp_path / "microphone.wav")
        async with chromium(microphone, ["--ignore-certificate-errors"], files) as page, asyncio.timeout(90):
            source = as_read(PAGE, agents).replace("ek_…", key)
            call_id = await page.evaluate(f"({_AS_MODULE})({json.dumps(source)})")
            assert agent.session["instructions"] == "Answer in one sentence."
            async with running(agents, WATCH, call_id) as watching:
                assert watching.stdout is not None
                heard = {await watching.stdout.readline() for _ in range(4)}
                assert heard == {b"user: what the user said\n", b"agent: this is the answer\n"}
                async with agents.openai() as client:
                    await client.realtime.calls.hangup(call_id)
                await watching.stdout.read()
                assert await watching.wait() == 0  # it ends with the call

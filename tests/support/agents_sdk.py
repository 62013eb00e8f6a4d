"""The unmodified `@openai/agents-realtime` in Chromium: a RealtimeSession as its guide writes one, driven step by step.

The microphone is a stream that the test speaks into, so that nothing depends on when a call came up. What the page plays is recorded
from the audio element that the package fills.
"""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.chromium import Chromium, chromium
from tests.support.npm import node_modules
from voicefleet_dataplane.media.speech import Samples

_SESSION = """
async ({url, key, tool}) => {
  const {RealtimeAgent, RealtimeSession, OpenAIRealtimeWebRTC, tool: makeTool} =
    await import('/npm/@openai/agents-realtime/dist/bundle/openai-realtime-agents.mjs');
  const context = new AudioContext({sampleRate: 48000});
  const microphone = context.createMediaStreamDestination();
  const player = new Audio();
  player.muted = true;  // or the machine would speak; without a player Chromium pulls no audio out of a stream
  const story = window.story = {events: [], counts: {}, toolCalls: [], heard: [], states: []};
  const waiting = [];
  const note = (name, value) => {
    story.counts[name] = (story.counts[name] || 0) + 1;
    story.events.push([name, value]);
    for (const [wanted, count, done] of waiting) if (story.counts[wanted] >= count) done();
  };
  story.until = (name, count) => new Promise(done => {
    if ((story.counts[name] || 0) >= count) done(); else waiting.push([name, count, done]);
  });
  const lookUp = makeTool({
    name: tool.name, description: 'Looks something up.', strict: false,
    parameters: {type: 'object', properties: {}, required: [], additionalProperties: true},
    execute: async input => { story.toolCalls.push(input); note('tool'); return tool.result; },
  });
  const agent = new RealtimeAgent({name: 'tester', instructions: 'You are the agent of a test.', tools: [lookUp]});
  const transport = new OpenAIRealtimeWebRTC({baseUrl: url, mediaStream: microphone.stream, audioElement: player});
  const session = story.session = new RealtimeSession(agent, {transport});
  transport.on('*', event => note(event.type, event));
  transport.on('connection_change', state => { story.states.push(state); note('state:' + state); });
  for (const name of ['audio_start', 'audio_stopped', 'audio_interrupted', 'agent_tool_start', 'agent_tool_end'])
    session.on(name, () => note('session:' + name));
  session.on('error', error => note('session:error', JSON.parse(JSON.stringify(error, Object.getOwnPropertyNames(error)))));
  story.history = () => session.history;
  story.say = async bytes => {
    const audio = await context.decodeAudioData(Uint8Array.from(atob(bytes), c => c.charCodeAt(0)).buffer);
    const source = context.createBufferSource();
    source.buffer = audio;
    source.connect(microphone);
    await new Promise(done => { source.onended = done; source.start(); });
  };
  const recorder = context.createScriptProcessor(4096, 1, 1);
  recorder.onaudioprocess = event => story.heard.push(new Float32Array(event.inputBuffer.getChannelData(0)));
  recorder.connect(context.destination);
  const started = performance.now();
  await session.connect({apiKey: key});
  const connectMs = performance.now() - started;
  if (player.srcObject === null) throw new Error('the package got no stream to play');
  context.createMediaStreamSource(player.srcObject).connect(recorder);
  story.audio = () => {
    const length = story.heard.reduce((sum, part) => sum + part.length, 0), samples = new Int16Array(length);
    let at = 0;
    for (const part of story.heard) for (const value of part) samples[at++] = Math.max(-1, Math.min(1, value)) * 32767;
    const bytes = new Uint8Array(samples.buffer);
    let binary = '';
    for (let i = 0; i < bytes.length; i += 32768) binary += String.fromCharCode(...bytes.subarray(i, i + 32768));
    return btoa(binary);
  };
  return {connectMs, callId: transport.callId};
}
"""


class SdkSession:
    """One RealtimeSession in a page."""

    def __init__(self, page: Chromium, connected: dict[str, Any]) -> None:
        self.page = page
        self.connect_ms: float = connected["connectMs"]
        self.call_id: str = connected["callId"]

    async def until(self, name: str, count: int = 1, within_s: float = 30.0) -> None:
        """Wait for the count-th event of a name."""
        try:
            async with asyncio.timeout(within_s):
                await self.page.evaluate(f"story.until({json.dumps(name)}, {count})")
        except TimeoutError:
            seen = await self.page.evaluate("story.counts")
            errors = await self.events("session:error")
            raise AssertionError(
                f"no {name} (number {count}) within {within_s:g} s; there were {seen}, {errors}"
            ) from None

    async def say(self, wav: Path) -> None:
        """Speak a recording into the microphone, to its end."""
        sound = base64.b64encode(await asyncio.to_thread(wav.read_bytes)).decode()
        await self.page.evaluate(f"story.say('{sound}')")

    async def events(self, name: str) -> list[Any]:
        return list(await self.page.evaluate(f"story.events.filter(e => e[0] === {json.dumps(name)}).map(e => e[1])"))

    async def history(self) -> list[dict[str, Any]]:
        return list(await self.page.evaluate("story.history()"))

    async def tool_calls(self) -> list[Any]:
        return list(await self.page.evaluate("story.toolCalls"))

    async def heard(self) -> Samples:
        """What the page has played so far: 48 kHz."""
        return np.frombuffer(base64.b64decode(await self.page.evaluate("story.audio()")), dtype="<i2")

    async def do(self, expression: str) -> Any:
        """Call something of the session, for instance `interrupt()`."""
        return await self.page.evaluate(f"story.session.{expression}")


@contextlib.asynccontextmanager
async def sdk_session(
    url: str, key: str, microphone: Path, *, tool: str = "look_up", result: str = "42", flags: Sequence[str] = ()
) -> AsyncIterator[SdkSession]:
    """Connect to ``url`` (…/v1/realtime/calls) with an ephemeral key."""
    packages = await asyncio.to_thread(node_modules)
    async with chromium(microphone, ["--ignore-certificate-errors", *flags], {"/npm": packages}) as page:
        arguments = json.dumps({"url": url, "key": key, "tool": {"name": tool, "result": result}})
        async with asyncio.timeout(40):
            connected = await page.evaluate(f"({_SESSION})({arguments})")
        yield SdkSession(page, connected)

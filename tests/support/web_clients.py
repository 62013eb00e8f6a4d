"""WHIP publishers, WHEP players and Pipecat's client in Chromium, as their packages ship them (tests/npm).

The page adds three things to them: a microphone, a recorder of what each hears, and a list of the HTTP requests that they make.
"""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.chromium import Chromium, chromium, contains
from tests.support.npm import bundle

_LISTEN_S = 2.0

_TOOLS = """
window.page = {requests: [], errors: [], heard: {}};
addEventListener('unhandledrejection', event => page.errors.push(String(event.reason)));
const plain = window.fetch;
window.fetch = async (input, init) => {
  const request = new Request(input, init);
  const entry = {method: request.method, url: request.url, ifMatch: request.headers.get('If-Match')};
  page.requests.push(entry);
  const response = await plain(request);
  entry.status = response.status;
  entry.link = response.headers.get('Link');
  entry.location = response.headers.get('Location');
  entry.etag = response.headers.get('ETag');
  return response;
};
page.microphone = () => navigator.mediaDevices.getUserMedia(
  {audio: {echoCancellation: false, noiseSuppression: false, autoGainControl: false}});
page.record = (name, stream) => {
  const player = new Audio();  // without a player Chromium pulls no audio out of a stream
  player.srcObject = stream; player.muted = true; player.play();
  page.context = page.context || new AudioContext({sampleRate: 48000});
  const parts = page.heard[name] = [], recorder = page.context.createScriptProcessor(4096, 1, 1);
  recorder.onaudioprocess = event => parts.push(new Float32Array(event.inputBuffer.getChannelData(0)));
  page.context.createMediaStreamSource(stream).connect(recorder);
  recorder.connect(page.context.destination);
};
page.take = name => {
  const parts = page.heard[name], length = parts.reduce((sum, part) => sum + part.length, 0);
  const samples = new Int16Array(length);
  let at = 0;
  for (const part of parts.splice(0)) for (const value of part) samples[at++] = Math.max(-1, Math.min(1, value)) * 32767;
  const bytes = new Uint8Array(samples.buffer);
  let binary = '';
  for (let i = 0; i < bytes.length; i += 32768) binary += String.fromCharCode(...bytes.subarray(i, i + 32768));
  return btoa(binary);
};
page.connected = pc => new Promise((done, failed) => {
  const look = () => {
    if (pc.connectionState === 'connected') done();
    if (pc.connectionState === 'failed') failed(new Error('the peer connection failed'));
  };
  pc.addEventListener('connectionstatechange', look);
  look();
});
// What says that packets go over the pair of the newest credentials.
page.pair = async pc => {
  const all = [...(await pc.getStats()).values()];
  const transport = all.find(one => one.type === 'transport'), pair = all.find(one => one.id === transport.selectedCandidatePairId);
  const local = all.find(one => one.id === pair.localCandidateId), remote = all.find(one => one.id === pair.remoteCandidateId);
  return {ufrag: local.usernameFragment, remote: remote.usernameFragment, dtls: transport.dtlsState, sent: pair.packetsSent,
          got: pair.packetsReceived};
};
page.until = async (look, what) => {
  for (let left = 300; left; left--) { if (await look()) return; await new Promise(done => setTimeout(done, 50)); }
  throw new Error('not in 15 s: ' + what);
};
"""

# medooze's whip-whep, by the author of both specifications; arguments: gateway, key, and the player's path.
PUBLISH = """
page.pc = new RTCPeerConnection({bundlePolicy: 'max-bundle'});
const microphone = await page.microphone();
page.pc.addTransceiver(microphone.getTracks()[0], {direction: 'sendonly', streams: [microphone]});
page.whip = new clients.WHIPClient();
await page.whip.publish(page.pc, gateway + '/whip', key);
await page.connected(page.pc);
"""
PLAY = """
page.player = new RTCPeerConnection({bundlePolicy: 'max-bundle'});
page.player.addTransceiver('audio', {direction: 'recvonly'});
page.player.ontrack = event => page.record('player', event.streams[0]);
page.whep = new clients.WHEPClient();
await page.whep.view(page.player, gateway + path, key);
await page.connected(page.player);
"""
_RESTART = """
const before = await page.pair(pc());
const old = pc().remoteDescription.sdp.match(/a=ice-ufrag:(.*)/)[1];
await client().restart();
const now = pc().remoteDescription.sdp.match(/a=ice-ufrag:(.*)/)[1];
await page.until(async () => (await page.pair(pc())).remote === now, 'a pair of the new credentials');
return {before, after: await page.pair(pc()), old, now, state: pc().connectionState};
"""
# Pipecat's client; arguments: gateway, key.
CONNECT_PIPECAT = """
const transport = page.transport = new clients.SmallWebRTCTransport({
  mediaManager: new clients.WavMediaManager(),
  webrtcRequestParams: {endpoint: gateway + '/api/offer', headers: new Headers({Authorization: 'Bearer ' + key}),
                        requestData: {session: {instructions: 'be brief'}}},
});
page.states = []; page.seen = [];
const callbacks = {onTransportStateChanged: state => page.states.push(state)};
for (const name of ['onBotReady', 'onBotConnected', 'onBotDisconnected', 'onDisconnected', 'onMessageError', 'onError',
                    'onUserStartedSpeaking', 'onUserStoppedSpeaking', 'onUserTranscript', 'onBotStartedSpeaking',
                    'onBotStoppedSpeaking', 'onBotOutput', 'onLLMFunctionCallInProgress'])
  callbacks[name] = value => page.seen.push([name, value && value.data !== undefined ? value.data : value]);
callbacks.onTrackStarted = (track, participant) => {
  if (!participant) page.record('bot', new MediaStream([track]));
};
const client = page.client = new clients.PipecatClient({transport, enableMic: true, enableCam: false, callbacks});
page.functionCalls = [];
client.registerFunctionCallHandler('look_up', async params => { page.functionCalls.push(params); return {found: true}; });
const ready = await client.connect();
return {ready, state: client.state, pcId: transport.pc_id};
"""

# What Pipecat's client does when ICE has failed.
ANOTHER_PEER = """
const before = page.transport.pc;
page.transport.attemptReconnection(true);
await page.until(() => page.transport.pc !== before && page.transport.dc.readyState === 'open', 'a new one');
// With the old one it has stopped the microphone's track, which is the new one's too; and it forgets the new track's
// name when the old one ends, so that nobody is told of it.
await page.until(() => before.connectionState === 'closed', 'the old one is closed');
const [microphone] = (await page.microphone()).getTracks();
const [audio] = page.transport.pc.getTransceivers();
await audio.sender.replaceTrack(microphone);
page.record('bot', new MediaStream([audio.receiver.track]));
"""


@dataclass(frozen=True, slots=True)
class Request:
    """A request that a package made."""

    method: str
    url: str
    status: int | None
    if_match: str | None
    link: str | None
    etag: str | None
    location: str


class WebClients:
    """A page with the packages in ``clients`` and the tools in ``page``."""

    def __init__(self, browser: Chromium) -> None:
        self._browser = browser

    async def run(self, script: str, **arguments: Any) -> Any:
        """Run the body of an async function; its arguments are variables there."""
        names = ", ".join(arguments)
        async with asyncio.timeout(60):
            return await self._browser.evaluate(f"(async ({{{names}}}) => {{{script}}})({json.dumps(arguments)})")

    async def requests(self, method: str) -> list[Request]:
        """Those of a method so far."""
        found = await self.run("return page.requests")
        return [
            Request(
                one["method"],
                one["url"],
                one.get("status"),
                one["ifMatch"],
                one.get("link"),
                one.get("etag"),
                one.get("location") or "",
            )
            for one in found
            if one["method"] == method
        ]

    async def errors(self) -> list[str]:
        """Promises of the packages that were refused and that nobody looked at."""
        found: list[str] = await self.run("return page.errors")
        return found

    async def hears(self, name: str, spoken: np.ndarray, enough: float = 0.7, at_most_s: float = 20.0) -> np.ndarray:
        """What a recorder hears from now on, until it contains the recording, which the microphone says again and again.

        A busy machine inserts silence here and there, so that not every repetition is whole.
        """
        await self.run("await page.until(() => page.heard[name], 'a track'); page.take(name)", name=name)
        heard = np.zeros(0, dtype="<i2")
        best = 0.0
        for _ in range(int(at_most_s / _LISTEN_S)):
            await asyncio.sleep(_LISTEN_S)  # it is listened to: there is no event to wait for
            part = np.frombuffer(base64.b64decode(await self.run("return page.take(name)", name=name)), dtype="<i2")
            heard = np.concatenate([heard, part])
            best = contains(spoken, heard)
            if best >= enough:
                return heard
        raise AssertionError(
            f"{name} heard the recording at {best:.2f} in {at_most_s:g} s, which is less than {enough}"
        )


@contextlib.asynccontextmanager
async def web_clients(microphone: Path, flags: Sequence[str] = ()) -> AsyncIterator[WebClients]:
    """Start Chromium, and load the packages."""
    packages = bundle("clients.js", "clients")
    async with chromium(microphone, flags) as browser:
        await browser.evaluate(f"(() => {{ {packages}; window.clients = clients; }})()")
        await browser.evaluate(f"(() => {{ {_TOOLS} }})()")
        yield WebClients(browser)


def player_path(link: str) -> str:
    """Where the agent of a publisher is heard, as the Link of its 201 says."""
    assert 'rel="urn:voicefleet:whep"' in link
    return link.split(">", maxsplit=1)[0].strip("<")


async def restart_ice(page: WebClients, pc: str, client: str) -> dict[str, Any]:
    """Restart ICE by the package's own means, and wait until packets go over the new credentials."""
    done: dict[str, Any] = await page.run(f"const pc = () => {pc}, client = () => {client};" + _RESTART)
    return done

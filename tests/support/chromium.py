"""Headless Chromium, driven over the DevTools protocol, that places one call and hears what comes back.

Used on loopback and against a cluster: where to call, the key and what the microphone says are arguments. The page comes
from loopback (a secure context, as `getUserMedia` wants); its offer is posted as the OpenAI SDKs do: at once, without
candidates. Echo cancellation and its siblings are off, or they would take our own voice out.
"""

import asyncio
import base64
import contextlib
import itertools
import json
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import aiohttp
import numpy as np
from aiohttp import web

PROGRAM = "chromium"
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
    "--allow-loopback-in-peer-connection",
    "--remote-debugging-port=0",
)
_START_TIMEOUT_S = 30.0

_PAGE = "<!doctype html><meta charset=utf-8><title>voicefleet test call</title>"

# Everything that the page does; the argument and the result are JSON.
_CALL = """
async ({url, key, seconds}) => {
  const marks = {}, result = {marks, messages: [], states: []};
  const started = performance.now();
  const mark = name => { if (!(name in marks)) marks[name] = performance.now() - started; };
  const microphone = await navigator.mediaDevices.getUserMedia(
    {audio: {echoCancellation: false, noiseSuppression: false, autoGainControl: false}});
  const pc = new RTCPeerConnection({bundlePolicy: 'max-bundle'});
  for (const track of microphone.getTracks()) pc.addTrack(track, microphone);
  const channel = pc.createDataChannel('oai-events');
  channel.onopen = () => { mark('data_open'); channel.send('{"type":"hello from a browser"}'); };
  channel.onmessage = event => { mark('data_echo'); result.messages.push(event.data); };
  pc.onconnectionstatechange = () => { result.states.push(pc.connectionState); mark(pc.connectionState); };
  const context = new AudioContext({sampleRate: 48000});
  const heard = [];
  pc.ontrack = event => {
    result.streams = event.streams.length;
    const stream = event.streams[0] || new MediaStream([event.track]);
    const player = new Audio();  // without a player Chromium pulls no audio out of the stream
    player.srcObject = stream; player.muted = true; player.play();
    const recorder = context.createScriptProcessor(4096, 1, 1);
    recorder.onaudioprocess = event => heard.push(new Float32Array(event.inputBuffer.getChannelData(0)));
    context.createMediaStreamSource(stream).connect(recorder);
    recorder.connect(context.destination);
  };
  const offer = await pc.createOffer();
  await pc.setLocalDescription(offer);
  const headers = {'Content-Type': 'application/sdp'};
  if (key) headers['Authorization'] = 'Bearer ' + key;
  const response = await fetch(url, {method: 'POST', headers, body: offer.sdp});
  const text = await response.text();
  result.status = response.status;
  result.location = response.headers.get('Location');
  mark('answer');
  if (response.status !== 201) { result.error = text; pc.close(); return result; }
  result.answer = text;
  await pc.setRemoteDescription({type: 'answer', sdp: text});
  await new Promise(done => setTimeout(done, seconds * 1000));
  result.stats = [...(await pc.getStats()).values()];
  if (result.location) {
    const hangUp = await fetch(new URL(result.location + '/hangup', url), {method: 'POST', headers});
    result.hangUpStatus = hangUp.status;
  }
  pc.close();
  for (const track of microphone.getTracks()) track.stop();
  await context.close();
  const length = heard.reduce((sum, part) => sum + part.length, 0), samples = new Int16Array(length);
  let at = 0;
  for (const part of heard) for (const value of part) samples[at++] = Math.max(-1, Math.min(1, value)) * 32767;
  const bytes = new Uint8Array(samples.buffer);
  let binary = '';
  for (let i = 0; i < bytes.length; i += 32768) binary += String.fromCharCode(...bytes.subarray(i, i + 32768));
  result.audio = btoa(binary);
  return result;
}
"""


class ChromiumError(Exception):
    """Chromium did not do what it was asked; the text is its own."""


class BrowserCall:
    """What the page reports of one call."""

    def __init__(self, result: dict[str, Any]) -> None:
        self.status: int = result["status"]
        self.error: str = result.get("error", "")
        self.location: str = result.get("location") or ""
        self.hang_up_status: int | None = result.get("hangUpStatus")
        self.marks_ms: dict[str, float] = result["marks"]
        self.messages: list[str] = result["messages"]
        self.states: list[str] = result["states"]
        self.stream_count: int = result.get("streams", 0)
        self.answer: str = result.get("answer", "")
        self._stats: list[dict[str, Any]] = result.get("stats", [])
        self.samples = np.frombuffer(base64.b64decode(result.get("audio", "")), dtype="<i2")

    def stats(self, kind: str) -> dict[str, Any]:
        """Return the audio report of a type, or the nominated pair; an empty one when there is none."""
        found = [one for one in self._stats if one["type"] == kind and one.get("kind", "audio") == "audio"]
        if kind == "candidate-pair":
            found = [one for one in found if one.get("nominated")]
        return found[0] if found else {}


class Chromium:
    """A running browser with one page."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, reader_of: dict[int, asyncio.Future[Any]]) -> None:
        self._socket, self._waiting, self._numbers = socket, reader_of, itertools.count(1)
        self._session = ""

    async def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json(message)
        return await answer

    async def open(self, url: str) -> None:
        target = await self.command("Target.createTarget", url="about:blank")
        attached = await self.command("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        navigated = await self.command("Page.navigate", url=url)
        if navigated.get("errorText"):
            raise ChromiumError(f"{url}: {navigated['errorText']}")
        async with asyncio.timeout(_START_TIMEOUT_S):
            while await self.evaluate("document.readyState + location.href") != f"complete{url}":
                await asyncio.sleep(0.02)

    async def evaluate(self, expression: str) -> Any:
        answer = await self.command("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise ChromiumError(details.get("exception", {}).get("description", details["text"]))
        return answer["result"].get("value")

    async def call(self, url: str, key: str = "", seconds: float = 6.0) -> BrowserCall:
        """Place one call to ``url`` (…/v1/realtime/calls) and talk for some seconds."""
        arguments = json.dumps({"url": url, "key": key, "seconds": seconds})
        async with asyncio.timeout(seconds + 40):
            return BrowserCall(await self.evaluate(f"({_CALL})({arguments})"))


@contextlib.asynccontextmanager
async def chromium(
    microphone: Path, flags: Sequence[str] = (), files: Mapping[str, Path] = MappingProxyType({})
) -> AsyncIterator[Chromium]:
    """Start Chromium with a WAV as its microphone (again and again), open the page, and end every process after it.

    ``flags`` are added, for example ``--ignore-certificate-errors`` for a self-signed gateway. ``files`` are folders that the
    page's server has beside the page, by the path where they stand.
    """
    program = shutil.which(PROGRAM)
    assert program, "chromium is missing: run `make deps`"
    home = Path(tempfile.mkdtemp(prefix="voicefleet-chromium-"))
    log = (home / "chromium.log").open("wb")
    process = await asyncio.create_subprocess_exec(
        program,
        *_FLAGS,
        f"--user-data-dir={home / 'profile'}",
        f"--use-file-for-fake-audio-capture={microphone}",
        *flags,
        "about:blank",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        env=os.environ | {"HOME": str(home)},
    )
    try:
        endpoint = await _devtools(process, home)
        async with (
            _page_server(files) as page,
            aiohttp.ClientSession() as http,
            http.ws_connect(endpoint, max_msg_size=0) as socket,
        ):
            waiting: dict[int, asyncio.Future[Any]] = {}
            reader = asyncio.create_task(_read(socket, waiting))
            try:
                browser = Chromium(socket, waiting)
                await browser.open(page)
                yield browser
            finally:
                reader.cancel()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # our own session: its renderers too
        await process.wait()
        log.close()
        shutil.rmtree(home, ignore_errors=True)


async def _devtools(process: asyncio.subprocess.Process, home: Path) -> str:
    announced = home / "profile" / "DevToolsActivePort"
    try:
        async with asyncio.timeout(_START_TIMEOUT_S):
            while process.returncode is None:
                if announced.exists() and len(lines := announced.read_text().split()) == 2:
                    return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
                await asyncio.sleep(0.05)
    except TimeoutError:
        pass
    said = (home / "chromium.log").read_text(errors="replace")[-2000:]
    raise ChromiumError(f"Chromium did not start (code {process.returncode}): {said}")


async def _read(socket: aiohttp.ClientWebSocketResponse, waiting: dict[int, asyncio.Future[Any]]) -> None:
    try:
        async for message in socket:
            answer = json.loads(message.data)
            future = waiting.pop(answer.get("id", 0), None)
            if future is None or future.done():
                continue
            if "error" in answer:
                future.set_exception(ChromiumError(answer["error"]["message"]))
            else:
                future.set_result(answer["result"])
    finally:
        for future in waiting.values():
            if not future.done():
                future.set_exception(ChromiumError("Chromium ended"))


@contextlib.asynccontextmanager
async def _page_server(files: Mapping[str, Path]) -> AsyncIterator[str]:
    async def page(request: web.Request) -> web.Response:
        return web.Response(text=_PAGE, content_type="text/html")

    app = web.Application()
    app.router.add_get("/", page)
    for path, folder in files.items():
        app.router.add_static(path, folder)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


def contains(spoken: np.ndarray, heard: np.ndarray) -> float:
    """Return 0–1: how well ``heard`` contains ``spoken`` (both mono, 48 kHz) at its best place.

    The correlation is normalised in each window of the recording's length, so neither loudness nor what stands around it
    counts. A jitter buffer stretches time now and then: of several repetitions the best undisturbed one is found.
    """
    reference, recording = at_8_khz(spoken), at_8_khz(heard)
    if len(recording) < len(reference) or not reference.any():
        return 0.0
    size = 1 << (len(recording) + len(reference)).bit_length()
    lags = len(recording) - len(reference) + 1
    products = np.fft.irfft(np.fft.rfft(recording, size) * np.conj(np.fft.rfft(reference, size)), size)[:lags]
    running = np.concatenate([[0.0], np.cumsum(np.square(recording))])
    energy = float(np.sum(np.square(reference)))
    windows = np.maximum(running[len(reference) :] - running[:lags], 1e-4 * energy)  # silence is no match
    return float(np.max(products / np.sqrt(windows * energy)))


def resembles(spoken: np.ndarray, heard: np.ndarray) -> float:
    """Return 0–1: the median of `contains` over the recording's pieces, third of a second by third of a second where it is not silent.

    For speech that is heard once: a busy machine inserts silence, which moves what follows.
    """
    pieces = [spoken[at : at + 16_000] for at in range(0, len(spoken) - 16_000, 16_000)]
    loudness = [float(np.abs(piece.astype(int)).mean()) for piece in pieces]
    return float(
        np.median(
            [contains(piece, heard) for piece, loud in zip(pieces, loudness, strict=True) if loud > max(loudness) / 8]
        )
    )


def at_8_khz(samples: np.ndarray) -> np.ndarray:
    """Return samples of 48 kHz at a telephone's rate."""
    taps = np.arange(-48, 49)
    kernel = np.sinc(taps / 6 * 0.9) * np.hanning(len(taps))
    return np.convolve(samples.astype(np.float64), kernel / kernel.sum(), mode="same")[::6]

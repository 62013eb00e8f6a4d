"""A call with a WebRTC stack that is not ours: stock aiortc, as anybody would use it.

`voicefleet call` otherwise speaks our own ICE, DTLS and SRTP code, which cannot prove that others understand it. This
client shares nothing of that with the fleet: codec, jitter buffer, SRTP, DTLS, ICE and SDP are aiortc's. It costs a codec's CPU for
each call, so it proves, and does not load.

Owns: one call and what aiortc says of it. Does not own: signalling and the result's shape (caller.py).
"""

import asyncio
import fractions
import time
from collections.abc import Coroutine
from typing import Any

import av
import httpx
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from aiortc.rtcconfiguration import RTCBundlePolicy

from voicefleet_dataplane.media.speech import FRAME, RATE, Samples, mono
from voicefleet_dataplane.shell.client.packet_caller import (
    SETUP_TIMEOUT_S,
    TAIL_S,
    CallError,
    CallResult,
    hang_up,
    not_reached,
    post_offer,
)
from voicefleet_dataplane.wire.sdp.client import AnswerError, parse_answer_untrusted


class _Speech(MediaStreamTrack):
    """Samples in real time, 20 ms a frame; it begins when the connection takes it."""

    kind = "audio"

    def __init__(self, samples: Samples) -> None:
        super().__init__()
        self.said = asyncio.Event()
        self._samples = samples
        self._position = 0
        self._started_at: float | None = None

    async def recv(self) -> av.AudioFrame:
        """Return the next frame when it is due. Raises MediaStreamError at the end."""
        if self._started_at is None:
            self._started_at = time.monotonic()
        part = self._samples[self._position : self._position + FRAME]
        if len(part) < FRAME:
            self.said.set()
            raise MediaStreamError
        await asyncio.sleep(self._started_at + self._position / RATE - time.monotonic())
        frame = av.AudioFrame.from_ndarray(part.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, self._position, fractions.Fraction(1, RATE)
        self._position += FRAME
        return frame


class AiortcCaller:
    """One call that says ``samples``."""

    def __init__(self, http: httpx.AsyncClient, samples: Samples) -> None:
        self._http, self._samples = http, samples
        self._began = 0.0
        self._failed: asyncio.Future[None]
        self.result = CallResult(samples=[])

    async def run(self, url: str, headers: dict[str, str]) -> CallResult:
        """Place the call, say everything, hang up. Never raises but for cancellation: see ``result.error``."""
        location = ""
        self._failed = asyncio.get_running_loop().create_future()
        connection = RTCPeerConnection(RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
        speech, tasks = _Speech(self._samples), []
        sender = connection.addTrack(speech)
        connection.on("track", lambda track: tasks.append(asyncio.ensure_future(self._listen(track))))
        connection.on("iceconnectionstatechange", lambda: self._note(connection))
        connection.on("connectionstatechange", lambda: self._note(connection))
        try:
            await connection.setLocalDescription(await connection.createOffer())
            self._began = time.monotonic()
            location, answer = await post_offer(self._http, url, headers, connection.localDescription.sdp)
            self._mark("answer")
            self.result.call_id = location.rsplit("/", 1)[-1]
            seen = parse_answer_untrusted(answer)
            self.result.ufrag, self.result.ingress = seen.ufrag, str(seen.candidates[0])
            await connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
            await self._unless_failed(speech.said.wait(), SETUP_TIMEOUT_S + len(self._samples) / RATE)
            await asyncio.sleep(TAIL_S)
            await self._read_statistics(connection, sender)
        except TimeoutError:
            self.result.error = f"no media within {SETUP_TIMEOUT_S:g} s; reached: {', '.join(self.result.timeline_ms)}"
        except httpx.HTTPError as error:
            self.result.error = not_reached(url, error)
        except (CallError, AnswerError, OSError, ValueError) as error:
            self.result.error = str(error) or type(error).__name__
        finally:
            self._failed.cancel()
            await hang_up(self._http, url, headers, location)
            for task in tasks:
                task.cancel()
            await connection.close()
        return self.result

    async def _unless_failed(self, work: Coroutine[Any, Any, object], timeout_s: float) -> None:
        waiting: asyncio.Future[Any] = asyncio.create_task(work)
        done, _ = await asyncio.wait({waiting, self._failed}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if waiting not in done:
            waiting.cancel()
            if not done:
                raise TimeoutError
        if self._failed in done:
            raise CallError("the other side ended the call, or could not be reached over UDP")

    async def _listen(self, track: MediaStreamTrack) -> None:
        assert self.result.samples is not None
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            self._mark("audio")
            assert isinstance(frame, av.AudioFrame)
            self.result.samples.append(mono(frame))

    async def _read_statistics(self, connection: RTCPeerConnection, sender: object) -> None:
        by_type = {one.type: one for one in (await connection.getStats()).values()}
        if "outbound-rtp" in by_type and "inbound-rtp" in by_type:
            self.result.sent = by_type["outbound-rtp"].packetsSent
            self.result.received = by_type["inbound-rtp"].packetsReceived
            self.result.jitter_ms = by_type["inbound-rtp"].jitter / RATE * 1e3
        reported = by_type.get("remote-inbound-rtp")  # what the transceiver says of what it hears
        if reported is not None and reported.roundTripTime is not None:
            self.result.rtt_ms = reported.roundTripTime * 1e3

    def _note(self, connection: RTCPeerConnection) -> None:
        if connection.iceConnectionState == "completed":
            self._mark("stun")
        if connection.connectionState == "connected":
            self._mark("dtls")
        if connection.connectionState in ("failed", "closed") and not self._failed.done():
            self._failed.set_result(None)

    def _mark(self, stage: str) -> None:
        self.result.timeline_ms.setdefault(stage, round((time.monotonic() - self._began) * 1e3, 2))

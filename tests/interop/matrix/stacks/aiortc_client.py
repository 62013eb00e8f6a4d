"""A client on aiortc."""

import asyncio
import fractions
from importlib.metadata import version
from pathlib import Path

import aioice.ice
import av
from aiortc import RTCConfiguration, RTCDataChannel, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from aiortc.rtcconfiguration import RTCBundlePolicy

from tests.interop.matrix.content import message
from tests.interop.matrix.stacks.lines import Command, say, say_message, serve
from voicefleet_dataplane.media.speech import FRAME, RATE, Samples, join, mono, read_wav, write_wav


class Speech(MediaStreamTrack):
    """A recording over and over, in real time."""

    kind = "audio"

    def __init__(self, samples: Samples) -> None:
        super().__init__()
        self._samples = samples[: len(samples) // FRAME * FRAME]
        self._frames = 0
        self._began: float | None = None

    async def recv(self) -> av.AudioFrame:
        loop = asyncio.get_running_loop()
        self._began = loop.time() if self._began is None else self._began
        await asyncio.sleep(self._began + self._frames * FRAME / RATE - loop.time())
        at = self._frames * FRAME % len(self._samples)
        frame = av.AudioFrame.from_ndarray(self._samples[at : at + FRAME].reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, self._frames * FRAME, fractions.Fraction(1, RATE)
        self._frames += 1
        return frame


class Client:
    """One peer connection at a time."""

    def __init__(self) -> None:
        self.pc = RTCPeerConnection()
        self.channels: dict[str, RTCDataChannel] = {}
        self.parts: list[Samples] = []
        self.wanted: tuple[float, Path] | None = None
        self.listening: list[asyncio.Task[None]] = []

    async def handle(self, command: Command) -> None:
        match command["do"]:
            case "offer":
                await self.offer(command)
            case "answer":
                await self.pc.setRemoteDescription(RTCSessionDescription(command["sdp"], "answer"))
            case "open":
                self.open(command)
            case "send":
                channel = self.channels[command["channel"]]
                for number in range(command.get("count", 1)):
                    text = command.get("text")
                    fill = command.get("fill", 0) + number
                    channel.send(message(command["kind"], command["size"], fill) if text is None else text)
            case "close":
                self.channels[command["channel"]].close()
            case "listen":
                self.parts, self.wanted = [], (command["seconds"], Path(command["path"]))
            case "hang_up":
                await self.pc.close()

    async def offer(self, command: Command) -> None:
        self.channels = {}
        self.pc = pc = RTCPeerConnection(RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
        pc.on("connectionstatechange", lambda: say("state", call=command["call"], state=pc.connectionState))
        pc.on("track", lambda track: self.listening.append(asyncio.ensure_future(self.listen(track))))
        pc.addTrack(Speech(read_wav(Path(command["wav"]))))
        for channel in command["channels"]:
            self.open(channel)
        await pc.setLocalDescription(await pc.createOffer())
        say("offer", sdp=pc.localDescription.sdp)

    def open(self, command: Command) -> None:
        name = command["channel"]
        self.channels[name] = channel = self.pc.createDataChannel(
            command["label"],
            maxPacketLifeTime=command.get("max_lifetime_ms"),
            maxRetransmits=command.get("max_retransmits"),
            ordered=command.get("ordered", True),
            protocol=command.get("protocol", ""),
            negotiated=command.get("negotiated", False),
            id=command.get("id"),
        )
        channel.on("open", lambda: say("open", channel=name))
        channel.on("close", lambda: say("closed", channel=name))
        channel.on("message", lambda one: say_message(name, one))
        if channel.readyState == "open":  # one that was negotiated says no more of it
            say("open", channel=name)

    async def listen(self, track: MediaStreamTrack) -> None:
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            assert isinstance(frame, av.AudioFrame)
            if self.wanted is None:
                continue
            self.parts.append(mono(frame))
            seconds = sum(map(len, self.parts)) / RATE
            if seconds >= self.wanted[0]:
                self.wanted[1].write_bytes(write_wav(join(self.parts)))
                say("audio", form="wav", seconds=seconds)
                self.parts, self.wanted = [], None


async def main() -> None:
    aioice.ice.get_host_addresses = lambda **_: ["127.0.0.1"]  # which it leaves out otherwise
    client = Client()
    say("ready", version=version("aiortc"))
    await serve(client.handle)
    await client.pc.close()


if __name__ == "__main__":
    asyncio.run(main())

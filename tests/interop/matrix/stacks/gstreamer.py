"""A client on GStreamer's webrtcbin, with the Python and the packages of Debian: nothing else of this checkout is imported but lines.py.

/usr/bin/python3 -m tests.interop.matrix.stacks.gstreamer
"""

import asyncio
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gi

for _name in ("Gst", "GstApp", "GstSdp", "GstWebRTC"):
    gi.require_version(_name, "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # noqa: E402

from tests.interop.matrix.stacks.lines import Command, say, say_message, serve  # noqa: E402

PAYLOAD_TYPE = 111
_PIPELINE = f"""webrtcbin name=webrtc bundle-policy=max-bundle
    appsrc name=speech is-live=true do-timestamp=true format=time caps=audio/x-opus,channels=2,channel-mapping-family=0
    ! rtpopuspay pt={PAYLOAD_TYPE} ! application/x-rtp,media=audio,encoding-name=OPUS,payload={PAYLOAD_TYPE},clock-rate=48000 ! webrtc."""
_HEAD = struct.Struct(">HH")


def read_packets(path: Path) -> Iterator[bytes]:
    data, at = path.read_bytes(), 0
    while at < len(data):
        _, length = _HEAD.unpack_from(data, at)
        yield data[at + 4 : at + 4 + length]
        at += 4 + length


def content(kind: str, size: int, fill: int) -> bytes:
    if kind == "text":
        return bytes(ord("a") + (7 * at + fill) % 26 for at in range(size))
    return bytes((31 * at + fill) % 256 for at in range(size))


class Client:
    """One pipeline at a time. GStreamer's signals come on threads of its own."""

    def __init__(self) -> None:
        self.pipeline: Any = None
        self.channels: dict[str, Any] = {}
        self.talking = threading.Event()
        self.wanted: tuple[int, Path] | None = None
        self.heard: list[bytes] = []
        self.opening = ""  # the channel that is being made
        self.agents: list[Any] = []  # kept for ever: the bindings would take the only reference with them

    async def handle(self, command: Command) -> None:
        match command["do"]:
            case "offer":
                await self.offer(command)
            case "answer":
                self.webrtc.emit(
                    "set-remote-description", self.description("answer", command["sdp"]), Gst.Promise.new()
                )
            case "open":
                self.open(command)
            case "send":
                self.send(command)
            case "close":
                self.channels[command["channel"]].emit("close")
            case "listen":
                self.heard, self.wanted = [], (round(command["seconds"] * 50), Path(command["path"]))
            case "hang_up":
                await asyncio.to_thread(self.hang_up)

    async def offer(self, command: Command) -> None:
        await asyncio.to_thread(self.hang_up)
        self.channels = {}
        self.pipeline = Gst.parse_launch(_PIPELINE)
        self.webrtc = webrtc = self.pipeline.get_by_name("webrtc")
        self.agents.append(webrtc.get_property("ice-agent"))
        self.agents[-1].emit("add-local-ip-address", "127.0.0.1")  # which it leaves out otherwise
        call = command["call"]
        webrtc.connect("notify::connection-state", lambda one, _: say("state", call=call, state=state_of(one)))
        webrtc.connect("pad-added", self.listen)
        webrtc.connect("prepare-data-channel", self.prepare)
        self.pipeline.set_state(Gst.State.PLAYING)
        for channel in command["channels"]:
            self.open(channel)
        talking = self.talking = threading.Event()
        speech = self.pipeline.get_by_name("speech")
        threading.Thread(
            target=talk, args=(speech, list(read_packets(Path(command["packets"]))), talking), daemon=True
        ).start()
        reply = await self.ask("create-offer", None)
        offer = reply.get_value("offer")
        await self.ask("set-local-description", offer)
        say("offer", sdp=offer.sdp.as_text())

    async def ask(self, signal: str, *arguments: Any) -> Any:
        promise = Gst.Promise.new()
        self.webrtc.emit(signal, *arguments, promise)
        await asyncio.to_thread(promise.wait)
        return promise.get_reply()

    def description(self, kind: str, sdp: str) -> Any:
        _, message = GstSdp.SDPMessage.new_from_text(sdp)
        return GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, message)

    def open(self, command: Command) -> None:
        options = Gst.Structure.new_empty("options")
        options.set_value("ordered", command.get("ordered", True))
        options.set_value("protocol", command.get("protocol", ""))
        options.set_value("negotiated", command.get("negotiated", False))
        for ours, theirs in (
            ("id", "id"),
            ("max_retransmits", "max-retransmits"),
            ("max_lifetime_ms", "max-packet-lifetime"),
        ):
            if command.get(ours) is not None:
                options.set_value(theirs, command[ours])
        self.opening = name = command["channel"]
        channel = self.webrtc.emit("create-data-channel", command["label"], options)
        assert channel is not None, "webrtcbin makes no such channel"
        self.channels[name] = channel

    def prepare(self, _webrtc: Any, channel: Any, _is_local: bool) -> None:
        """Listen to a channel before anything happens to it."""
        name = self.opening
        channel.connect("on-open", lambda _: say("open", channel=name))
        channel.connect("on-close", lambda _: say("closed", channel=name))
        channel.connect("on-message-string", lambda _, text: say_message(name, text or ""))
        channel.connect("on-message-data", lambda _, data: say_message(name, data.get_data() or b"" if data else b""))

    def send(self, command: Command) -> None:
        channel = self.channels[command["channel"]]
        for number in range(command.get("count", 1)):
            if command.get("text") is not None:
                channel.emit("send-string", command["text"])
                continue
            data = content(command["kind"], command["size"], command.get("fill", 0) + number)
            if command["kind"] == "text":
                channel.emit("send-string", data.decode())
            else:
                channel.emit("send-data", GLib.Bytes.new(data))

    def listen(self, _webrtc: Any, pad: Any) -> None:
        if pad.direction != Gst.PadDirection.SRC:
            return
        sink = Gst.ElementFactory.make("appsink")
        sink.set_property("emit-signals", True)
        sink.set_property("sync", False)
        sink.connect("new-sample", self.hear)
        self.pipeline.add(sink)
        sink.sync_state_with_parent()
        pad.link(sink.get_static_pad("sink"))

    def hear(self, sink: Any) -> Any:
        packet = sink.emit("pull-sample").get_buffer()
        data = packet.extract_dup(0, packet.get_size())
        if self.wanted is not None and data[1] & 0x7F == PAYLOAD_TYPE:
            at = 12 + 4 * (data[0] & 15)
            if data[0] & 0x10:
                at += 4 + 4 * int.from_bytes(data[at + 2 : at + 4], "big")
            self.heard.append(data[2:4] + (len(data) - at).to_bytes(2, "big") + data[at:])
            if len(self.heard) >= self.wanted[0]:
                self.wanted[1].write_bytes(b"".join(self.heard))
                say("audio", form="packets", seconds=len(self.heard) / 50)
                self.wanted = None
        return Gst.FlowReturn.OK

    def hang_up(self) -> None:
        self.talking.set()
        if self.pipeline is not None:
            self.pipeline.set_state(Gst.State.NULL)
            self.pipeline = None


def state_of(webrtc: Any) -> str:
    return str(webrtc.get_property("connection-state").value_nick)


def talk(speech: Any, packets: list[bytes], over: threading.Event) -> None:
    number = 0
    while not over.wait(0.02):
        if speech.emit("push-buffer", Gst.Buffer.new_wrapped(packets[number % len(packets)])) != Gst.FlowReturn.OK:
            return
        number += 1


async def main() -> None:
    Gst.init(None)
    loop = GLib.MainLoop()
    threading.Thread(target=loop.run, daemon=True).start()
    client = Client()
    say("ready", version=".".join(map(str, Gst.version()[:3])))
    await serve(client.handle)
    client.hang_up()


if __name__ == "__main__":
    asyncio.run(main())

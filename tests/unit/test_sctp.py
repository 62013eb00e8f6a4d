"""Data channels over a fake association: stock aiortc on the other side, and everything that it would never send."""

import asyncio
import struct
import types

import pytest
from aiortc.rtcdatachannel import RTCDataChannel, RTCDataChannelParameters
from aiortc.rtcsctptransport import DataChunk, RTCSctpCapabilities, RTCSctpTransport, serialize_packet

from voicefleet_dataplane.core.call.dtls import DTLS_MTU_BYTES
from voicefleet_dataplane.shell.transceiver.data_channels import MAX_CHANNELS, MAX_UNFINISHED_BYTES, DataChannels


class Peer:
    """The client: aiortc's own SCTP on a DTLS transport that is a list."""

    state = "connected"
    _role = "server"

    def __init__(self):
        self.ours = None
        self.sizes = []
        self.sctp = RTCSctpTransport(self, 5000)
        self.to_us = []

    def _register_data_receiver(self, receiver):
        pass

    def _unregister_data_receiver(self, receiver):
        pass

    async def _send_data(self, data):
        if self.ours is None:
            self.to_us.append(data)
        else:
            self.ours.receive(data)

    def open(self, label="x"):
        channel = RTCDataChannel(self.sctp, RTCDataChannelParameters(label=label))
        channel.opened = asyncio.Event()
        channel.got = asyncio.Queue()
        channel.on("open", channel.opened.set)
        channel.on("message", channel.got.put_nowait)
        return channel


class OurSession:
    """What DataChannels uses of a session."""

    we_are_client = True
    agreed = types.SimpleNamespace(call_id="call_x", max_message_bytes=65_536, sctp_port=5000)

    def __init__(self, peer):
        self.peer = peer
        self.active = 0

    def send_sctp(self, packet, now):
        self.peer.sizes.append(len(packet))
        # On another turn of the loop, as over a network.
        asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(self.peer.sctp._handle_data(packet)))
        return True

    def note_message(self, now):
        self.active += 1
        return True


class Echoing:
    def __init__(self):
        self.channels = []
        self.messages = []

    def on_channel(self, channel):
        self.channels.append(channel)

    def on_data(self, channel, message):
        self.messages.append(message)
        channel.send(message)


@pytest.fixture
async def pair():
    peer = Peer()
    session = OurSession(peer)
    listener = Echoing()
    await peer.sctp.start(RTCSctpCapabilities(maxMessageSize=65_536), 5000)
    peer.ours = DataChannels(session, listener, lambda: None)
    for packet in peer.to_us:
        peer.ours.receive(packet)
    yield peer, listener, session
    peer.ours.close()
    await peer.sctp.stop()
    await asyncio.sleep(0)


async def test_messages_of_any_size_come_back_within_the_inner_path(pair):
    peer, _, session = pair
    channel = peer.open()
    await asyncio.wait_for(channel.opened.wait(), 5)
    for message in ("", "text", b"", b"bytes", "long" * 10_000):
        channel.send(message)
        assert await asyncio.wait_for(channel.got.get(), 5) == message
    assert session.active == 5
    # 37 bytes are the DTLS record around it.
    assert max(peer.sizes) + 37 <= DTLS_MTU_BYTES


async def test_garbage_and_what_aiortc_asserts_against_end_nothing(pair):
    peer, listener, _ = pair
    channel = peer.open()
    await asyncio.wait_for(channel.opened.wait(), 5)
    tag = peer.ours._association._local_verification_tag
    twice_the_open = DataChunk(flags=3)
    twice_the_open.tsn = (peer.ours._association._last_received_tsn + 1) % (1 << 32)
    twice_the_open.stream_id, twice_the_open.stream_seq, twice_the_open.protocol = channel.id, 1, 50
    twice_the_open.user_data = struct.pack("!BBHLHH", 3, 0, 0, 0, 0, 0)
    for packet in (
        b"",
        b"x" * 11,
        bytes(12),
        b"\xff" * 200,
        serialize_packet(5000, 5000, tag, twice_the_open),
    ):
        peer.ours.receive(packet)
    peer.sctp._local_tsn = (peer.sctp._local_tsn + 1) % (1 << 32)
    peer.sctp._outbound_stream_seq[channel.id] = 2
    channel.send("still here")
    assert await asyncio.wait_for(channel.got.get(), 10) == "still here"
    assert len(listener.channels) == 1


async def test_channels_beyond_the_limit_are_closed(pair):
    peer, listener, _ = pair
    channels = [peer.open(str(index)) for index in range(MAX_CHANNELS + 3)]
    closed = asyncio.Event()
    for channel in channels[MAX_CHANNELS:]:
        channel.on("close", closed.set)
    await asyncio.wait_for(closed.wait(), 10)
    assert len(listener.channels) == MAX_CHANNELS


async def test_a_message_without_end_costs_the_association_and_no_more(pair):
    peer, _, _ = pair
    channel = peer.open()
    await asyncio.wait_for(channel.opened.wait(), 5)
    association = peer.ours._association
    tag, tsn = association._local_verification_tag, association._last_received_tsn
    part = bytes(16_000)
    for _ in range(2 * (MAX_UNFINISHED_BYTES + (1 << 20)) // len(part)):
        tsn = (tsn + 1) % (1 << 32)
        chunk = DataChunk(flags=0)  # neither first nor last
        chunk.tsn, chunk.stream_id, chunk.stream_seq, chunk.protocol, chunk.user_data = tsn, channel.id, 5, 53, part
        peer.ours.receive(serialize_packet(5000, 5000, tag, chunk))
    assert peer.ours._side.state == "closed"
    kept = sum(len(c.user_data) for stream in association._inbound_streams.values() for c in stream.reassembly)
    assert kept <= MAX_UNFINISHED_BYTES + (1 << 20) + len(part)


async def test_sending_on_a_closed_channel_says_so(pair):
    peer, listener, _ = pair
    channel = peer.open()
    await asyncio.wait_for(channel.opened.wait(), 5)
    peer.ours.close()
    assert listener.channels[0].send("late") is False

"""Data channels of a call: stock aiortc on the other side, and what it would never send."""

import asyncio
import logging
import struct
import types

import pytest
from aiortc.rtcdatachannel import RTCDataChannel, RTCDataChannelParameters
from aiortc.rtcsctptransport import (
    DataChunk,
    RTCSctpCapabilities,
    RTCSctpTransport,
    ShutdownChunk,
    serialize_packet,
)

from voicefleet_contract.drops import DropReason
from voicefleet_dataplane.core.call.dtls import DTLS_MTU_BYTES
from voicefleet_dataplane.core.call.sctp.channels import MAX_CHANNELS
from voicefleet_dataplane.shell.transceiver.data_channels import DataChannels


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

    def open(self, label="x", **parameters):
        channel = RTCDataChannel(self.sctp, RTCDataChannelParameters(label=label, **parameters))
        channel.opened = asyncio.Event()
        channel.closed = asyncio.Event()
        channel.got = asyncio.Queue()
        channel.on("open", channel.opened.set)
        channel.on("close", channel.closed.set)
        channel.on("message", channel.got.put_nowait)
        if channel.readyState == "open":
            channel.opened.set()
        return channel


class OurSession:
    """What DataChannels uses of a session."""

    we_are_client = True
    agreed = types.SimpleNamespace(call_id="call_x", max_message_bytes=262_144, sctp_port=5000)

    def __init__(self, peer):
        self.peer = peer
        self.active = 0
        self.patience = 1 << 30  # messages until it is spent

    def send_sctp(self, packet, now):
        self.peer.sizes.append(len(packet))
        # On another turn of the loop, as over a network.
        asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(self.peer.sctp._handle_data(packet)))
        return True

    def may_hear_message(self, now):
        return self.active < self.patience

    def note_message(self, now):
        self.active += 1


class Echoing:
    left = 0

    def __init__(self):
        self.channels = []
        self.messages = []

    def on_channel(self, channel):
        self.channels.append(channel)

    def on_data(self, channel, message):
        self.messages.append(message)
        channel.send(message)

    def on_client_left(self):
        self.left += 1


@pytest.fixture
async def pair():
    peer = Peer()
    session = OurSession(peer)
    listener = Echoing()
    await peer.sctp.start(RTCSctpCapabilities(maxMessageSize=262_144), 5000)
    peer.ours = DataChannels(session, listener, lambda: None)
    for packet in peer.to_us:
        peer.ours.receive(packet)
    yield peer, listener, session
    peer.ours.close()
    await peer.sctp.stop()
    await asyncio.sleep(0)


async def opened(peer, label="x", **parameters):
    channel = peer.open(label, **parameters)
    await asyncio.wait_for(channel.opened.wait(), 5)
    return channel


async def test_messages_of_any_size_come_back_within_the_inner_path(pair):
    peer, _, session = pair
    channel = await opened(peer)
    for message in ("", "text", b"", b"bytes", "long" * 10_000, b"x" * 262_144):
        channel.send(message)
        assert await asyncio.wait_for(channel.got.get(), 20) == message
    assert session.active == 6
    # 37 bytes are the DTLS record around it.
    assert max(peer.sizes) + 37 <= DTLS_MTU_BYTES


@pytest.mark.parametrize("parameters", [{}, {"ordered": False}, {"maxRetransmits": 3}, {"maxPacketLifeTime": 5_000}])
async def test_five_hundred_small_messages_come_back(pair, parameters):
    peer, _, _ = pair
    channel = await opened(peer, **parameters)
    sent = [f"{number}" for number in range(500)]
    for message in sent:
        channel.send(message)
    got = [await asyncio.wait_for(channel.got.get(), 10) for _ in sent]
    assert (got if parameters.get("ordered", True) else sorted(got, key=int)) == sent


async def test_a_channel_that_the_application_knows_beforehand_is_served(pair):
    peer, listener, _ = pair
    channel = await opened(peer, negotiated=True, id=6)
    channel.send("hello")
    assert await asyncio.wait_for(channel.got.get(), 5) == "hello"
    assert [one.label for one in listener.channels] == [""]


async def test_sixty_four_channels_serve_and_more_are_closed(pair):
    peer, listener, _ = pair
    channels = [peer.open(str(index)) for index in range(MAX_CHANNELS + 3)]
    await asyncio.gather(*(asyncio.wait_for(one.closed.wait(), 10) for one in channels[MAX_CHANNELS:]))
    assert len(listener.channels) == MAX_CHANNELS
    for channel in channels[:MAX_CHANNELS]:
        channel.send(channel.label)
    for channel in channels[:MAX_CHANNELS]:
        assert await asyncio.wait_for(channel.got.get(), 5) == channel.label


async def test_a_channel_that_the_client_closes_is_closed_and_its_place_is_free(pair):
    peer, listener, _ = pair
    for round_ in range(3):
        channels = [await opened(peer, str(index)) for index in range(MAX_CHANNELS)]
        for channel in channels:
            channel.close()
        await asyncio.gather(*(asyncio.wait_for(one.closed.wait(), 10) for one in channels))
        assert len(listener.channels) == (round_ + 1) * MAX_CHANNELS
    assert listener.channels[0].send("late") is False


async def test_garbage_and_what_breaks_the_rules_end_nothing(pair):
    peer, listener, _ = pair
    channel = await opened(peer)
    tag = peer.sctp._remote_verification_tag
    twice_the_open = DataChunk(flags=3)
    twice_the_open.tsn = peer.sctp._local_tsn
    twice_the_open.stream_id, twice_the_open.stream_seq, twice_the_open.protocol = channel.id, 1, 50
    twice_the_open.user_data = struct.pack("!BBHLHH", 3, 0, 0, 0, 0, 0)
    for packet, reason in (
        (b"", DropReason.SCTP_MALFORMED),
        (b"x" * 11, DropReason.SCTP_MALFORMED),
        (bytes(12), DropReason.SCTP_MALFORMED),
        (b"\xff" * 200, DropReason.SCTP_MALFORMED),
        (serialize_packet(5000, 5000, tag ^ 1, twice_the_open), DropReason.SCTP_WRONG_TAG),
        (serialize_packet(5000, 5000, tag, twice_the_open), None),
    ):
        assert peer.ours.receive(packet) is reason
    peer.sctp._local_tsn = (peer.sctp._local_tsn + 1) % (1 << 32)
    peer.sctp._outbound_stream_seq[channel.id] = 2
    channel.send("still here")
    assert await asyncio.wait_for(channel.got.get(), 10) == "still here"
    assert len(listener.channels) == 1


async def test_a_client_that_says_too_much_is_made_to_wait(pair):
    peer, _, session = pair
    channel = await opened(peer)
    session.patience = session.active + 3
    for number in range(10):
        channel.send(f"{number}")
    assert [await asyncio.wait_for(channel.got.get(), 5) for _ in range(3)] == ["0", "1", "2"]
    assert session.active == session.patience
    session.patience += 100
    assert [await asyncio.wait_for(channel.got.get(), 5) for _ in range(7)] == [str(number) for number in range(3, 10)]


async def test_what_is_too_long_for_the_client_is_refused_with_both_numbers(pair, caplog):
    peer, listener, _ = pair
    await opened(peer)
    caplog.set_level(logging.INFO)
    assert listener.channels[0].takes_bytes == 262_144
    assert listener.channels[0].send(b"x" * 262_145) is False
    assert "262145" in caplog.text
    assert "262144" in caplog.text


async def test_sending_on_a_closed_channel_says_so(pair):
    peer, listener, _ = pair
    channel = await opened(peer)
    peer.ours.close()
    assert listener.channels[0].send("late") is False
    await asyncio.wait_for(channel.closed.wait(), 5)


async def test_a_client_that_shuts_the_association_down_has_left(pair):
    peer, listener, _ = pair
    channel = await opened(peer)
    channel.send("bye")
    assert await asyncio.wait_for(channel.got.get(), 5) == "bye"
    shutdown = ShutdownChunk()
    shutdown.cumulative_tsn = peer.sctp._last_received_tsn
    await peer.sctp._send_chunk(shutdown)
    assert listener.messages == ["bye"]
    assert listener.left == 1

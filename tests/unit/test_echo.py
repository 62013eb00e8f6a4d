"""The Echo backend's numbering."""

from voicefleet_dataplane.media.echo import Echo
from voicefleet_dataplane.wire.rtp import RtpPacket


class Sent:
    call_id = "call_x"

    def __init__(self):
        self.packets = []

    def send_audio(self, payload, sequence, timestamp, *, marker=False):
        self.packets.append((payload, sequence, timestamp, marker))
        return True

    def hang_up(self):
        raise AssertionError


class Channel:
    label = "x"

    def __init__(self):
        self.sent = []

    def send(self, message):
        self.sent.append(message)
        return True


def audio(sequence, timestamp, ssrc=1, payload=b"p", *, marker=False):
    return RtpPacket(marker, 111, sequence, timestamp, ssrc, payload)


def echo_of(*packets):
    sent = Sent()
    echo = Echo(sent)
    for packet in packets:
        echo.on_audio(packet)
    return [packet[1:3] for packet in sent.packets]


def test_numbers_begin_at_nothing_and_keep_the_clients_steps():
    assert echo_of(audio(65_535, 0xFFFFFFFF), audio(0, 959), audio(1, 1_919)) == [(0, 0), (1, 960), (2, 1_920)]


def test_a_gap_and_a_late_packet_stay_visible():
    assert echo_of(audio(10, 0), audio(12, 1_920), audio(11, 960)) == [(0, 0), (2, 1_920), (1, 960)]


def test_another_ssrc_goes_on_where_the_first_one_was():
    numbers = echo_of(audio(10, 0), audio(11, 960), audio(500, 77, ssrc=2), audio(501, 1_037, ssrc=2))
    assert numbers == [(0, 0), (1, 960), (2, 1_920), (3, 2_880)]


def test_marker_and_payload_come_back():
    sent = Sent()
    Echo(sent).on_audio(audio(1, 1, payload=b"word", marker=True))
    assert sent.packets == [(b"word", 0, 0, True)]


def test_messages_come_back_in_their_kind():
    channel = Channel()
    echo = Echo(Sent())
    echo.on_data(channel, "text")
    echo.on_data(channel, b"bytes")
    assert channel.sent == ["text", b"bytes"]

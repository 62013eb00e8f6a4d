"""What an audio section says of codecs and header extensions: Opus, keypads, MID (RFC 7587, 4733, 8285).

Owns which payload types we take and what the client wishes to receive. Does not own which section is taken
(wire/sdp/offer.py) or what we answer (wire/sdp/answer.py).
"""

import re

from voicefleet_dataplane.wire.sdp.lines import Attributes, malformed
from voicefleet_dataplane.wire.sdp.model import OpusWishes

MID_EXTENSION = "urn:ietf:params:rtp-hdrext:sdes:mid"
_NUMBER = re.compile(r"[0-9]{1,9}")
_RTPMAP = re.compile(r"[0-9]{1,3} [A-Za-z0-9.+_\-]{1,64}/[0-9]{1,9}(/[A-Za-z0-9.+_\-]{1,64})?")
_PACKET_MS = (60, 40, 20, 10)
_MAX_PARAMETERS = 64


def first_rtpmap(section: Attributes) -> str:
    """The value of the rtpmap of its first format that has one; empty if none has."""
    maps = {head: f"{head} {rest}" for head, rest in section.by_format("rtpmap")}
    for name in section.formats.split():
        if _RTPMAP.fullmatch(maps.get(name, "")):
            return maps[name]
    return ""


def find_opus(section: Attributes) -> int | None:
    """The payload type of opus/48000/2, the first that the client lists. Raises SdpError."""
    offered = {head: rest.lower() for head, rest in section.by_format("rtpmap")}
    for name in section.formats.split():
        if offered.get(name) == "opus/48000/2":
            number = _payload_type(name)
            if number is None:
                raise malformed(
                    "a=rtpmap",
                    f"{section.where}: the payload type of opus is not a number up to 127",
                    rule="RFC 8866 section 6.6",
                    instead="send for instance a=rtpmap:111 opus/48000/2",
                )
            return number
    return None


def _payload_type(name: str) -> int | None:
    return int(name) if re.fullmatch(r"[0-9]{1,3}", name) and int(name) < 128 else None


def find_telephone_event(section: Attributes, taken: int) -> tuple[int | None, int]:
    """(Payload type, clock of durations in Hz): the one on the clock of Opus, else the one at 8 kHz (RFC 4733 section 2.1)."""
    formats = frozenset(section.formats.split())
    for hz in (48_000, 8_000):
        for name, encoding in section.by_format("rtpmap"):
            if encoding.lower() not in (f"telephone-event/{hz}", f"telephone-event/{hz}/1"):
                continue
            number = _payload_type(name)
            if number is not None and number != taken and name in formats:
                return number, hz
    return None, 48_000


def read_wishes(session: Attributes, section: Attributes, payload_type: int) -> OpusWishes:
    """What the client would like to receive; what it says wrongly it has not said."""
    fmtp = next((rest for head, rest in section.by_format("fmtp") if head == str(payload_type)), "")
    said: dict[str, str] = {}
    for parameter in fmtp.split(";")[:_MAX_PARAMETERS]:
        name, _, value = parameter.partition("=")
        said.setdefault(name.strip().lower(), value.strip())

    def number(name: str) -> int | None:
        return int(said[name]) if _NUMBER.fullmatch(said.get(name, "")) else None

    bitrate = number("maxaveragebitrate")
    return OpusWishes(
        dtx=said.get("usedtx") == "1",
        cbr=said.get("cbr") == "1",
        inband_fec=said.get("useinbandfec") == "1",
        max_bitrate=None if bitrate is None else max(6_000, min(510_000, bitrate)),
        max_playback_hz=number("maxplaybackrate") or 48_000,
        packet_ms=_packet_ms(_ms(session, section, "ptime"), _ms(session, section, "maxptime")),
    )


def _packet_ms(preferred: int | None, most: int | None) -> int:
    wanted = min(preferred or 20, most or 120)
    return next((ms for ms in _PACKET_MS if ms <= wanted), _PACKET_MS[-1])


def _ms(session: Attributes, section: Attributes, name: str) -> int | None:
    value = section.first(name) or session.first(name) or ""
    return int(value) or None if re.fullmatch(r"[0-9]{1,4}", value) else None


def find_mid_extension(session: Attributes, section: Attributes) -> tuple[int | None, str]:
    """(Id, direction as the client wrote it) of the extension that it would read; (None, "") without one.

    The one-byte form has ids 1 to 14 (RFC 8285 section 4.2); others would need the two-byte form, which we do not send.
    """
    for value in (*section.all("extmap"), *session.all("extmap")):
        head, _, rest = value.partition(" ")
        number, _, direction = head.partition("/")
        if rest.split()[:1] != [MID_EXTENSION] or direction not in ("", "sendrecv", "recvonly"):
            continue
        if re.fullmatch(r"[0-9]{1,2}", number) and 1 <= int(number) <= 14:
            return int(number), direction
    return None, ""

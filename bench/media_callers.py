"""Callers of bench/media.py: they connect to a server of either kind over a socket of their own, and send recorded speech."""

import asyncio
import re
import secrets
import socket
import time

from tests.support.dtls import make_identity
from tests.support.offers import CHROMIUM, DIGEST
from voicefleet_dataplane.core.call.dtls import Dtls
from voicefleet_dataplane.core.call.srtp import PROFILES, Srtp
from voicefleet_dataplane.wire.demux import Kind, classify
from voicefleet_dataplane.wire.rtp import RtpPacket, build_rtp
from voicefleet_dataplane.wire.sdp.model import Fingerprint, SetupRole
from voicefleet_dataplane.wire.sdp.offer import parse_offer_untrusted
from voicefleet_dataplane.wire.stun import build_binding_request

HOST = "127.0.0.1"
PACKET_S = 0.02
SSRC = int(re.search(r"a=ssrc:(\d+)", CHROMIUM)[1])  # Pion hears no other


class Caller:
    """One client on a socket of its own."""

    def __init__(self, server: tuple[str, int]) -> None:
        self.identity = make_identity(PROFILES)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((HOST, 0))
        self.socket.connect(server)
        self.socket.setblocking(False)
        self.srtp: Srtp | None = None
        self.connected = asyncio.Event()
        self.sequence = 0
        self.received = 0

    def offer(self) -> str:
        return CHROMIUM.replace(DIGEST, self.identity.fingerprint.digest.hex(":").upper())

    def start(self, answer: str) -> None:
        described = parse_offer_untrusted(answer.replace("a=ice-lite\r\n", ""))
        fingerprint: Fingerprint = described.fingerprints[0]
        self.ufrag, self.pwd = described.ice_ufrag, described.ice_pwd
        we_are_client = described.setup is SetupRole.PASSIVE
        self.dtls = Dtls(self.identity, [fingerprint], we_are_client=we_are_client, asks_for_cookie=False)
        asyncio.get_running_loop().add_reader(self.socket.fileno(), self.read)
        self.check()

    def check(self) -> None:
        request = build_binding_request(
            secrets.token_bytes(12), f"{self.ufrag}:aB3+", self.pwd.encode(), use_candidate=True
        )
        self.socket.send(request)

    def read(self) -> None:
        now = time.monotonic()
        while True:
            try:
                datagram = self.socket.recv(2048)
            except BlockingIOError:
                break
            kind = classify(datagram)
            if kind is Kind.RTP:
                clear = self.srtp.unprotect_untrusted(datagram) if self.srtp is not None else None
                if clear is not None:
                    self.received += 1
            elif kind is Kind.STUN:
                self.dtls.start(now) if self.dtls._we_are_client else None
            elif kind is Kind.DTLS:
                self.dtls.receive_untrusted(datagram, now)
                if self.srtp is None and self.dtls.keys is not None:
                    self.srtp = Srtp(self.dtls.keys)
                    self.connected.set()
        for datagram in self.dtls.poll():
            self.socket.send(datagram)


class SpeakingCaller(Caller):
    """Sends recorded speech, and remembers when the first packet came back after it fell silent."""

    def __init__(self, server: tuple[str, int], packets: list[bytes]) -> None:
        super().__init__(server)
        self.packets = packets
        self.heard = asyncio.Event()
        self.first_at: float | None = None
        self.listening = False

    def offer(self) -> str:
        """Pion wants an rtpmap for each payload type that is offered."""
        return super().offer().replace(" 111 63 9 0 8 13 110 126", " 111 110")

    def read(self) -> None:
        before = self.received
        super().read()
        if self.listening and self.received > before and self.first_at is None:
            self.first_at = time.monotonic()
            self.heard.set()

    def say(self, number: int) -> None:
        assert self.srtp is not None
        payload = self.packets[number % len(self.packets)]
        self.sequence += 1
        packet = RtpPacket(False, 111, self.sequence & 0xFFFF, self.sequence * 960 & 0xFFFFFFFF, SSRC, payload)
        protected = self.srtp.protect(build_rtp(packet))
        assert protected is not None
        self.socket.send(protected)

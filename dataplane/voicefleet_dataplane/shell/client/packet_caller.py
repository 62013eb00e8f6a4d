"""A WebRTC client at packet level: what `voicefleet call` runs, one object a call, no codec while it runs.

POST the offer, check the path (controlling agent, aggressive nomination of the one advertised candidate), DTLS, SRTP, 50
Opus packets a second, consent checks; then hang up. Marks when each stage was reached.
"""

import asyncio
import contextlib
import datetime as dt
import secrets
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx
from cryptography.hazmat.primitives.asymmetric import ec

from voicefleet_contract.addresses import Address, from_kernel
from voicefleet_contract.http_api import MAX_EVENT_BYTES
from voicefleet_contract.outside import parse_json
from voicefleet_dataplane.core.call.dtls import Dtls, DtlsState
from voicefleet_dataplane.core.call.dtls_identity import DtlsIdentity, build_certificate
from voicefleet_dataplane.core.call.srtp import Srtp
from voicefleet_dataplane.core.call.streams import CLOCK_RATE, ReceiveStream
from voicefleet_dataplane.media.speech import Samples
from voicefleet_dataplane.shell.client.trouble import NO_TROUBLE, Trouble
from voicefleet_dataplane.wire.demux import Kind, classify
from voicefleet_dataplane.wire.opus import FRAME_TICKS
from voicefleet_dataplane.wire.rtp import RtpPacket, build_rtp, parse_rtp
from voicefleet_dataplane.wire.sdp.client import (
    OPUS_PAYLOAD_TYPE,
    AnswerError,
    ClientAnswer,
    build_offer,
    parse_answer_untrusted,
)
from voicefleet_dataplane.wire.stun import (
    StunError,
    build_binding_request,
    build_binding_success,
    is_response,
    parse_binding_request,
    parse_binding_response,
    verify_integrity,
)

FRAME_S = 0.02
_LONGEST_TICKS = 3_600 * 48_000  # a call ends before; and what came before the first packet has no place
_CHECK_S = (0.05, 2.0)  # until the path is known; afterwards, for consent and round trips
SETUP_TIMEOUT_S = 15.0
TAIL_S = 0.5  # what is still under way when we fall silent


class CallError(RuntimeError):
    """The call failed; the text says where, and what the server said."""


@dataclass(slots=True)
class CallResult:
    """One call. Times in ms since the POST began; ``loss`` is the fraction of sent packets that never came back."""

    call_id: str = ""
    ufrag: str = ""
    ingress: str = ""
    error: str = ""
    timeline_ms: dict[str, float] = field(default_factory=dict)
    rtt_ms: float | None = None
    jitter_ms: float | None = None
    sent: int = 0
    received: int = 0
    gaps_over_100_ms: int = 0
    heard_again_s: float | None = None  # after the rebinding, if there was one
    silent_s: float = 0.0  # since the last packet that came, when we had said everything
    heard: dict[int, bytes] = field(default_factory=dict)  # Opus packets by frame number
    samples: list[Samples] | None = None  # instead of packets, from a client that decodes by itself

    @property
    def returned(self) -> int:
        """How many packets came back, each counted once where the client lets us see them."""
        return len(self.heard) if self.samples is None else min(self.received, self.sent)

    @property
    def loss(self) -> float | None:
        """The fraction lost on the way there and back."""
        return None if not self.sent else max(0.0, 1 - self.returned / self.sent)


def make_identity() -> DtlsIdentity:
    """Make the certificate that all calls of a process share."""
    key = ec.generate_private_key(ec.SECP256R1())
    return DtlsIdentity(key, build_certificate(key, 1 + secrets.randbits(64), dt.datetime.now(dt.UTC)))


class Caller:
    """One call."""

    def __init__(
        self, http: httpx.AsyncClient, identity: DtlsIdentity, packets: Sequence[bytes], trouble: Trouble = NO_TROUBLE
    ) -> None:
        self._http, self._identity, self._packets, self._trouble = http, identity, packets, trouble
        self._rebound_at: float | None = None
        self.client_ufrag = secrets.token_hex(4)
        self._ssrc = secrets.randbits(32) | 1
        self._srtp: Srtp | None = None
        self._stream: ReceiveStream | None = None
        self._checks: dict[bytes, float] = {}
        self._round_trips: list[float] = []
        self._first_timestamp = 0
        self._last_heard = 0.0
        self._media = asyncio.Event()
        self._hung_up = self._gave_up = False
        self._password = secrets.token_hex(16)
        # What an attacker of the tests has, or learns: the STUN check sent last, the answer, and from where we speak.
        self.last_check = b""
        self.answer: ClientAnswer
        self.address: Address | None = None
        self.result = CallResult()

    async def run(self, url: str, headers: dict[str, str]) -> CallResult:
        """Place the call, send every packet, hang up. Never raises but for cancellation: see ``result.error``."""
        location = ""
        try:
            location = await self._signal(url, headers)
            await self._talk()
        except TimeoutError:
            self.result.error = f"no media within {SETUP_TIMEOUT_S:g} s; reached: {', '.join(self.result.timeline_ms)}"
        except httpx.HTTPError as error:
            self.result.error = not_reached(url, error)
        except (CallError, AnswerError, OSError) as error:
            self.result.error = str(error) or type(error).__name__
        finally:
            await hang_up(self._http, url, headers, location)
        return self.result

    def give_up(self) -> None:
        """Say no more; `run` then hangs up and returns."""
        self._gave_up = True

    async def _signal(self, url: str, headers: dict[str, str]) -> str:
        offer = build_offer(
            secrets.randbits(62), self.client_ufrag, self._password, self._identity.fingerprint, self._ssrc
        )
        self._began = time.monotonic()
        location, text = await post_offer(self._http, url, headers, offer)
        self._mark("answer")
        self.result.call_id = location.rsplit("/", 1)[-1]
        self.answer = parse_answer_untrusted(text)
        self.result.ufrag = self.answer.ufrag
        return location

    async def _talk(self) -> None:
        target = self.answer.candidates[0]
        self.result.ingress = str(target)
        self._dtls = Dtls(
            self._identity,
            [self.answer.fingerprint],
            we_are_client=self.answer.we_are_dtls_client,
            asks_for_cookie=False,
        )
        self._open_socket(target)
        checks = asyncio.create_task(self._keep_consent())
        try:
            await asyncio.wait_for(self._media.wait(), SETUP_TIMEOUT_S)
            await self._speak()
            self.result.silent_s = round(time.monotonic() - self._last_heard, 3) if self._last_heard else 0.0
            await asyncio.sleep(TAIL_S)
            self._dtls.close()
            self._flush()
        finally:
            checks.cancel()
            self._close_socket()
        if self._round_trips:
            self.result.rtt_ms = sorted(self._round_trips)[len(self._round_trips) // 2] * 1e3
        if self._stream is not None:
            self.result.jitter_ms = self._stream.jitter / CLOCK_RATE * 1e3

    def _open_socket(self, target: Address) -> None:
        family = socket.AF_INET6 if ":" in target.host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.connect(target)
        self.address = from_kernel(self._socket.getsockname())
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def _close_socket(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _rebind(self) -> None:
        """Go on from another port, as behind a NAT that has forgotten us: what is sent to the old one is lost."""
        before = self._socket
        asyncio.get_running_loop().remove_reader(before)
        self._open_socket(self.answer.candidates[0])  # first, or it could have the same port again
        before.close()
        self._rebound_at = time.monotonic()

    async def _speak(self) -> None:
        """Send on a clock of our own: a late wake-up is caught up, not passed on."""
        assert self._srtp is not None
        loop = asyncio.get_running_loop()
        start = loop.time()
        for number, payload in enumerate(self._packets):
            if self._gave_up:
                return
            if self._hung_up:
                raise CallError("the other side ended the call")
            rebind_after_s = self._trouble.rebind_after_s
            if rebind_after_s and self._rebound_at is None and loop.time() >= start + rebind_after_s:
                self._rebind()
            packet = RtpPacket(
                number == 0, OPUS_PAYLOAD_TYPE, number & 0xFFFF, number * FRAME_TICKS & 0xFFFFFFFF, self._ssrc, payload
            )
            protected = None if self._trouble.mutes else self._srtp.protect(build_rtp(packet))
            if protected is not None:
                self._send(protected)
                self.result.sent += 1
            await asyncio.sleep(max(0.0, start + (number + 1) * FRAME_S - loop.time()))

    async def _keep_consent(self) -> None:
        while True:
            is_connected = "dtls" in self.result.timeline_ms
            if self._trouble.checks or not is_connected:
                self._check(nominates=not (is_connected and self._trouble.rebind_after_s))
            await asyncio.sleep(_CHECK_S["stun" in self.result.timeline_ms])
            if "dtls" not in self.result.timeline_ms and "stun" in self.result.timeline_ms:
                self._dtls.advance(time.monotonic())
                self._flush()

    def _check(self, *, nominates: bool) -> None:
        transaction = secrets.token_bytes(12)
        self._checks[transaction] = time.monotonic()
        username = f"{self.answer.ufrag}:{self.client_ufrag}"
        password = self.answer.password.encode()
        self.last_check = build_binding_request(transaction, username, password, use_candidate=nominates)
        self._send(self.last_check)

    def _read(self) -> None:
        while True:
            try:
                datagram = self._socket.recv(2048)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error: the relay may be restarting
            now = time.monotonic()
            kind = classify(datagram)
            if kind is Kind.RTP:
                self._on_rtp(datagram, now)
            elif kind is Kind.STUN:
                self._on_stun(datagram, now)
            elif kind is Kind.DTLS:
                self._on_dtls(datagram, now)

    def _on_stun(self, datagram: bytes, now: float) -> None:
        if not is_response(datagram):
            self._answer_check(datagram)
            return
        try:
            response = parse_binding_response(datagram)
        except StunError:
            return
        sent_at = self._checks.pop(response.transaction_id, None)
        if sent_at is None or not verify_integrity(response, self.answer.password.encode()):
            return
        if response.error_code is not None:
            return
        self._round_trips.append(now - sent_at)
        self._mark("stun")
        if self.answer.we_are_dtls_client:
            self._dtls.start(now)
            self._flush()

    def _on_dtls(self, datagram: bytes, now: float) -> None:
        self._dtls.receive_untrusted(datagram, now)
        if self._srtp is None and self._dtls.keys is not None:
            self._srtp = Srtp(self._dtls.keys)
            self._mark("dtls")
            self._media.set()
        self._hung_up = self._dtls.state is DtlsState.CLOSED
        self._flush()

    def _on_rtp(self, datagram: bytes, now: float) -> None:
        clear = self._srtp.unprotect_untrusted(datagram) if self._srtp is not None else None
        packet = parse_rtp(clear) if clear is not None else None
        if packet is None:
            return
        self._mark("audio")
        if self._stream is None or self._stream.ssrc != packet.ssrc:
            self._stream = ReceiveStream(packet.ssrc, packet.sequence, packet.timestamp, now)
            self._first_timestamp = packet.timestamp
        elif now - self._last_heard > 0.1:
            self.result.gaps_over_100_ms += 1
        self._last_heard = now
        if self._rebound_at is not None and self.result.heard_again_s is None:
            self.result.heard_again_s = round(now - self._rebound_at, 3)
        self._stream.note(packet.sequence, packet.timestamp, now)
        self.result.received += 1
        # By time and not by number: who is silent may send nothing, and numbers then go on without a hole.
        ticks = (packet.timestamp - self._first_timestamp) & 0xFFFFFFFF
        if ticks < _LONGEST_TICKS:
            self.result.heard[ticks // FRAME_TICKS] = packet.payload

    def _mark(self, stage: str) -> None:
        self.result.timeline_ms.setdefault(stage, round((time.monotonic() - self._began) * 1e3, 2))

    def _answer_check(self, datagram: bytes) -> None:
        """The server asks whether we get what it sends here."""
        key = self._password.encode()
        try:
            request = parse_binding_request(datagram)
        except StunError:
            return
        if verify_integrity(request, key) and self.address is not None:
            self._send(build_binding_success(request.transaction_id, self.address, key))

    def _flush(self) -> None:
        for datagram in self._dtls.poll():
            self._send(datagram)

    def _send(self, datagram: bytes) -> None:
        with contextlib.suppress(OSError):  # lost, as on any network
            try:
                self._socket.send(datagram)
            except ConnectionRefusedError:  # told of an earlier one (ICMP), instead of sending this one
                self._socket.send(datagram)


async def post_offer(http: httpx.AsyncClient, url: str, headers: dict[str, str], offer: str) -> tuple[str, str]:
    """Return the call's location and the answer. Raises CallError with what the gateway said, httpx.HTTPError."""
    response = await http.post(url, content=offer, headers=headers | {"Content-Type": "application/sdp"})
    if response.status_code != httpx.codes.CREATED:
        raise CallError(f"the gateway refused the call: {response.status_code} {_said(response)}")
    return str(response.headers.get("Location", "")), response.text


async def hang_up(http: httpx.AsyncClient, url: str, headers: dict[str, str], location: str) -> None:
    """Tell the gateway that the call is over, as far as it can be reached."""
    if location:
        with contextlib.suppress(httpx.HTTPError):
            await http.post(str(httpx.URL(url).join(location)) + "/hangup", headers=headers)


def not_reached(url: str, error: httpx.HTTPError) -> str:
    """Return what a person should read when HTTP failed."""
    said = str(error) or type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return f"the certificate of {url} is not trusted: name its CA with --cacert, or trust anybody with --insecure"
    if isinstance(error, httpx.RemoteProtocolError) and url.startswith("http://"):
        said += " Is it an https:// URL?"
    return f"{url} cannot be reached: {said}"


def _said(response: httpx.Response) -> str:
    try:
        return str(parse_json(response.content, MAX_EVENT_BYTES)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return response.text[:200] or response.reason_phrase

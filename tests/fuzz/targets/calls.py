"""A relay and two transceivers under authenticated nonsense: who has a call, and its keys, sends valid packets that say anything.

Beside the attacker's call is a victim's, on the same transceiver, behind the same relay. Whatever the attacker does in its own
name, from its own address: no exception, one counter for each packet that is not taken, and the victim speaks and is heard.
"""

import contextlib
import struct

from tests.fuzz.target import Script, Target
from tests.support.offers import CHROMIUM, DIGEST
from tests.support.relayed_calls import ATTACKER, Fleet
from tests.support.transceiver import CLIENT, RELAY, Recorder
from voicefleet_contract.addresses import Address
from voicefleet_contract.announcement import encode_announcement
from voicefleet_contract.drops import DropReason
from voicefleet_contract.spp import encode_spp
from voicefleet_dataplane.core.call.model import SessionState
from voicefleet_dataplane.core.call.status import session_status
from voicefleet_dataplane.media.dtmf import DtmfReceiver
from voicefleet_dataplane.media.jitter import JitterBuffer, Kind
from voicefleet_dataplane.media.opus import OpusDecoder, OpusError
from voicefleet_dataplane.wire.rtcp import ReportBlock, SenderInfo, build_report
from voicefleet_dataplane.wire.rtp import RtpPacket, build_rtp
from voicefleet_dataplane.wire.sdp.model import SdpError
from voicefleet_dataplane.wire.stun import SOFTWARE, build_binding_error, build_binding_success

ELSEWHERE = (ATTACKER, Address("203.0.113.67", 1), Address("2001:db8::66", 5), Address("203.0.113.68", 65_535))
PUBLIC = Address("192.0.2.1", 3478)
DECODER = OpusDecoder(16_000)


class Hearing(Recorder):
    """What stands behind a call: jitter buffer, libopus, keypad."""

    def __init__(self, session, world):
        super().__init__(session)
        self.world, self.jitter, self.keys = world, JitterBuffer(), DtmfReceiver()
        self.presses = 0

    def on_audio(self, packet):
        self.jitter.push(packet, self.world.now)
        self.listen()

    def on_telephone_event(self, packet):
        self.jitter.push(packet, self.world.now, is_audio=False)
        self.presses += self.keys.receive(packet) is not None
        self.listen()

    def listen(self):
        for piece in self.jitter.pop(self.world.now):
            with contextlib.suppress(OpusError):
                if piece.kind is Kind.AUDIO:
                    DECODER.decode(piece.payload)
                elif piece.kind is Kind.RECOVER:
                    DECODER.recover(piece.payload, piece.ticks)


class Story:
    def __init__(self):
        self.fleet = Fleet()
        self.world = self.fleet.worlds[5]
        self.victim = self.world.connected(CLIENT, echo=True)
        self.calls = self.sequence = 0
        self.begin()

    def begin(self):
        self.calls += 1
        self.attacker = self.world.connected(Address(ATTACKER.host, ATTACKER.port + 10 * self.calls))
        self.heard = Hearing(self.attacker.session, self.world)

    def send(self, datagram, address=None):
        """One packet, and the one counter that it may move."""
        relay, core = self.fleet.relay, self.world.core
        before = sum(relay.drops.values()) + sum(core.drops.values())
        amplified = core.drops[DropReason.DTLS_AMPLIFICATION]
        reason = self.attacker.send(datagram, address=address)
        moved = sum(relay.drops.values()) + sum(core.drops.values()) - before
        moved -= core.drops[DropReason.DTLS_AMPLIFICATION] - amplified
        if self.attacker.session.state is not SessionState.ENDED:  # its end counts what waited
            assert moved == (reason is not None), (reason, moved)

    def packet(self, script):
        attacker, srtp = self.attacker, self.attacker.srtp
        agreed = attacker.session.agreed
        match script.number() % 10:
            case 0 | 1:  # audio, of any sequence and time
                kind = script.pick((agreed.payload_type, agreed.payload_type, agreed.telephone_event_type or 0, 96))
                rtp = build_rtp(
                    RtpPacket(
                        False,
                        kind,
                        script.number(2),
                        script.number(4),
                        script.pick((77, 77, 78, 79, 80, 81)),
                        script.chunk(),
                    )
                )
                return srtp.protect(rtp)
            case 2:  # RTP of any form
                return srtp.protect(
                    script.bent(build_rtp(RtpPacket(False, agreed.payload_type, 1, 2, 77, script.chunk())))
                )
            case 3:
                block = ReportBlock(attacker.ssrc, *struct.unpack("!BhIIII", script.chunk()[:19].ljust(19, b"\1")))
                return srtp.protect_rtcp(
                    build_report(SenderInfo(77, script.number(8), 1, 2, 3), (block,) * (script.number() % 32), "c")
                )
            case 4:
                compound = bytes(8) + script.chunk()
                return srtp.protect_rtcp(bytes((0x80 | script.number() % 64, 200 + script.number() % 8)) + compound[2:])
            case 5:  # a check, with attributes of any kind
                extra = [(script.number(2) | 0x8000, script.chunk()), (SOFTWARE, script.chunk())]
                return attacker.build_check(
                    script.chunk().ljust(12, b"t")[:12], nominate=bool(script.number() % 2), extra=extra
                )
            case 6:
                attacker.dtls.send(script.chunk() or b"x")
                return script.bent(b"".join(attacker.dtls.poll()))
            case 7:
                build = build_binding_error if script.number() % 2 else build_binding_success
                key = attacker.pwd.encode()
                return build(b"t" * 12, 403, key) if build is build_binding_error else build(b"t" * 12, CLIENT, key)
            case 8:
                self.sequence += 1
                rtp = build_rtp(RtpPacket(False, agreed.payload_type, self.sequence & 0xFFFF, 0, 82, script.chunk()))
                return script.bent(srtp.protect(rtp) or b"")
            case _:
                return script.chunk()

    def step(self, script):
        attacker, core = self.attacker, self.world.core
        match script.number() % 16:
            case 0:
                self.fleet.pass_time(script.number() / 64)
                self.victim.check()
                self.victim.session.note_message(self.fleet.now)  # or it would end for saying nothing
                attacker.check()
                self.heard.listen()
            case 1:
                attacker.check(address=script.pick(ELSEWHERE), nominate=bool(script.number() % 2))
            case 2:
                with contextlib.suppress(SdpError):
                    offer = CHROMIUM.replace(DIGEST, attacker.identity.fingerprint.digest.hex(":").upper())
                    bent = script.bent(offer.replace("aB3+", script.pick(("c1ie", "n3wu"))).encode())
                    core.calls.renegotiate(attacker.session, bent.decode("latin-1"), [PUBLIC], self.fleet.now)
            case 3:
                core.calls.restart_ice(attacker.session, "n3wu", self.fleet.now)
            case 4:  # a relay's word for it, authentic: at any time, for any client
                client = script.pick((attacker.address, CLIENT, *ELSEWHERE))
                header = encode_spp(client, RELAY)
                at = int((self.fleet.now + 1_700_000_000.0) * 1e3) + script.number(2) - 30_000
                said = encode_announcement(header, core._us, at, core.calls.hint_keys)
                if client != CLIENT:
                    core.receive(header + script.bent(said), RELAY, self.fleet.now)
            case 5:
                if script.number() % 8 == 0:
                    core.calls.hang_up(attacker.session.agreed.call_id)
            case _:
                packet = self.packet(script)
                if packet:
                    self.send(packet, script.pick((None, None, None, *ELSEWHERE)))
        self.fleet.settle()
        if attacker.session.state is SessionState.ENDED and self.calls < 3:
            self.begin()


def calls(data: bytes) -> None:
    script, story = Script(data), Story()
    while script.goes_on:
        story.step(script)
    victim = story.victim
    heard = len(victim.media)
    assert victim.speak(b"\x48opus") is None
    story.fleet.settle()
    assert len(victim.media) == heard + 1
    session_status(victim.session, story.fleet.now)
    core = story.world.core
    assert len(core._routes.by_client) <= 40
    assert core.calls.deadline() is not None


def rtp_step(leap: int, payload: bytes) -> bytes:
    return bytes((6, 0, 0)) + (7).to_bytes(2) + leap.to_bytes(4) + bytes((0, len(payload))) + payload + b"\0"


_SHORT = b"\x48opus"
TARGETS = [
    Target(
        "calls",
        calls,
        [
            rtp_step(960, _SHORT)
            + rtp_step(1 << 31, b"\x48")
            + bytes((0, 64))
            + rtp_step(2_880, b"\xff\x3f" + bytes(20)),
            bytes((6, 3, 19))
            + bytes(range(19))
            + bytes(9)
            + bytes((6, 4, 12))
            + bytes(12)
            + bytes((6, 5, 4))
            + b"abcd",
            bytes((2, 0, 0, 40, 3, 3, 1, 1, 1, 0, 255, 4, 0, 117, 48, 0, 40, 6, 6, 5)) + b"hello" + bytes((0, 40, 0)),
            bytes((6, 7, 1, 0, 6, 8, 5)) + _SHORT + bytes((1, 2, 40, 0, 5, 0, 0, 255)),
        ],
        max_bytes=400,
        tries=200,
        steps_per_byte=40_000,
        steps_at_least=2_000_000,
    ),
]

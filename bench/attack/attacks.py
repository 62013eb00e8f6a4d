"""The attacks. Each takes the world, the victim's call and how long it lasts; its first line says what is sent."""

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import Awaitable, Callable, Iterable

import httpx

from bench.attack.world import Outcome, Talker, World, pace
from voicefleet_dataplane.shell.client.packet_caller import FRAME_S, make_identity
from voicefleet_dataplane.wire.opus import FRAME_TICKS
from voicefleet_dataplane.wire.rtp import RtpPacket, build_rtp
from voicefleet_dataplane.wire.sdp.client import OPUS_PAYLOAD_TYPE
from voicefleet_dataplane.wire.stun import SOFTWARE, build_binding_request

Attack = Callable[[World, Talker, float], Awaitable[Outcome]]


async def nothing(_world: World, _victim: Talker, seconds: float) -> Outcome:
    """Nothing: what to compare with."""
    await asyncio.sleep(seconds)
    return Outcome(0)


async def ended_call(world: World, victim: Talker, seconds: float) -> Outcome:
    """With the victim's address: checks of a call that is over on its owner, and of a live call of another owner."""
    async with world.talking(victim.slot) as over:
        pass
    async with world.talking(elsewhere=victim.slot) as live:
        sent = 0
        async for _ in pace(seconds, 4):
            victim.send_as(over.build_check())
            victim.send_as(live.build_check())
            sent += 2
    return Outcome(sent)


async def renaming(world: World, victim: Talker, seconds: float) -> Outcome:
    """With the victim's address: checks of a live call of its owner; beside them forged checks that hold one's own ufrag."""
    async with world.talking(victim.slot) as live:
        ufrag = live.answer.ufrag
        forged = build_binding_request(
            b"f" * 12,
            f"{ufrag[:-1]}{'A' if ufrag[-1] != 'A' else 'B'}:x",
            b"wrong",
            extra=[(SOFTWARE, ufrag.encode())],
        )
        sent = 0
        async for number in pace(seconds, 2_000):
            if number % 500 == 0:
                victim.send_as(live.build_check())
            live.send_as(forged)
            sent += 1
    return Outcome(sent)


async def stranger(world: World, _victim: Talker, seconds: float) -> Outcome:
    """With a stranger's address: one nominating check of one's own call."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        async with world.talking() as own:
            other.connect(own.ingress)
            check = own.build_check()
            other.send(check)
            await asyncio.sleep(seconds)
        return Outcome(1, _got_for_one([other], len(check)))


async def forged_audio(_world: World, victim: Talker, seconds: float) -> Outcome:
    """With the victim's address: 2,000 packets of audio a second whose tags are wrong."""
    async for number in pace(seconds, 2_000):
        victim.send_as(b"\x80\x6f" + number.to_bytes(4, "big")[2:] + os.urandom(160))
    return Outcome(round(seconds * 2_000))


async def audio_flood(world: World, _victim: Talker, seconds: float) -> Outcome:
    """In one's own call: 2,000 authentic packets of audio a second, whose time stamps leap."""
    async with world.talking() as own:
        sent = 0
        async for number in pace(seconds, 2_000):
            ticks = number * 50 * FRAME_TICKS & 0xFFFFFFFF
            packet = RtpPacket(False, OPUS_PAYLOAD_TYPE, number & 0xFFFF, ticks, 7, b"\x59" + bytes(100))
            if (protected := own.build_audio(build_rtp(packet))) is not None:
                own.send_as(protected)
                sent += 1
    return Outcome(sent)


async def garbage(_world: World, victim: Talker, seconds: float) -> Outcome:
    """From strangers: 2,000 datagrams a second, random bytes, RTP of no call, and checks with a wrong tag or password."""
    chance = random.Random(1)
    ufrag = victim.answer.ufrag
    kinds = (
        chance.randbytes(160),
        b"\x80\x6f" + chance.randbytes(160),
        build_binding_request(b"f" * 12, f"{ufrag[:-2]}AA:x", b"wrong"),
        build_binding_request(b"f" * 12, f"{ufrag}:x", b"wrong"),
    )
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(8)]
    sent = sent_bytes = 0
    try:
        for one in sockets:
            one.setblocking(False)
            one.connect(victim.ingress)
        async for number in pace(seconds, 2_000):
            sent_bytes += sockets[number % 8].send(kinds[number // 8 % len(kinds)])
            sent += 1
        return Outcome(sent, _got_for_one(sockets, sent_bytes))
    finally:
        for one in sockets:
            one.close()


async def replay(_world: World, victim: Talker, seconds: float) -> Outcome:
    """From a stranger: the victim's last check, fifty times a second."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        other.connect(victim.ingress)
        sent = sent_bytes = 0
        async for _ in pace(seconds, 1 / FRAME_S):
            sent_bytes += other.send(victim.last_check)
            sent += 1
        return Outcome(sent, _got_for_one([other], sent_bytes))


def _got_for_one(strangers: Iterable[socket.socket], sent_bytes: int) -> dict[tuple[str, str], float]:
    """What came to strangers' sockets, for each byte that was sent."""
    got_bytes = 0
    for one in strangers:
        with contextlib.suppress(BlockingIOError):
            while True:
                got_bytes += len(one.recv(2048))
    return {("bytes that the stranger got for one", ""): got_bytes / sent_bytes}


async def forged_hellos(world: World, _victim: Talker, seconds: float) -> Outcome:
    """With the address of a call in set-up: 200 forged DTLS hellos and flights of servers for each set-up."""
    flights = [one for _ in range(4) for one in _forged_flights()]
    sent = begun = failed = 0
    end = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < end:
        call = _BesetCall(world.http, flights)
        task = asyncio.create_task(call.run(world.url, world.headers))
        begun += 1
        try:
            await world.hear(call, 5, task)
        except (TimeoutError, RuntimeError):
            failed += 1
        call.give_up()
        await task
        sent += call.forged
    return Outcome(sent, {("set-ups", ""): begun, ("set-ups that failed", ""): failed})


class _BesetCall(Talker):
    """Forged hellos go out from its socket before its first check is answered, and with its first flights."""

    def __init__(self, http: httpx.AsyncClient, flights: list[bytes]) -> None:
        super().__init__(http)
        self._flights, self.forged = flights, 0

    def _on_stun(self, datagram: bytes, now: float) -> None:
        super()._on_stun(datagram, now)
        self._forge()

    def _on_dtls(self, datagram: bytes, now: float) -> None:
        self._forge()
        super()._on_dtls(datagram, now)

    def _forge(self) -> None:
        if self.forged < 200:
            for number in range(100):
                self._send(self._flights[number % len(self._flights)])
            self.forged += 100


def _forged_flights() -> tuple[bytes, bytes]:
    """A hello of somebody, and what somebody's server answers it."""
    hello = make_identity().build_connection(we_are_client=True, mtu_bytes=1_100)
    with contextlib.suppress(Exception):  # OpenSSL wants to read an answer
        hello.do_handshake()
    said = hello.bio_read(4096)
    server = make_identity().build_connection(we_are_client=False, mtu_bytes=1_100)
    server.bio_write(said)
    with contextlib.suppress(Exception):
        server.do_handshake()
    return said, server.bio_read(1_100)


ATTACKS: dict[str, Attack] = {
    "nothing": nothing,
    "ended-call": ended_call,
    "renaming": renaming,
    "stranger": stranger,
    "forged-hellos": forged_hellos,
    "forged-audio": forged_audio,
    "audio-flood": audio_flood,
    "garbage": garbage,
    "replay": replay,
}

"""Two DTLS ends over a link in memory, in simulated time."""

import datetime as dt
import random
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric import ec

from voicefleet_dataplane.core.call.dtls import Dtls, DtlsState
from voicefleet_dataplane.core.call.dtls_identity import DtlsIdentity, build_certificate
from voicefleet_dataplane.core.call.srtp import PROFILES

DELAY_S = 0.02


def make_identity(profiles=PROFILES) -> DtlsIdentity:
    key = ec.generate_private_key(ec.SECP256R1())
    return DtlsIdentity(key, build_certificate(key, 4711, dt.datetime.now(dt.UTC)), profiles)


def make_pair(client_profiles=PROFILES, server_profiles=PROFILES) -> tuple[Dtls, Dtls]:
    """A client and a server that expect each other."""
    ours, theirs = make_identity(client_profiles), make_identity(server_profiles)
    client = Dtls(ours, [theirs.fingerprint], we_are_client=True)
    server = Dtls(theirs, [ours.fingerprint], we_are_client=False)
    return client, server


def run_handshake(
    client: Dtls,
    server: Dtls,
    *,
    loss: float = 0.0,
    seed: int = 0,
    until_s: float = 60.0,
    fire: Callable[[Dtls, float], None] = lambda *_: None,
    cut: Callable[[bytes], list[bytes]] = lambda datagram: [datagram],
) -> float:
    """Carry datagrams until both ends have settled; gives the simulated time that it took.

    ``fire`` may put whatever it likes before an end just before and after that is given a datagram, ``cut`` makes several of one.
    """
    chance = random.Random(seed)
    now = 0.0
    in_flight: list[tuple[float, int, Dtls, bytes]] = []
    count = 0
    client.start(now)
    while now < until_s:
        for end, other in ((client, server), (server, client)):
            for datagram in [part for whole in end.poll() for part in cut(whole)]:
                if chance.random() >= loss:
                    count += 1
                    in_flight.append((now + DELAY_S, count, other, datagram))
        if not in_flight and {client.state, server.state}.isdisjoint({DtlsState.NEW, DtlsState.CONNECTING}):
            break
        times = [at for at, *_ in in_flight] + [at for end in (client, server) if (at := end.deadline()) is not None]
        if not times:
            break
        now = max(now, min(times))
        for item in sorted(item for item in in_flight if item[0] <= now):
            in_flight.remove(item)
            fire(item[2], now)
            item[2].receive_untrusted(item[3], now)
            fire(item[2], now)
        for end in (client, server):
            if (at := end.deadline()) is not None and at <= now:
                end.advance(now)
    return now


def deliver(sender: Dtls, receiver: Dtls) -> list[bytes]:
    """Carry what the sender has to say, without loss; gives the application data in it."""
    return [message for datagram in sender.poll() for message in receiver.receive_untrusted(datagram, 100.0) or []]

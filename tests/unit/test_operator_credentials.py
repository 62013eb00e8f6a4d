"""Keys are made once, certificates renewed in time, and both ends of the inner TLS believe them."""

import base64
import logging
import ssl

import pytest
from cryptography import x509

from voicefleet_contract import names
from voicefleet_contract.keys import KeyRing
from voicefleet_contract.names import SESSIONS_API_SERVICE
from voicefleet_operator.cluster.credentials import ensure_credentials, vouch_for_sessions_api
from voicefleet_operator.desired.keys.credentials import CERTIFICATE_LIFE_S, ROLES, Held, Work, due

NOW = 1_800_000_000.0


class Secrets:
    """An API server that holds Secrets, and APIServices."""

    namespace = "voice"

    def __init__(self):
        self.held = {}
        self.version = 0

    async def get(self, kind, name):
        return self.held.get(name)

    async def create(self, kind, body):
        assert body["metadata"]["name"] not in self.held
        return await self.replace(kind, body)

    async def replace(self, kind, body):
        self.version += 1
        self.held[body["metadata"]["name"]] = body
        return body

    def file(self, secret, name):
        return base64.b64decode(self.held[secret]["data"][name])


async def test_everything_is_made_once_and_a_restart_makes_nothing():
    api = Secrets()
    await ensure_credentials(api, NOW)
    assert len(api.held) == 3 + len(ROLES)
    before = api.version
    await ensure_credentials(api, NOW + 3600)
    assert api.version == before
    ring = KeyRing.parse(api.file(names.SECRET_HINT_KEYS, names.KEYS_FILE))
    assert ring.signing == 1


async def test_certificates_are_renewed_before_their_end_and_keys_stay():
    api = Secrets()
    await ensure_credentials(api, NOW)
    keys = api.held[names.SECRET_HINT_KEYS]
    old = api.file(names.tls_secret("relay"), names.TLS_CERT_FILE)
    await ensure_credentials(api, NOW + CERTIFICATE_LIFE_S * 0.7)
    assert api.file(names.tls_secret("relay"), names.TLS_CERT_FILE) != old
    assert api.held[names.SECRET_HINT_KEYS] == keys


async def test_nothing_secret_is_logged(caplog):
    api = Secrets()
    with caplog.at_level(logging.DEBUG):
        await ensure_credentials(api, NOW)
    for body in api.held.values():
        for value in body["data"].values():
            text = base64.b64decode(value).decode()
            assert value not in caplog.text
            assert text.strip().splitlines()[0] not in caplog.text or text.startswith("-----BEGIN CERT")


def handshake(server_files, client_files, tmp_path, server_name):
    def load(context, files, folder):
        folder.mkdir(exist_ok=True)
        for name, value in files.items():
            (folder / name).write_bytes(value)
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        context.load_verify_locations(folder / "ca.crt")
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    server = load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), server_files, tmp_path / "s")
    server.verify_mode = ssl.CERT_REQUIRED
    client = load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), client_files, tmp_path / "c")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.wrap_bio(to_client, to_server, server_hostname=server_name)
    two = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(8):
        done = 0
        for side in (one, two):
            try:
                side.do_handshake()
                done += 1
            except ssl.SSLWantReadError:
                pass
        if done == 2:
            return two.getpeercert()
    raise AssertionError("no handshake")


async def made_now():
    import time

    api = Secrets()
    await ensure_credentials(api, time.time())
    return api


def files(api, role):
    return {name: api.file(names.tls_secret(role), name) for name in ("tls.crt", "tls.key", "ca.crt")}


async def test_both_ends_of_the_inner_tls_check_the_other_strictly(tmp_path):
    api = await made_now()
    peer = handshake(files(api, "transceiver"), files(api, "operator"), tmp_path, "transceiver.voicefleet.internal")
    assert ("DNS", "operator.voicefleet.internal") in peer["subjectAltName"]


async def test_a_relays_certificate_is_no_transceivers(tmp_path):
    api = await made_now()
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(files(api, "relay"), files(api, "gateway"), tmp_path, "transceiver.voicefleet.internal")


def test_another_ca_makes_every_certificate_due():
    held = {names.SECRET_HINT_KEYS: Held(), names.SECRET_CALL_KEYS: Held()}
    held[names.SECRET_INNER_CA] = Held(0, 1e12, "new")
    held |= {names.tls_secret(role): Held(0, 1e12, "old") for role in ("relay", "transceiver", "gateway", "operator")}
    assert [item.work for item in due(held, 1.0)] == [Work.CERTIFICATE] * len(ROLES)


async def test_kube_apiserver_finds_the_sessions_api_by_its_services_name():
    api = Secrets()
    await ensure_credentials(api, NOW)
    certificate = x509.load_pem_x509_certificate(
        base64.b64decode(api.held["voicefleet-sessions-tls"]["data"]["tls.crt"])
    )
    alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "voicefleet-sessions.voice.svc" in alternative.get_values_for_type(x509.DNSName)


@pytest.mark.parametrize(("namespace", "written"), [("voice", True), ("another", False)])
async def test_the_inner_ca_is_written_into_our_own_apiservice_once(namespace, written):
    api = Secrets()
    await ensure_credentials(api, NOW)
    api.held[SESSIONS_API_SERVICE] = {"spec": {"service": {"namespace": namespace}}}
    merged = []

    async def merge(kind, name, patch):
        merged.append(name)
        api.held[name]["spec"] |= patch["spec"]

    api.merge = merge
    told = {}
    for _ in range(3):
        told = await vouch_for_sessions_api(api, told)
    assert merged == ([SESSIONS_API_SERVICE] if written else [])

"""What a client of another stack sees of a call, by HTTP: the answer, what could not be taken, and a refusal in words."""

from pathlib import Path

import pytest

from tests.support.gateway_world import KEY
from tests.support.offers import CHROMIUM
from tests.support.sdp_story import audio, data, offer, transport
from tests.support.whip_world import publisher
from voicefleet_dataplane.commands.dev_secrets import write_dev_secrets

CALLS = "/v1/realtime/calls"


@pytest.fixture(scope="module")
def secrets_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("secrets")
    write_dev_secrets(directory, KEY)
    return directory


async def test_a_client_without_a_bundle_learns_why_it_gets_no_events(secrets_dir):
    async with publisher(secrets_dir) as p:
        response = await p.post(offer(audio("0"), data("1", transport=transport("tRy2"))), CALLS)
        assert response.status_code == 201
        assert "m=application 0 UDP/DTLS/SCTP webrtc-datachannel\r\n" in response.text
        notice = response.headers["X-Voicefleet-Notice"]
        assert "a=group:BUNDLE" in notice
        assert f"a=voicefleet-rejected:{notice}\r\n" in response.text
        assert "X-Voicefleet-Notice" in response.headers["Access-Control-Expose-Headers"]
        assert "X-Voicefleet-Notice" not in (await p.post(CHROMIUM, CALLS)).headers


async def test_a_refusal_says_what_to_send_instead(secrets_dir):
    async with publisher(secrets_dir) as p:
        g711 = audio("0", "a=rtpmap:0 PCMU/8000", m="audio 9 UDP/TLS/RTP/SAVPF 0 8").without("a=rtpmap:111")
        response = await p.post(offer(g711), CALLS)
        assert response.status_code == 422
        error = response.json()["error"]
        assert error["param"] == "a=rtpmap"
        assert "RFC 7874 section 3" in error["message"]
        assert "send a=rtpmap:111 opus/48000/2" in error["message"]

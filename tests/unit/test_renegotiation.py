"""Later offers of a running call: what they may change, and what needs a new call."""

import re

import pytest

from tests.support.offers import CHROMIUM, DIGEST, VIDEO_SECTION, without
from tests.support.transceiver import World
from voicefleet_contract.addresses import Address
from voicefleet_dataplane.core.call.negotiation import Terms
from voicefleet_dataplane.wire.sdp.model import SdpError

CANDIDATES = [Address("192.0.2.2", 3478)]


def offer_of(caller, *, direction: str = "sendrecv", ufrag: str | None = None) -> str:
    digest = caller.identity.fingerprint.digest.hex(":").upper()
    text = CHROMIUM.replace(DIGEST, digest).replace("aB3+", ufrag or caller.ufrag)
    return text.replace("a=sendrecv", f"a={direction}")


def again(world: World, caller, offer: str) -> str:
    answer = world.core.calls.renegotiate(caller.session, offer, CANDIDATES, world.now)
    assert isinstance(answer, str), answer
    return answer


def field(answer: str, name: str) -> str:
    return re.search(rf"^a={name}:(\S+)", answer, re.MULTILINE)[1]


def test_the_same_offer_again_gets_the_same_answer_with_the_next_version():
    world = World()
    caller = world.connected(echo=True)
    answer = again(world, caller, offer_of(caller))
    origin = re.search(r"o=- (\d+) (\d+) ", caller.answer)
    assert re.search(r"o=- (\d+) (\d+) ", answer).groups() == (origin[1], str(int(origin[2]) + 1))
    for name in ("ice-ufrag", "ice-pwd", "fingerprint", "setup", "ssrc", "mid"):
        assert field(answer, name) == field(caller.answer, name)
    caller.speak()
    world.settle()
    assert len(caller.media) == 1


def test_a_client_on_hold_is_sent_nothing_and_then_again():
    world = World()
    caller = world.connected(echo=True)
    for direction, ours, heard in (
        ("sendonly", "recvonly", 0),
        ("inactive", "inactive", 0),
        ("sendrecv", "sendrecv", 1),
    ):
        answer = again(world, caller, offer_of(caller, direction=direction))
        assert f"a={ours}\r\n" in answer
        caller.speak()
        world.settle()
        assert len(caller.media) == heard


def test_other_credentials_are_an_ice_restart():
    world = World()
    caller = world.connected()
    answer = again(world, caller, offer_of(caller, ufrag="n3w1"))
    ufrag, pwd = field(answer, "ice-ufrag"), field(answer, "ice-pwd")
    assert ufrag != caller.server_ufrag
    assert caller.check(username=f"{ufrag}:n3w1", pwd=pwd) is None
    assert caller.check() is None  # the old ones, for a while
    assert "192.0.2.2 3478 typ host" in answer


def test_too_many_restarts_leave_everything_as_it_was():
    world = World()
    caller = world.connected(echo=True)
    answers = [
        world.core.calls.renegotiate(
            caller.session, offer_of(caller, direction="sendonly", ufrag=f"u{n:03}"), CANDIDATES, 100.0
        )
        for n in range(5)
    ]
    assert all(isinstance(answer, str) for answer in answers)
    before = caller.session.agreed
    wait_s = world.core.calls.renegotiate(caller.session, offer_of(caller, ufrag="onemore"), CANDIDATES, 100.0)
    assert isinstance(wait_s, float)
    assert caller.session.agreed is before


def test_data_channels_may_come_later():
    world = World()
    session = world.create(CHROMIUM.split("m=application")[0].replace("BUNDLE 0 1", "BUNDLE 0")).session
    assert not session.agreed.with_data
    world.core.calls.renegotiate(session, CHROMIUM, CANDIDATES, world.now)
    assert (session.agreed.with_data, session.agreed.sctp_port, session.agreed.mids) == (True, 5_000, ("0", "1"))


@pytest.mark.parametrize(
    ("change", "param"),
    [
        (lambda offer: re.sub(r"sha-256 \S+", "sha-256 " + ":".join(["CD"] * 32), offer), "a=fingerprint"),
        (lambda offer: offer.replace("a=mid:0", "a=mid:9").replace("BUNDLE 0 1", "BUNDLE 9 1"), "a=mid"),
        (lambda offer: offer.split("m=application")[0].replace("BUNDLE 0 1", "BUNDLE 0"), "m=application"),
        (lambda offer: offer.replace("a=setup:actpass", "a=setup:active"), "a=setup"),
        (lambda offer: without("a=rtpmap:111", offer), "a=rtpmap"),
        (lambda _: "garbage", "v="),
    ],
)
def test_what_needs_a_new_call_changes_nothing(change, param):
    world = World()
    caller = world.connected()
    before = caller.session.agreed, caller.session.description.version, caller.session.ice.ufrags
    with pytest.raises(SdpError) as caught:
        world.core.calls.renegotiate(caller.session, change(offer_of(caller)), CANDIDATES, world.now)
    assert caught.value.field == param
    assert (caller.session.agreed, caller.session.description.version, caller.session.ice.ufrags) == before
    assert caller.check() is None


def test_media_that_we_do_not_take_can_stay_in_place():
    """Pipecat's client counts its transceivers, and a rejected one would be gone."""
    world = World()
    world.terms = Terms(keeps=True)
    video = VIDEO_SECTION.replace("a=mid:v", "a=mid:2")
    created = world.create((CHROMIUM + video).replace("BUNDLE 0 1", "BUNDLE 0 1 2"))
    *_, section = created.answer.split("\r\nm=")
    assert section.startswith("video 3478 UDP/TLS/RTP/SAVPF 96\r\n")
    assert "a=inactive\r\n" in section
    assert "a=rtpmap:96 VP8/90000\r\n" in section
    assert f"a=ice-ufrag:{created.session.ice.ufrag}\r\n" in section
    assert "a=group:BUNDLE 0 1 2\r\n" in created.answer
    assert created.session.agreed.mids == ("0", "1", "2")


def test_what_cannot_share_the_transport_is_rejected_all_the_same():
    world = World()
    world.terms = Terms(keeps=True)
    created = world.create(CHROMIUM + VIDEO_SECTION)  # not in the bundle's group
    assert "\r\nm=video 0 " in created.answer

"""A relay that restarts hands over at once; one whose ingress is withdrawn waits for its flows. Real sockets."""

import asyncio

import pytest

from tests.support.relay_process import Peer, bind, running_relay, until
from voicefleet_contract.topology import RelayState
from voicefleet_dataplane.core.relay import owner_words
from voicefleet_dataplane.shell.relay import leaving as leaving_module

RTP = b"\x80\x6f" + bytes(160)
ALERT = b"\x15\xfe\xfd" + bytes(40)


@pytest.fixture(autouse=True)
def _alerts_end_flows_soon(monkeypatch):
    """How long a flow outlives an alert is for test_relay.py: here it only has to end."""
    monkeypatch.setattr(owner_words, "ALERT_S", 0.3)


async def passes(relay, client, owner):
    client.send(RTP, relay.public)
    assert (await owner.receive_spp())[2] == RTP
    owner.send_spp(RTP, client.address, relay.inner)
    assert await client.receive() == (RTP, relay.public)


async def say(relay, owner, **fields):
    """Let the operator say this of the relay, and wait until it has heard it."""
    core, before = relay.process.core, relay.process.core.topology
    relay.write_topology(owner.member(), relays=(relay.entry(**fields),))
    await until(lambda: core.topology is not before)


async def withdraw(relay, owner):
    await say(relay, owner, state=RelayState.DRAINING, leaving=True)


@pytest.mark.parametrize("fields", [{}, {"state": RelayState.DRAINING}])
async def test_a_relay_that_restarts_leaves_at_once_with_flows_that_live(tmp_path, owner, client, fields):
    async with running_relay(tmp_path, owner) as relay:
        await say(relay, owner, **fields)
        await bind(relay, client, owner)
        await relay.process.leaving.leave()
        assert len(relay.process.core.flows) == 1


async def test_a_relay_of_which_the_topology_says_nothing_leaves_at_once(tmp_path, owner, client):
    async with running_relay(tmp_path, owner) as relay:
        await bind(relay, client, owner)
        await relay.process.leaving.leave()


async def test_a_withdrawn_relay_forwards_on_until_the_last_call_has_ended(tmp_path, owner, client):
    async with running_relay(tmp_path, owner) as relay:
        await withdraw(relay, owner)
        await bind(relay, client, owner)
        leaving = asyncio.create_task(relay.process.leaving.leave())
        await asyncio.sleep(0)
        late = Peer()  # it was told the address just before
        await bind(relay, late, owner)
        await passes(relay, late, owner)
        await passes(relay, client, owner)
        assert relay.process.acknowledgement().flows_left == 2
        assert not leaving.done()
        for one in (client, late):
            owner.send_spp(ALERT, one.address, relay.inner)
        async with asyncio.timeout(10):
            await leaving
        late.socket.close()


async def test_it_hears_that_it_is_withdrawn_while_it_leaves(tmp_path, owner, client):
    """The pod is deleted and the topology changes in the same moment: whoever comes second is heard in the grace."""
    async with running_relay(tmp_path, owner, leave_grace_s=1.5) as relay:
        await bind(relay, client, owner)
        leaving = asyncio.create_task(relay.process.leaving.leave())
        await withdraw(relay, owner)
        assert not leaving.done()
        await until(lambda: relay.process.leaving.waiting)
        await passes(relay, client, owner)
        owner.send_spp(ALERT, client.address, relay.inner)
        async with asyncio.timeout(10):
            await leaving


async def test_without_flows_it_does_not_wait(tmp_path, owner):
    async with running_relay(tmp_path, owner) as relay:
        await withdraw(relay, owner)
        async with asyncio.timeout(10):
            await relay.process.leaving.leave()


async def test_it_waits_no_longer_than_the_deadline(tmp_path, owner, client, caplog):
    async with running_relay(tmp_path, owner, drain_deadline_s=0.2) as relay:
        await withdraw(relay, owner)
        await bind(relay, client, owner)
        async with asyncio.timeout(10):
            await relay.process.leaving.leave()
        assert "the drain deadline is over: 1 flows are left" in caplog.text


async def test_an_ingress_that_is_given_back_is_handed_over_at_once(tmp_path, owner, client, caplog):
    caplog.set_level("INFO")
    async with running_relay(tmp_path, owner) as relay:
        await withdraw(relay, owner)
        await bind(relay, client, owner)
        leaving = asyncio.create_task(relay.process.leaving.leave())
        await until(lambda: relay.process.leaving.waiting)
        await say(relay, owner)
        async with asyncio.timeout(10):
            await leaving
        assert "the ingress is back" in caplog.text
        assert relay.process.acknowledgement().flows_left is None


def deleted(relay, *answers):
    """Let the API server answer so, time after time, when the relay asks for its VoiceRelay."""
    left = list(answers)

    async def relay_is_gone(name):
        assert name == "fra"
        return left.pop(0) if len(left) > 1 else left[0]

    relay.process._topology.relay_is_gone = relay_is_gone


async def test_a_relay_whose_voicerelay_is_deleted_waits_for_its_flows_without_an_operator(tmp_path, owner, client):
    async with running_relay(tmp_path, owner, relay_name="fra") as relay:
        await say(relay, owner)
        await bind(relay, client, owner)
        deleted(relay, True)
        leaving = asyncio.create_task(relay.process.leaving.leave())
        await until(lambda: relay.process.leaving.waiting)
        await passes(relay, client, owner)
        owner.send_spp(ALERT, client.address, relay.inner)
        async with asyncio.timeout(10):
            await leaving


@pytest.mark.parametrize("answer", [False, None])
async def test_a_relay_whose_voicerelay_is_there_or_not_to_be_asked_for_hands_over(tmp_path, owner, client, answer):
    async with running_relay(tmp_path, owner, relay_name="fra") as relay:
        await say(relay, owner)
        await bind(relay, client, owner)
        deleted(relay, answer)
        await relay.process.leaving.leave()
        assert len(relay.process.core.flows) == 1


async def test_a_voicerelay_that_is_made_anew_is_handed_over_to(tmp_path, owner, client, monkeypatch, caplog):
    monkeypatch.setattr(leaving_module, "_ASK_AGAIN_S", 0.0)
    caplog.set_level("INFO")
    async with running_relay(tmp_path, owner, relay_name="fra") as relay:
        await say(relay, owner)
        await bind(relay, client, owner)
        deleted(relay, True, None, False)
        async with asyncio.timeout(10):
            await relay.process.leaving.leave()
        assert "the ingress is back" in caplog.text


@pytest.mark.parametrize(("answer", "kept"), [(True, False), (False, True), (None, True)])
async def test_what_is_pinned_stays_for_a_successor_only(tmp_path, owner, answer, kept, monkeypatch):
    async with running_relay(tmp_path, owner, relay_name="fra") as relay:
        await say(relay, owner)
        deleted(relay, answer)
        closed = []
        monkeypatch.setattr(relay.process.datapath, "close", lambda *, keep: closed.append(keep))
        await relay.process.leaving.leave()
        await relay.process.stop()
        assert closed == [kept]

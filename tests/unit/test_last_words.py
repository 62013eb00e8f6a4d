"""The end of a call, as its client is told it: each protocol's last words, in an order in which they are understood.

The tests are coroutines because aiortc's SCTP wants a loop to be there.
"""

from tests.support.transceiver import CLIENT, World
from tests.unit.test_another_peer import running
from voicefleet_dataplane.core.dtls import DtlsState
from voicefleet_dataplane.core.session import EndReason
from voicefleet_dataplane.media.echo import Echo
from voicefleet_dataplane.wire.sdp import SetupRole

CHUNKS_AT = 12  # of an SCTP packet (RFC 9260 section 3)
ABORT = 6


async def test_sctp_aborts_before_dtls_closes():
    world = World()
    client = world.call(CLIENT, setup=SetupRole.PASSIVE)  # we are DTLS's client, and SCTP's
    call = running(client, Echo)
    client.check()
    world.settle()
    assert client.session.state == "connected"
    client.data.clear()
    call.hang_up()
    world.settle()
    assert [packet[CHUNKS_AT] for packet in client.data] == [ABORT]  # it could still be read
    assert client.dtls.state is DtlsState.CLOSED
    assert client.session.end_reason is EndReason.HANG_UP


async def test_a_client_that_is_in_another_call_is_told_nothing_by_sctp():
    world = World()
    client = world.call(CLIENT, setup=SetupRole.PASSIVE)
    running(client, Echo)
    client.check()
    world.settle()
    client.data.clear()
    client.session.end(EndReason.REPLACED)
    world.settle()
    assert client.data == []
    assert client.dtls.state is DtlsState.CLOSED

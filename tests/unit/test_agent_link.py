"""A line whose agent does not take what it is sent, or does not answer: found out in time, whatever it hangs in. Seconds are short here."""

import asyncio

import pytest

from voicefleet_dataplane.shell.agents import connection as agent_link
from voicefleet_dataplane.shell.agents.connection import AgentLink, Lost


class HangingSocket:
    """Takes ``takes`` messages and then none, answers nothing, and a ping may hang as well."""

    close_code = None

    def __init__(self, takes: int, *, pings: bool = True) -> None:
        self.takes, self.pings = takes, pings
        self.sent: list[str] = []
        self.pinged = 0

    async def send_str(self, message: str) -> None:
        if len(self.sent) >= self.takes:
            await asyncio.Event().wait()
        self.sent.append(message)

    async def ping(self) -> None:
        self.pinged += 1
        if not self.pings:
            await asyncio.Event().wait()

    async def receive(self) -> None:
        await asyncio.Event().wait()

    async def close(self, **_: object) -> None:
        pass


class Listener:
    """Hears how it ended, and can be full."""

    def __init__(self, *, full: bool = False) -> None:
        self.full = full
        self.opened, self.lost = asyncio.Event(), asyncio.get_running_loop().create_future()

    def on_open(self) -> None:
        self.opened.set()

    def on_message(self, message: object) -> None:
        raise AssertionError("nobody said anything")

    def on_lost(self, how: Lost, detail: str) -> None:
        self.lost.set_result((how, detail))

    def is_full(self) -> bool:
        return self.full


@pytest.fixture(autouse=True)
def _short_seconds(monkeypatch):
    monkeypatch.setattr(agent_link, "_LOOK_S", 0.01)
    monkeypatch.setattr(agent_link, "_WRITE_TIMEOUT_S", 0.1)
    monkeypatch.setattr(agent_link, "PING_AFTER_S", 0.1)


def line(socket: HangingSocket, listener: Listener) -> AgentLink:
    class Sockets:
        async def open(self, *_: object) -> HangingSocket:
            return socket

    return AgentLink(listener, Sockets(), ["ws://agent/"], (), within_s=5.0)


async def test_an_agent_that_takes_nothing_more_is_given_up():
    listener, socket = Listener(), HangingSocket(takes=2)
    link = line(socket, listener)
    await listener.opened.wait()
    for number in range(4):
        assert link.send(str(number))
    assert await asyncio.wait_for(listener.lost, 10) == (Lost.FAILED, "the agent has read nothing for 0.1 s")
    assert socket.sent == ["0", "1"]


@pytest.mark.parametrize("pings", [True, False])
async def test_an_agent_that_answers_no_ping_is_given_up_also_when_the_ping_hangs(pings):
    listener, socket = Listener(), HangingSocket(takes=9, pings=pings)
    line(socket, listener)
    assert await asyncio.wait_for(listener.lost, 10) == (Lost.FAILED, "the agent has not answered a ping for 0.1 s")
    assert socket.pinged == 1


async def test_whom_we_do_not_read_may_be_silent():
    listener, socket = Listener(full=True), HangingSocket(takes=9)
    link = line(socket, listener)
    await listener.opened.wait()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(listener.lost), 0.5)
    assert socket.pinged == 0
    link.close()
    await link.wait_closed(1.0)


async def test_a_line_that_is_closed_sends_what_waits_and_reports_no_loss():
    listener, socket = Listener(), HangingSocket(takes=9)
    link = line(socket, listener)
    await listener.opened.wait()
    link.send("good-bye")
    link.close()
    await link.wait_closed(5.0)
    assert socket.sent == ["good-bye"]
    assert not listener.lost.done()

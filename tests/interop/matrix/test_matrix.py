"""Each stack does each check. `make interop-matrix` does the same, with more stacks, and writes the table of docs/clients.md."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from tests.interop.matrix.call import Place
from tests.interop.matrix.checks import CHECKS
from tests.interop.matrix.client import PATIENCE_S, Client, running
from tests.interop.matrix.content import recording
from tests.interop.matrix.known import WITHIN_S, why_it_fails
from tests.interop.matrix.stacks import STACKS, Stack
from voicefleet_dataplane.commands.dev import DevFleet
from voicefleet_dataplane.media.speech import read_wav

pytestmark = [pytest.mark.interop, pytest.mark.asyncio(loop_scope="module")]

Clients = Callable[[Stack], Awaitable[Client]]


def _cells() -> list[object]:
    cells = []
    for stack in (one for one in STACKS if one.short):
        for check in (one for one in CHECKS if one not in stack.cannot):
            why = why_it_fails(check, stack.name)
            marks = why and pytest.mark.xfail(reason=why, strict=True, raises=(AssertionError, TimeoutError))
            cells.append(pytest.param(stack, check, marks=marks or (), id=f"{stack.name}-{check.replace(' ', '-')}"))
    return cells


@pytest.fixture(scope="module")
def place(fleet: DevFleet, speech: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("matrix")
    return Place(fleet, recording(speech[0], folder), read_wav(speech[-1]), folder)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def clients(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Clients]:
    """One client at a time: a stack's is started at its first check, and ended when another's turn comes."""
    async with contextlib.AsyncExitStack() as ending:
        running_now: dict[str, Client] = {}

        async def client_of(stack: Stack) -> Client:
            if stack.name not in running_now:
                await ending.aclose()
                running_now.clear()
                folder = tmp_path_factory.mktemp("client")
                running_now[stack.name] = await ending.enter_async_context(running(stack.argv(), folder))
            return running_now[stack.name]

        yield client_of


@pytest.mark.parametrize(("stack", "check"), _cells())
async def test_cell(place: Place, clients: Clients, stack: Stack, check: str) -> None:
    client = await clients(stack)
    client.patience_s = PATIENCE_S if not why_it_fails(check, stack.name) else WITHIN_S
    await CHECKS[check](place, client)

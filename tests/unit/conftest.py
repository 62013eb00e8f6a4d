"""The two ends of a relay process on loopback (tests/support/relay_process.py), for every test that names them."""

from unittest import mock

import pytest

from tests.support.relay_process import Owner, Peer
from voicefleet_dataplane.shell.relay import pressure


@pytest.fixture(autouse=True, scope="module")
def collector():
    """Leave garbage to the tests' own process: a relay's first look collects and freezes all of it, 0.1 s a relay.

    tests/unit/test_relay_pressure.py has a fixture of the same name in its place and sees what a relay does.
    """
    with mock.patch.object(pressure, "gc"):
        yield


@pytest.fixture
def owner():
    one = Owner(1)
    yield one
    one.socket.close()


@pytest.fixture
def client():
    one = Peer()
    yield one
    one.socket.close()

"""The two ends of a relay process on loopback (tests/support/relay_process.py), for every test that names them."""

import pytest

from tests.support.relay_process import Owner, Peer


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

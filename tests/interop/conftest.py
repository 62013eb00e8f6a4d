"""A fleet on loopback, as `voicefleet dev` starts it: real processes of every role."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from voicefleet_dataplane.commands.dev import DevFleet

SPEECH = Path("/usr/share/sounds/alsa")


@pytest.fixture(scope="module")
def fleet() -> Iterator[DevFleet]:
    assert shutil.which("redis-server"), "redis-server is missing: run `make deps`"
    with DevFleet(transceivers=2) as running:
        yield running


@pytest.fixture(scope="session")
def speech() -> list[Path]:
    found = sorted(SPEECH.glob("*_*.wav"))
    assert len(found) >= 8, f"no recorded speech in {SPEECH}: run `make deps` (alsa-utils)"
    return found

"""A fleet on loopback, as `voicefleet dev` starts it: real processes of every role."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from voicefleet_dataplane.commands.dev import DevFleet
from voicefleet_dataplane.commands.dev_secrets import write_dev_secrets

SPEECH = Path("/usr/share/sounds/alsa")


@pytest.fixture(scope="module")
def fleet() -> Iterator[DevFleet]:
    assert shutil.which("redis-server"), "redis-server is missing: run `make deps`"
    with DevFleet(transceivers=2) as running:
        yield running


@pytest.fixture(scope="module")
def secrets_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a transceiver in this process."""
    directory = tmp_path_factory.mktemp("secrets")
    write_dev_secrets(directory, "sk-test-0123456789abcdef")
    return directory


@pytest.fixture(scope="session")
def speech() -> list[Path]:
    found = sorted(SPEECH.glob("*_*.wav"))
    assert len(found) >= 8, f"no recorded speech in {SPEECH}: run `make deps` (alsa-utils)"
    return found

"""docs/agents.md as its reader does it: each example agent is run as it stands there, and called through a whole fleet."""

import contextlib
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agent_doubles import HOST
from voicefleet_dataplane.commands.dev import DevFleet

pytestmark = pytest.mark.interop

GUIDE = (Path(__file__).parents[2] / "docs" / "agents.md").read_text()
AGENTS = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
BACKENDS = ["OpusStream", "MediaStream"]


@contextlib.contextmanager
def running(source: str) -> Iterator[str]:
    """The example, with a free port in the place of its own."""
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    assert "port=9000" in source
    agent = subprocess.Popen([sys.executable, "-c", source.replace("port=9000", f"port={port}")])
    try:
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
                break
            assert agent.poll() is None, "the example ended"
            assert time.monotonic() < deadline, "the example does not listen"
            time.sleep(0.05)
        yield f"ws://{HOST}:{port}/"
    finally:
        agent.terminate()
        agent.wait(10)


def test_the_guide_has_an_example_for_each():
    assert len(AGENTS) == len(BACKENDS)


@pytest.mark.parametrize(("backend", "source"), list(zip(BACKENDS, AGENTS, strict=False)), ids=BACKENDS)
def test_a_call_to_the_guides_agent_hears_itself(backend, source):
    with running(source) as url, DevFleet(transceivers=1, backend={"backend": backend, "backend_url": url}) as fleet:
        argv = [sys.executable, "-m", "voicefleet_dataplane", "call", fleet.url, "--key", fleet.api_key]
        options = ["--json", "--cacert", str(fleet.ca_file), "--count", "2", "--duration", "4"]
        done = subprocess.run([*argv, *options], capture_output=True, text=True, check=False, timeout=100)
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        assert done.returncode == 0, (lines, done.stderr, fleet.log("transceiver-1").read_text()[-2_000:])
        assert lines[-1]["audio_ok"] == 2

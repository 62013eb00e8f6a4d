"""The operator's client of the control API, against a real transceiver over mutual TLS."""

from pathlib import Path

from tests.support.offers import CHROMIUM
from tests.support.transceiver_process import HOST, running_transceiver
from voicefleet_dataplane.commands.dev_secrets import write_dev_secrets
from voicefleet_operator.cluster.transceivers import ControlClient
from voicefleet_operator.desired.state import Component, Pod


def pod(port: int, generation: int = 2, uid: str = "u") -> Pod:
    return Pod("agents-5-2", uid, Component.TRANSCEIVER, "agents", 5, generation, port=port, host_ip=HOST, running=True)


def client(secrets: Path, directory: Path) -> ControlClient:
    made = ControlClient(directory)
    made.use_certificate({path.name: path.read_bytes() for path in (secrets / "operator").iterdir()})
    return made


async def test_an_order_says_when_to_hang_up_and_the_answer_what_is_left_since_when(tmp_path):
    write_dev_secrets(tmp_path / "s", "sk-test-0123456789abcdef")
    control = client(tmp_path / "s", tmp_path)
    async with running_transceiver(tmp_path / "s") as transceiver:
        await transceiver.create(CHROMIUM)
        here = pod(transceiver.process.port)
        first = (await control.drain([(here, 3600.0)]))["u"]
        assert (first.state, first.sessions) == ("draining", 1)
        assert first.oldest_started_at == first.newest_started_at > 1_600_000_000
        assert await control.drain([(here, 3600.0)]) == {"u": first}  # the same answer makes nobody look again
        await control.drain([(here, 0.0)])
        await transceiver.process.wait_drained(3600)
        last = (await control.drain([(here, 0.0)]))["u"]
        assert (last.sessions, last.oldest_started_at) == (0, None)


async def test_who_is_silent_or_somebody_else_is_left_out(tmp_path):
    write_dev_secrets(tmp_path / "s", "sk-test-0123456789abcdef")
    control = client(tmp_path / "s", tmp_path)
    async with running_transceiver(tmp_path / "s") as transceiver:
        port = transceiver.process.port
        said = await control.drain([(pod(port, generation=1, uid="older"), 0.0), (pod(9, uid="nobody"), 0.0)])
        assert said == {}

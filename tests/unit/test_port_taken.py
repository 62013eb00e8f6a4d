"""A role whose port somebody else holds ends with the exit code from which the operator learns it."""

import socket

import pytest
from typer.testing import CliRunner

from tests.support.transceiver_process import HOST, make_settings
from voicefleet_contract.names import EXIT_PORT_TAKEN
from voicefleet_dataplane.cli import app
from voicefleet_dataplane.commands.dev_secrets import write_dev_secrets


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_a_transceiver_whose_port_is_taken_says_so_with_its_exit_code(kind, tmp_path, monkeypatch, caplog):
    write_dev_secrets(tmp_path, "sk-test-0123456789abcdef")
    (tmp_path / "topology.json").write_text('{"cluster": 7}')
    with socket.socket(socket.AF_INET, kind) as squatter:
        squatter.bind((HOST, 0))
        if kind == socket.SOCK_STREAM:
            squatter.listen()
        settings = make_settings(tmp_path, port=squatter.getsockname()[1])
        for name, value in settings.to_environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("VOICEFLEET_INNER_ADDRESS", HOST)
        result = CliRunner().invoke(app, ["transceiver"])
    assert result.exit_code == EXIT_PORT_TAKEN
    assert str(settings.port) in caplog.text

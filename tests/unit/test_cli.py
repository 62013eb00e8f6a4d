"""The command line as a whole."""

import pytest
from typer.testing import CliRunner

from voicefleet_dataplane.cli import app

COMMANDS = sorted(command.name or command.callback.__name__ for command in app.registered_commands)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.output


@pytest.mark.parametrize("role", ["relay", "transceiver", "gateway"])
def test_a_role_lists_its_settings(role: str) -> None:
    result = CliRunner().invoke(app, [role, "--settings"])
    assert result.exit_code == 0
    assert "VOICEFLEET_CLUSTER_ID" in result.output


@pytest.mark.parametrize("role", ["relay", "transceiver", "gateway"])
def test_a_role_names_the_variables_that_are_missing_or_wrong(role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VOICEFLEET_CLUSTER_ID", raising=False)
    monkeypatch.setenv("VOICEFLEET_INNER_PORT" if role != "transceiver" else "VOICEFLEET_PORT", "high")
    result = CliRunner().invoke(app, [role])
    assert result.exit_code == 2
    assert "VOICEFLEET_CLUSTER_ID" in result.stderr
    assert "PORT" in result.stderr


@pytest.mark.parametrize("options", [["--backend", "OpusStream"], ["--backend-url", "ws://127.0.0.1:9000/"]])
def test_dev_names_what_an_agent_still_lacks(options: list[str]) -> None:
    result = CliRunner().invoke(app, ["dev", *options])
    assert result.exit_code == 2
    assert "--backend-url" in result.stderr


def test_call_names_a_url_that_is_none() -> None:
    result = CliRunner().invoke(app, ["call", "voice.example.com"])
    assert result.exit_code == 2
    assert "'voice.example.com' is not a gateway's URL; write for example https://" in result.stderr

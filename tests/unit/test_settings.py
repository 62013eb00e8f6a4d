"""Settings from the environment: what is wrong is said by the variable's name."""

import importlib
import os

import pytest

from voicefleet_contract.settings import RelaySettings, SettingsError, TransceiverSettings, parse_duration_s


def test_settings_read_back_from_their_own_environment() -> None:
    settings = TransceiverSettings(
        cluster_id=1, slot=2, generation=3, inner_address="10.0.0.1", port=20000, accept_direct=True
    )
    assert TransceiverSettings.from_environment(settings.to_environment()) == settings


def test_a_missing_setting_is_named() -> None:
    with pytest.raises(SettingsError, match=r"VOICEFLEET_INNER_ADDRESS: Field required"):
        RelaySettings.from_environment({"VOICEFLEET_CLUSTER_ID": "1"})


def test_a_wrong_setting_is_named() -> None:
    with pytest.raises(SettingsError, match="VOICEFLEET_FLOW_IDLE_TIMEOUT_S: .*write for example 30s"):
        RelaySettings.from_environment(
            {
                "VOICEFLEET_CLUSTER_ID": "1",
                "VOICEFLEET_INNER_ADDRESS": "10.0.0.1",
                "VOICEFLEET_FLOW_IDLE_TIMEOUT_S": "soon",
            }
        )


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("60m", 3600), ("1h30m", 5400), ("250ms", 0.25), (15, 15), ("15", 15)]
)
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1s", "1d", "1h 30m", "5 s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration_s(text)


@pytest.mark.parametrize("module", ["voicefleet_operator.__main__", "voicefleet_operator.sessions_api.__main__"])
def test_wrong_settings_end_a_process_with_2_and_one_line(module, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["x"])
    for name in [name for name in os.environ if name.startswith("VOICEFLEET_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("VOICEFLEET_LOG_LEVEL", "loudest")
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(module).main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")

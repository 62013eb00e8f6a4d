"""Settings from the environment: what is wrong is said by the variable's name."""

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

"""`voicefleet where`, run as a user does."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from voicefleet_contract.call_id import CallId, encode_call_id
from voicefleet_contract.hint import Hint, encode_hint
from voicefleet_contract.keys import KeyRing
from voicefleet_contract.topology import Member, Pool, Topology
from voicefleet_dataplane.cli import app

KEYS = KeyRing({3: bytes(range(32))}, signing=3)
OTHER = KeyRing({3: bytes(32)}, signing=3)
UFRAG = encode_hint(Hint(key_epoch=3, cluster=7, slot=12, generation=2, nonce=0xABCD), KEYS)
CALL = encode_call_id(CallId(cluster=7, slot=12, generation=2, nonce=5), KEYS)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "keys.json").write_text(KEYS.to_json())
    (tmp_path / "other.json").write_text(OTHER.to_json())
    member = Member(slot=12, generation=2, name="agents-12-2", node="node-a", address="10.0.0.5", port=20001)
    pool = Pool(name="agents", members=(member,))
    (tmp_path / "topology.json").write_text(Topology(cluster=7, pools=(pool,)).dump())
    return tmp_path


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["where", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("text", [UFRAG, CALL, f"{UFRAG}:client"])
def test_without_keys_it_reads_the_fields_and_says_that_nothing_is_verified(text: str) -> None:
    code, out, err = run(text)
    assert code == 0
    assert "slot         12" in out
    assert "NOT VERIFIED" in err


@pytest.mark.parametrize("text, option", [(UFRAG, "--hint-keys"), (CALL, "--call-keys")])
def test_with_keys_and_a_topology_it_names_the_pod(files: Path, text: str, option: str) -> None:
    code, out, err = run(text, option, files / "keys.json", "--topology", files / "topology.json", "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert found["verified"] is True
    assert (found["pool"], found["pod"], found["address"]) == ("agents", "agents-12-2", "10.0.0.5:20001")


@pytest.mark.parametrize("text, option", [(UFRAG, "--hint-keys"), (CALL, "--call-keys")])
def test_a_wrong_tag_is_an_error(files: Path, text: str, option: str) -> None:
    code, out, err = run(text, option, files / "other.json")
    assert (code, out) == (1, "")
    assert "its tag is wrong" in err


@pytest.mark.parametrize("text", ["", "hello", "call_short", "é" * 24, "A" * 25, "_" * 24])
def test_anything_else_is_a_clear_error(text: str) -> None:
    code, _, err = run(text)
    assert code == 1
    assert err.startswith("error: not a ")


def test_a_slot_that_the_topology_does_not_know_is_an_error(files: Path) -> None:
    gone = encode_hint(Hint(key_epoch=3, cluster=7, slot=12, generation=1, nonce=1), KEYS)
    code, out, err = run(gone, "--topology", files / "topology.json")
    assert code == 1
    assert "generation   1" in out
    assert "knows no slot 12 in generation 1" in err


def test_a_key_file_that_is_none_is_an_error_without_a_traceback(files: Path) -> None:
    code, _, err = run(UFRAG, "--hint-keys", files / "topology.json")
    assert code == 1
    assert "key ring" in err

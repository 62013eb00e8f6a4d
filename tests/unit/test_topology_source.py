"""The topology file: the last good one stays in use."""

from pathlib import Path

from voicefleet_contract.topology import Topology
from voicefleet_dataplane.shell.process.topology_source import TopologyFile


def write(path: Path, text: str) -> None:
    """Replace the file, as tools do."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def revision(source: TopologyFile) -> int | None:
    index = source()
    return None if index is None else index.topology.revision


def test_a_file_that_comes_later_is_found_and_followed(tmp_path):
    source = TopologyFile(tmp_path / "topology.json")
    assert revision(source) is None
    write(tmp_path / "topology.json", Topology(cluster=7, revision=1).dump())
    assert revision(source) == 1
    assert source() is source()
    write(tmp_path / "topology.json", Topology(cluster=7, revision=2).dump())
    assert revision(source) == 2


def test_a_file_that_turns_bad_or_goes_away_changes_nothing(tmp_path, caplog):
    path = tmp_path / "topology.json"
    source = TopologyFile(path)
    write(path, Topology(cluster=7, revision=1).dump())
    assert revision(source) == 1
    write(path, '{"cluster": "seven"}')
    assert revision(source) == 1
    assert revision(source) == 1
    assert sum("topology: cluster" in message for message in caplog.messages) == 1
    path.unlink()
    assert revision(source) == 1
    write(path, Topology(cluster=7, revision=3).dump())
    assert revision(source) == 3

"""The release before this one: its files, and what a clone without them has instead."""

import tomllib
from pathlib import Path

import pytest

from e2e.cluster import images, previous
from e2e.cluster.places import CHECKOUT
from e2e.cluster.steps import ClusterError


@pytest.fixture
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("VOICEFLEET_CACHE", str(tmp_path))
    previous.tree.cache_clear()
    yield
    previous.tree.cache_clear()


def release(tree: Path) -> str:
    return tomllib.loads((tree / "pyproject.toml").read_text())["project"]["version"]


@pytest.mark.usefixtures("_cache")
@pytest.mark.parametrize("shallow", [False, True])
def test_it_is_another_release_with_all_that_images_chart_and_crds_need(monkeypatch, capsys, shallow):
    if shallow or not previous.in_history():
        monkeypatch.setattr(previous, "in_history", lambda: False)
    tree = previous.tree()
    assert release(tree) == previous.RELEASE != release(CHECKOUT)
    assert (tree / "charts" / "voicefleet" / "Chart.yaml").is_file()
    assert list((tree / "crds").glob("*.yaml"))
    built = images.images_of(previous.TAG)
    assert [image.name for image in built] == ["operator", "dataplane"]
    assert {image.full_name(previous.TAG).rpartition(":")[2] for image in built} == {"previous"}
    assert {image.key() for image in built}.isdisjoint(image.key() for image in images.IMAGES)
    if shallow:
        assert "git fetch --unshallow" in capsys.readouterr().out


def test_a_project_without_its_one_version_line_is_an_error():
    with pytest.raises(ClusterError, match="0 lines"):
        previous.as_release("[project]\n", "1")

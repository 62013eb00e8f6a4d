"""What the images are built from, and the commands that do it."""

import re
from pathlib import Path

import pytest

from e2e.cluster import __main__ as program
from e2e.cluster import images, node_store
from e2e.cluster.places import CHECKOUT

ROLES = ("operator", "dataplane")


def dockerfile(role: str) -> str:
    return (CHECKOUT / role / "Dockerfile").read_text()


@pytest.mark.parametrize("role", ROLES)
def test_an_image_runs_as_a_numeric_user_that_is_not_root(role: str):
    assert re.search(r"^USER 65532:65532$", dockerfile(role), re.MULTILINE)


@pytest.mark.parametrize("role", ROLES)
def test_dependencies_are_installed_by_hash_and_nothing_else_comes_from_an_index(role: str):
    installs = [line for line in dockerfile(role).splitlines() if re.search(r"pip (install|wheel)", line)]
    assert len(installs) == (5 if role == "dataplane" else 4)  # one more with engines
    assert all("--require-hashes" in line or "--no-index" in line for line in installs)


@pytest.mark.parametrize("role", ROLES)
def test_the_base_image_is_an_argument_with_a_public_default(role: str):
    assert "ARG BASE=python:3.11-slim-bookworm\n" in dockerfile(role)


def test_locks_hold_what_older_interpreters_need():
    # Debian 12 has Python 3.11.2; redis needs this one below 3.11.3.
    for role in ROLES:
        assert "async-timeout==" in (CHECKOUT / "requirements" / f"{role}.lock").read_text()


def test_the_tag_of_the_fleets_images_is_the_callers_and_of_redis_is_not():
    names = {image.full_name("next") for image in images.IMAGES}
    ours = {f"voicefleet.local/{name}:next" for name in ("operator", "dataplane", "pipeline")}
    assert names == {*ours, "voicefleet.local/redis:7"}


def test_bases_of_other_packages_have_other_names():
    assert images.PYTHON.key != images.REDIS.key
    assert images.Base("python", ("python3",)).tag != images.PYTHON.tag


def test_a_path_with_a_blank_survives_the_import_script():
    script = node_store.import_script(Path("/c"), Path("/s"), [Path("/a b.tar")])
    assert "images import '/a b.tar'\n" in script
    assert script.rstrip().endswith("wait $runtime || true")


@pytest.mark.parametrize(
    "words", [["up"], ["up", "--images", "--tag", "x"], ["image"], ["down"], ["load-image", "a.tar", "b.tar"]]
)
def test_every_verb_has_a_command(words: list[str]):
    assert callable(program.parser().parse_args(words).does)


def test_the_current_context_gets_no_images_but_is_told_how(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("VOICEFLEET_USE_CURRENT_CONTEXT", "1")
    assert program.main(["load-image", "a.tar"]) == 1
    assert "push them to a registry" in capsys.readouterr().err


def test_down_leaves_the_cluster_of_the_current_context_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("VOICEFLEET_USE_CURRENT_CONTEXT", "1")
    assert program.main(["down"]) == 0
    assert "stays" in capsys.readouterr().out


def image_of(folder: Path) -> images.Image:
    (folder / "Dockerfile").write_text("FROM x\n")
    (folder / "src").mkdir(exist_ok=True)
    (folder / "src" / "a.py").write_text("1\n")
    return images.Image("x", images.PYTHON, folder / "Dockerfile", folder, ("src",))


def test_an_image_is_built_again_when_a_source_changes(tmp_path: Path):
    image = image_of(tmp_path)
    before = image.key()
    (tmp_path / "src" / "a.py").write_text("2\n")
    assert image.key() != before


def test_an_image_is_not_built_again_for_what_it_does_not_hold(tmp_path: Path):
    image = image_of(tmp_path)
    before = image.key()
    (tmp_path / "src" / "__pycache__").mkdir()
    (tmp_path / "src" / "__pycache__" / "a.pyc").write_bytes(b"x")
    (tmp_path / "other.txt").write_text("x")
    assert image.key() == before


@pytest.mark.parametrize("role", ROLES)
def test_the_hash_covers_all_that_the_dockerfile_copies(role: str):
    (image,) = [image for image in images.IMAGES if image.name == role]
    copied = [
        source.rstrip("/")
        for line in dockerfile(role).splitlines()
        if line.startswith("COPY") and "--from" not in line
        for source in line.split()[1:-1]
    ]
    assert set(image.sources) <= set(copied)
    for path in copied:
        assert any(path == source or path.startswith(f"{source}/") for source in image.sources), path

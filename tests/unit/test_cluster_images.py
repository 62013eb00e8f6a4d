"""Image archives made without an image builder, and which of them a node lacks."""

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

from e2e.cluster import loading
from e2e.cluster.archive import docker_archive


def members(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {info.name: tar.extractfile(info).read() for info in tar}  # type: ignore[union-attr] -- regular files only


def test_an_archive_names_its_own_parts_by_their_hashes():
    files = members(docker_archive("x/y:1", {"/run": b"program"}, ["/run"], "amd64"))
    (entry,) = json.loads(files["manifest.json"])
    config = json.loads(files[entry["Config"]])
    assert entry["RepoTags"] == ["x/y:1"] and config["config"]["Entrypoint"] == ["/run"]
    assert config["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(files[entry["Layers"][0]]).hexdigest()]


def test_the_same_files_make_the_same_bytes():
    assert docker_archive("x", {"/a": b"1"}, [], "amd64") == docker_archive("x", {"/a": b"1"}, [], "amd64")


def test_programs_in_a_layer_are_executable():
    files = members(docker_archive("x", {"/bin/a": b"1"}, [], "amd64"))
    layer = next(data for name, data in files.items() if name.endswith("layer.tar"))
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        assert tar.getmember("bin/a").mode == 0o755


def test_an_archive_written_again_is_another_one(tmp_path: Path):
    archive = tmp_path / "a.tar"
    archive.write_bytes(b"x")
    before = loading.archive_identity(archive)
    os.utime(archive, ns=(1, 1))
    assert loading.archive_identity(archive) != before

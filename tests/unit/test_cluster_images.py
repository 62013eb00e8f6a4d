"""Image archives made without an image builder, and which of them a node lacks."""

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

from e2e.cluster import loading
from e2e.cluster.archive import docker_archive, image_layers, is_docker_archive, write_thin_archive


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


def archive_of(folder: Path, name: str, program: bytes) -> Path:
    path = folder / f"{name}.tar"
    path.write_bytes(docker_archive(f"local/{name}:1", {f"/{name}": program}, [f"/{name}"], "amd64"))
    return path


def test_a_thin_archive_names_every_image_and_holds_only_the_layers_that_are_missing(tmp_path: Path):
    old, new = archive_of(tmp_path, "old", b"x" * 5000), archive_of(tmp_path, "new", b"y")
    (there,), (lacking,) = image_layers(old), image_layers(new)
    write_thin_archive(tmp_path / "thin.tar", [old, new], {there})
    files = members((tmp_path / "thin.tar").read_bytes())
    index = json.loads(files["index.json"])["manifests"]
    assert [entry["annotations"]["io.containerd.image.name"] for entry in index] == ["local/old:1", "local/new:1"]
    assert "blobs/" + lacking.replace(":", "/") in files and "blobs/" + there.replace(":", "/") not in files
    for entry, layer in zip(index, (there, lacking), strict=True):
        manifest = json.loads(files["blobs/" + entry["digest"].replace(":", "/")])
        assert [described["digest"] for described in manifest["layers"]] == [layer]
        assert manifest["config"]["size"] == len(files["blobs/" + manifest["config"]["digest"].replace(":", "/")])


def test_every_blob_of_a_thin_archive_has_the_digest_it_is_named_by(tmp_path: Path):
    write_thin_archive(tmp_path / "thin.tar", [archive_of(tmp_path, "a", b"1"), archive_of(tmp_path, "b", b"1")], set())
    blobs = {
        name: data for name, data in members((tmp_path / "thin.tar").read_bytes()).items() if name.startswith("blobs/")
    }
    assert blobs and all(hashlib.sha256(data).hexdigest() == name.rpartition("/")[2] for name, data in blobs.items())


def test_another_kind_of_archive_is_told_apart(tmp_path: Path):
    write_thin_archive(tmp_path / "thin.tar", [docker := archive_of(tmp_path, "a", b"1")], set())
    (tmp_path / "text").write_text("no archive")
    assert is_docker_archive(docker)
    assert not is_docker_archive(tmp_path / "thin.tar") and not is_docker_archive(tmp_path / "text")

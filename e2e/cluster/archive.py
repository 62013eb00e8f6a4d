"""Image archives without an image builder.

A docker-archive (one layer) around a few files, byte for byte the same for the same input; and from docker-archives one
OCI archive with only those layers that the receiver lacks: `ctr images import` writes every blob of an archive to disk
before it finds that it has it already, hundreds of megabytes for a changed line of ours.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any


def _add(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), mode
    tar.addfile(info, io.BytesIO(data))


def layer(files: Mapping[str, bytes]) -> bytes:
    """Executable files at absolute paths, as a layer."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in sorted(files.items()):
            _add(tar, name.lstrip("/"), data, 0o755)
    return out.getvalue()


def docker_archive(tag: str, files: Mapping[str, bytes], entrypoint: Sequence[str], architecture: str) -> bytes:
    content = layer(files)
    digest = hashlib.sha256(content).hexdigest()
    config = json.dumps(
        {
            "architecture": architecture,
            "os": "linux",
            "config": {"Entrypoint": list(entrypoint), "Env": ["PATH=/"], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [tag], "Layers": [f"{digest}/layer.tar"]}]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        _add(tar, config_name, config)
        _add(tar, f"{digest}/layer.tar", content)
        _add(tar, "manifest.json", json.dumps(manifest).encode())
    return out.getvalue()


OCI = "application/vnd.oci.image"


def image_layers(archive: Path) -> list[str]:
    """Digests of the layers of a docker-archive's images."""
    with tarfile.open(archive) as tar:
        return [digest for entry in _manifest(tar) for digest in _config(tar, entry)["rootfs"]["diff_ids"]]


def write_thin_archive(out: Path, archives: Sequence[Path], present: Collection[str]) -> None:
    """One OCI archive of all images in docker-archives, without the layers whose digests are `present`."""
    index: list[dict[str, object]] = []
    written = set(present)
    with tarfile.open(out, mode="w") as thin:

        def blob(data: bytes, media_type: str) -> dict[str, object]:
            digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
            if digest not in written:
                _add(thin, _blob_path(digest), data)
                written.add(digest)
            return {"mediaType": media_type, "digest": digest, "size": len(data)}

        for archive in archives:
            with tarfile.open(archive) as full:
                for entry in _manifest(full):
                    layers = []
                    for name, digest in zip(entry["Layers"], _config(full, entry)["rootfs"]["diff_ids"], strict=True):
                        content = full.extractfile(name)
                        size = content.seek(0, io.SEEK_END)
                        layers.append({"mediaType": f"{OCI}.layer.v1.tar", "digest": digest, "size": size})
                        if digest not in written:
                            info = tarfile.TarInfo(_blob_path(digest))
                            info.size = size
                            content.seek(0)
                            thin.addfile(info, content)
                            written.add(digest)
                    config = blob(full.extractfile(entry["Config"]).read(), f"{OCI}.config.v1+json")
                    manifest = {
                        "schemaVersion": 2,
                        "mediaType": f"{OCI}.manifest.v1+json",
                        "config": config,
                        "layers": layers,
                    }
                    described = blob(json.dumps(manifest).encode(), f"{OCI}.manifest.v1+json")
                    index += [
                        {**described, "annotations": {"io.containerd.image.name": tag}} for tag in entry["RepoTags"]
                    ]
        _add(thin, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
        _add(thin, "index.json", json.dumps({"schemaVersion": 2, "manifests": index}).encode())


def is_docker_archive(archive: Path) -> bool:
    try:
        with tarfile.open(archive) as tar:
            tar.getmember("manifest.json")
    except (tarfile.TarError, KeyError):
        return False
    return True


def _blob_path(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _manifest(tar: tarfile.TarFile) -> list[dict[str, Any]]:
    return json.load(tar.extractfile("manifest.json"))


def _config(tar: tarfile.TarFile, entry: dict[str, Any]) -> dict[str, Any]:
    return json.load(tar.extractfile(entry["Config"]))


def write_atomically(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    draft.write_bytes(data)
    draft.rename(path)

"""Image archives without an image builder: a docker-archive (one layer) around a few files.

Byte for byte the same for the same input: no clock and no machine in it.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path


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


def write_atomically(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    draft.write_bytes(data)
    draft.rename(path)

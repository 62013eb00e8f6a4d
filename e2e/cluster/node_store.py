"""A containerd store with the fleet's images in it, made once; every node starts from hard links to it.

Importing three times what the images hold is half a minute of disk; linking is a second. Content and unpacked layers are
written once and never changed in place (a container writes to its own upper directory), so sharing them is safe; the
databases are changed, so each node gets copies of those.

The template is named by what fills it: bases, locked dependencies, Dockerfiles. Our own code is one small layer, which
the ordinary import brings up to date.
"""

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from e2e.cluster import images, system_images
from e2e.cluster.loading import archive_identity
from e2e.cluster.node import containerd_config
from e2e.cluster.places import CHECKOUT, cache, node_dir
from e2e.cluster.steps import ClusterError, run, step, succeeds

MEMORY = "loaded.json"
STORE = "containerd"


def template(tree: Path) -> Path:
    """Where the template for this checkout is, or would be."""
    digest = hashlib.sha256(
        json.dumps([system_images.pause_archive().name, system_images.coredns_archive(tree).name]).encode()
    )
    for image in images.IMAGES:
        digest.update(image.base.key.encode() + image.dockerfile.read_bytes())
    for lock in sorted((CHECKOUT / "requirements").glob("*.lock")):
        if lock.name != "dev.lock":
            digest.update(lock.read_bytes())
    return cache() / "nodes" / digest.hexdigest()[:16]


def import_script(config: Path, socket: Path, archives: Sequence[Path]) -> str:
    """Runs in mount and process namespaces of its own: a containerd for as long as the imports take."""
    ctr = f"ctr --address {shlex.quote(str(socket))} --namespace k8s.io"
    imports = "".join(f"{ctr} images import {shlex.quote(str(archive))}\n" for archive in archives)
    return f"""set -e
mount -t tmpfs tmpfs /run
containerd --config {shlex.quote(str(config))} &
runtime=$!
tries=0
until {ctr} version >/dev/null 2>&1; do
  tries=$((tries + 1)); [ $tries -lt 300 ] && kill -0 $runtime || exit 1
  sleep 0.1
done
{imports}kill $runtime
wait $runtime || true
"""


def make_template(tree: Path, archives: Sequence[Path]) -> None:
    """Fill a template with the system's images and the given ones, unless it is there."""
    place = template(tree)
    if place.is_dir():
        return
    everything = [system_images.pause_archive(), system_images.coredns_archive(tree), *archives]
    place.parent.mkdir(parents=True, exist_ok=True)
    for older in place.parent.iterdir():
        # One template is kept: it is a gigabyte and a half.
        shutil.rmtree(older, ignore_errors=True)
    log = cache() / "node-store.log"
    with (
        step("a node's image store, once") as line,
        tempfile.TemporaryDirectory(dir=place.parent, prefix=".draft-") as scratch,
    ):
        draft = Path(scratch) / "node"
        draft.mkdir()
        socket = Path(scratch) / "containerd.sock"
        config = Path(scratch) / "containerd.toml"
        config.write_text(containerd_config(socket, may_lower_oom_score=False, root=draft / STORE))
        with log.open("w") as out:
            argv = [*images.PRIVATE, "--propagation", "private", "sh", "-c", import_script(config, socket, everything)]
            if subprocess.run(argv, stdout=out, stderr=out, check=False).returncode != 0:
                raise ClusterError("the images could not be imported", log)
        (draft / MEMORY).write_text(json.dumps({str(archive): archive_identity(archive) for archive in everything}))
        draft.rename(place)
        line.note = f"{len(everything)} images"


def give(tree: Path, node: str) -> None:
    """Put the template's store, when there is one, where the node's containerd will look for it."""
    place = template(tree)
    if not place.is_dir():
        return
    target = node_dir(node) / "lib" / STORE
    target.parent.mkdir(parents=True, exist_ok=True)
    if not succeeds(["cp", "--archive", "--link", place / STORE, target]):
        # The cache is on another file system: copy.
        shutil.rmtree(target, ignore_errors=True)
        run(["cp", "--archive", "--reflink=auto", place / STORE, target])
    for database in target.glob("*/*.db"):
        own = database.with_suffix(".own")
        shutil.copyfile(database, own)
        os.replace(own, database)  # noqa: PTH105 -- the pair of copyfile
    shutil.copyfile(place / MEMORY, node_dir(node) / MEMORY)

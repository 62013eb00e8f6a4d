"""Builds the images of the fleet with buildah, over a Debian base of our own making (no registry need be reachable).

The base images are made once and cached under the hash of what they are made of; the layer of locked dependencies is
buildah's to cache; an image that came out the same is not written again. The work runs in mount and process namespaces
of its own, so that a killed run leaves neither a mounted layer nor a process.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from e2e.cluster import pip_settings, previous
from e2e.cluster.build import locked
from e2e.cluster.places import CHECKOUT, PACKAGE, cache
from e2e.cluster.steps import ClusterError, fail, run, step, together

RELEASE = "bookworm"
# Documentation and translations are a third of a minimal Debian.
LEAVE_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*")
PRIVATE = ("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


@dataclass(frozen=True)
class Base:
    """A Debian root file system to build upon."""

    name: str
    packages: tuple[str, ...]

    @property
    def key(self) -> str:
        return hashlib.sha256(json.dumps([RELEASE, self.packages, LEAVE_OUT]).encode()).hexdigest()[:16]

    @property
    def tag(self) -> str:
        return f"voicefleet.local/base/{self.name}:{self.key}"


@dataclass(frozen=True)
class Image:
    """A Dockerfile and what it is built from."""

    name: str
    base: Base
    dockerfile: Path
    context: Path
    sources: tuple[str, ...]  # what the Dockerfile copies, below the context
    tag: str | None = None  # None: the caller's
    target: str = ""  # a stage of the Dockerfile; empty: the last
    builders: tuple[tuple[str, Base], ...] = ()  # build argument → base of a stage that leaves nothing but a file

    def full_name(self, tag: str) -> str:
        return f"voicefleet.local/{self.name}:{self.tag or tag}"

    def key(self) -> str:
        """Of everything that goes in."""
        bases = "".join(base.key for base in (self.base, *(builder for _, builder in self.builders)))
        digest = hashlib.sha256(bases.encode() + self.target.encode() + self.dockerfile.read_bytes())
        for source in self.sources:
            root = self.context / source
            for path in sorted(root.rglob("*")) if root.is_dir() else [root]:
                if (
                    path.is_file()
                    and not IGNORED.intersection(path.relative_to(self.context).parts)
                    and path.suffix not in (".pyc", ".o")
                ):
                    digest.update(
                        f"\0{path.relative_to(self.context)}\0{path.stat().st_mode & 0o111}\0".encode()
                        + path.read_bytes()
                    )
        return digest.hexdigest()[:16]


PYTHON = Base("python", ("ca-certificates", "libbpf1", "python3", "python3-venv"))
BPF = Base("bpf", ("clang", "libbpf-dev"))
REDIS = Base("redis", ("redis-server", "redis-tools"))
IGNORED = frozenset({"__pycache__", "build", "voicefleet.egg-info"})  # as .dockerignore has it


def _sources(role: str) -> tuple[str, ...]:
    return (
        "pyproject.toml",
        "README.md",
        "requirements/build.lock",
        f"requirements/{role}.lock",
        "dataplane",
        "operator",
    )


_REDIS_FOLDER = PACKAGE / "images" / "redis"


def _fleet_images(tree: Path, more: tuple[str, ...] = ()) -> tuple[Image, Image]:
    """``more``: what this tree's Dockerfile of the dataplane copies besides."""
    dataplane = tree / "dataplane" / "Dockerfile"
    return (
        Image("operator", PYTHON, tree / "operator" / "Dockerfile", tree, _sources("operator")),
        Image("dataplane", PYTHON, dataplane, tree, (*_sources("dataplane"), *more), builders=(("BPF_BASE", BPF),)),
    )


_OPERATOR, _DATAPLANE = _fleet_images(CHECKOUT, ("requirements/pipeline.lock",))
IMAGES = (
    _OPERATOR,
    _DATAPLANE,
    replace(_DATAPLANE, name="pipeline", target="pipeline"),
    Image("redis", REDIS, _REDIS_FOLDER / "Dockerfile", _REDIS_FOLDER, (), tag="7"),
)


def images_of(tag: str) -> tuple[Image, ...]:
    """Return what is built under a tag: this checkout, or the release before it."""
    return _fleet_images(previous.tree()) if tag == previous.TAG else IMAGES


def build_images(tag: str) -> list[Path]:
    """Build all images under `tag`; returns their archives."""
    with tempfile.NamedTemporaryFile(mode="r", prefix="voicefleet-images-") as result:
        argv = [*PRIVATE, "--propagation", "private", sys.executable, "-m", "e2e.cluster.images", tag, result.name]
        if subprocess.run(argv, cwd=CHECKOUT, check=False).returncode != 0:
            raise ClusterError("the images were not built")
        return [Path(name) for name in json.load(result)]


def mmdebstrap_command(base: Base, out: Path) -> list[str]:
    options = [f"--dpkgopt=path-exclude={pattern}" for pattern in LEAVE_OUT]
    return [
        "mmdebstrap",
        "--quiet",
        "--mode=root",
        "--variant=minbase",
        f"--include={','.join(base.packages)}",
        *options,
        RELEASE,
        str(out),
    ]


class Builder:
    """buildah with a storage of our own: the machine's other images are not our business."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        storage = cache() / "buildah"
        # What the last run noted about its mounts; they ended with its namespace.
        shutil.rmtree(storage / "run", ignore_errors=True)
        self._buildah = [
            "buildah",
            "--root",
            str(storage / "root"),
            "--runroot",
            str(storage / "run"),
            "--storage-driver",
            "overlay",
        ]
        self._archives = cache() / "images"
        self._archives.mkdir(parents=True, exist_ok=True)

    def ensure_base(self, base: Base) -> None:
        names = json.loads(run([*self._buildah, "images", "--json"]) or "[]") or []
        if any(base.tag in (entry.get("names") or []) for entry in names):
            return
        with step(f"base image {base.name}: Debian {RELEASE} with {', '.join(base.packages)}"):
            rootfs = self._scratch / base.name / "rootfs.tar"
            rootfs.parent.mkdir()
            run(mmdebstrap_command(base, rootfs))
            dockerfile = rootfs.parent / "Dockerfile"
            dockerfile.write_text("FROM scratch\nADD rootfs.tar /\n")
            run([*self._buildah, "bud", "--quiet", "--tag", base.tag, "--file", dockerfile, rootfs.parent])
            rootfs.unlink()

    def pip_options(self) -> list[str]:
        files = [Path("/etc/pip.conf"), Path.home() / ".pip" / "pip.conf", Path.home() / ".config" / "pip" / "pip.conf"]
        if named := os.environ.get("PIP_CONFIG_FILE"):
            files.append(Path(named))
        settings = pip_settings.effective_settings([f.read_text() for f in files if f.is_file()], os.environ)
        candidates = (settings.get("cert"), os.environ.get("SSL_CERT_FILE"), "/etc/ssl/certs/ca-certificates.crt")
        certificates = next((path for path in candidates if path and Path(path).is_file()), None)
        folders = [f for f in pip_settings.local_folders(settings) if Path(f).is_dir() and any(Path(f).iterdir())]
        config = self._scratch / "pip.conf"
        config.write_text(pip_settings.config_text(settings, folders=folders, certificates=certificates is not None))
        options = ["--secret", f"id=pip,src={config}", *(word for f in folders for word in ("--volume", f"{f}:{f}:ro"))]
        return [*options, *(["--secret", f"id=ca,src={certificates}"] if certificates else [])]

    def build(self, image: Image, tag: str, options: list[str]) -> Path:
        name = image.full_name(tag)
        if not image.dockerfile.is_file():
            raise ClusterError(f"{image.dockerfile} is missing")
        stem = f"{image.name}-{image.tag or tag}"
        archive = self._archives / f"{stem}-{image.key()}.tar"
        if archive.is_file():
            return archive
        with step(f"image {name}") as line:
            log = cache() / f"image-{image.name}.log"
            with log.open("w") as out:
                argv = [
                    *(*self._buildah, "bud", "--isolation", "chroot", "--layers", "--pull-never"),
                    *("--build-arg", f"BASE={image.base.tag}", *options, "--tag", name),
                    *(word for key, base in image.builders for word in ("--build-arg", f"{key}={base.tag}")),
                    *(("--target", image.target) if image.target else ()),
                    *("--file", str(image.dockerfile), str(image.context)),
                ]
                if subprocess.run(argv, stdout=out, stderr=out, check=False).returncode != 0:
                    raise ClusterError(f"the image {name} was not built", log)
            draft = self._archives / f".{archive.name}.draft"
            draft.unlink(missing_ok=True)
            # docker-archive and not OCI: its layers are not compressed, and they only go to this machine.
            run([*self._buildah, "push", "--quiet", name, f"docker-archive:{draft}:{name}"])
            draft.rename(archive)
            # The one before stays: another checkout may be about to load it.
            for older in sorted(
                self._archives.glob(f"{stem}-????????????????.tar"), key=lambda path: path.stat().st_mtime
            )[:-2]:
                older.unlink(missing_ok=True)
            line.note = f"{archive.stat().st_size >> 20} MiB"
        return archive


def build_here(tag: str) -> list[Path]:
    with locked(cache() / "images.lock"), tempfile.TemporaryDirectory(prefix="voicefleet-images-") as scratch:
        builder = Builder(Path(scratch))
        together(*(lambda b=base: builder.ensure_base(b) for base in (PYTHON, REDIS, BPF)))
        options = builder.pip_options()
        archives: dict[str, Path] = {}
        wanted = images_of(tag)
        # Images of one Dockerfile follow each other: the second finds the first one's layers.
        files = {image.dockerfile: [one for one in wanted if one.dockerfile == image.dockerfile] for image in wanted}

        def build(those: list[Image]) -> None:
            for image in those:
                archives[image.name] = builder.build(image, tag, options if image.base is PYTHON else [])

        together(*(lambda those=those: build(those) for those in files.values()))
        return [archives[image.name] for image in wanted]


def main() -> int:
    tag, result = sys.argv[1:]
    try:
        archives = build_here(tag)
    except ClusterError as error:
        return fail(error)
    except KeyboardInterrupt:
        return 130
    Path(result).write_text(json.dumps([str(path) for path in archives]))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The pip settings of this machine, for use inside an image build. Pure.

They go in as build secrets: an index address or a certificate of the builder's network has no place in an image.
"""

import configparser
from collections.abc import Mapping, Sequence

# What tells pip where packages come from. Where it puts them is the Dockerfile's business.
SETTINGS = (
    *("index-url", "extra-index-url", "find-links", "no-index", "trusted-host", "proxy"),
    *("cert", "timeout", "default-timeout", "retries"),
)
CERTIFICATES_INSIDE = "/run/secrets/ca.crt"


def effective_settings(files: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
    """Later files override earlier ones and the environment overrides all, as pip has it."""
    settings: dict[str, str] = {}
    for text in files:
        parsed = configparser.RawConfigParser()
        parsed.read_string(text)
        for section in ("global", "install"):
            if parsed.has_section(section):
                settings.update({key.replace("_", "-"): value for key, value in parsed.items(section)})
    for name, value in environment.items():
        if name.startswith("PIP_"):
            settings[name.removeprefix("PIP_").lower().replace("_", "-")] = value
    return {key: value for key, value in settings.items() if key in SETTINGS and value}


def local_folders(settings: Mapping[str, str]) -> list[str]:
    """Folders of this machine among find-links: the build sees them only if they are mounted."""
    return [entry for entry in settings.get("find-links", "").split() if entry.startswith("/")]


def config_text(settings: Mapping[str, str], *, folders: Sequence[str], certificates: bool) -> str:
    """pip.conf as seen inside the build, where only `folders` of the local folders exist."""
    inside = dict(settings)
    links = [entry for entry in inside.pop("find-links", "").split() if not entry.startswith("/") or entry in folders]
    if links:
        inside["find-links"] = "\n    ".join(links)
    inside.pop("cert", None)
    if certificates:
        inside["cert"] = CERTIFICATES_INSIDE
    return "".join(["[global]\n", *(f"{key} = {value}\n" for key, value in sorted(inside.items()))])

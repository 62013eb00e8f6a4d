"""Which release a process is of: what `--version`, metrics, logs and the control API say. For people, in an upgrade.

No process decides anything by it: what they understand of each other are the versions of documents (topology, http_api,
registry, hint), each one apart from its neighbours at most.
"""

from functools import cache
from importlib.metadata import version

BUILD_INFO = "voicefleet_build_info"
BUILD_INFO_HELP = "1, labelled with the release that this process is of."


@cache
def release() -> str:
    """Return the installed distribution's version."""
    return version("voicefleet")

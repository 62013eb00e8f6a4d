"""Every target, by name, and where it is: a process that fuzzes one imports no other.

One more: a function that takes bytes, and seeds, in the TARGETS of one of these files; and its name here.
"""

from importlib import import_module

from tests.fuzz.target import Target

ROOMS = {
    "wire": ("stun", "spp", "rtp", "rtcp", "dtls", "opus"),
    "contract": (
        *("hint", "call_id", "ephemeral_key", "announcement", "cached_flow", "registry", "topology", "annotation"),
    ),
    "text": ("sdp_offer", "sdp_answer", "sdp_fragment", "form", "session", "outside", "selector", "hook"),
    "agents": ("agent", "pipeline", "rtvi", "sctp"),
    "listeners": ("proxy_header", "head"),
    "relays": ("relay",),
    "calls": ("calls",),
}
NAMES = [name for names in ROOMS.values() for name in names]


def load(name: str) -> Target:
    """Return a target."""
    room = next(room for room, names in ROOMS.items() if name in names)
    targets: list[Target] = import_module(f"tests.fuzz.targets.{room}").TARGETS
    return next(target for target in targets if target.name == name)

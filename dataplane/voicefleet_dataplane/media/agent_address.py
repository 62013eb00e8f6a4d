"""Which addresses an agent's URL may lead to.

The URL is the resource's, but its name is resolved on the node's network, where the cloud's metadata service, the kubelet and
every database of the company answer too. So an address counts, not a name, and it is looked at when it is dialled: a name that
changes its mind between check and use wins nothing (ADR 27).

Owns: that judgement. Does not own: resolving or dialling (shell/agents/dialer.py).
"""

import ipaddress
from enum import StrEnum
from urllib.parse import urlsplit

_SHARED = ipaddress.ip_network(
    "100.64.0.0/10"
)  # RFC 6598: providers and some pod networks; Python calls it neither private nor global
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class Network(StrEnum):
    """As `spec.backend.network` spells them; Loopback is for `voicefleet dev` and tests, no resource can say it."""

    PUBLIC = "Public"
    PRIVATE = "Private"
    LOOPBACK = "Loopback"


def refusal_of_address(host: str, network: Network) -> str | None:
    """Return why an address must not be dialled, or None. Raises ValueError if it is no address."""
    address = ipaddress.ip_address(host.split("%", 1)[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(address.packed[12:])
        if inner is not None:
            return refusal_of_address(str(inner), network)
    if (
        address.is_unspecified
        or address.is_multicast
        or address.is_link_local
        or (address.is_reserved and not address.is_private)
    ):
        return "is not an address of one machine"
    if address.is_loopback:
        return None if network is Network.LOOPBACK else "is this machine itself"
    if network is Network.PUBLIC and (not address.is_global or address in _SHARED):
        return "is private; set spec.backend.network to Private if that is meant"
    return None


def refusal_of_url(url: str, *, http: bool = False) -> str | None:
    """Return why a URL cannot be an agent's, or None. ``http``: it may be a hook of a pipeline."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return f"is not a URL: {error}"
    if parts.scheme not in ("ws", "wss") and not (http and parts.scheme in ("http", "https")):
        return f"is not a WebSocket URL: write ws:// or wss://{', or http:// or https://' if http else ''}"
    if not parts.hostname or port == 0:
        return "names no host"
    if parts.username is not None or parts.password is not None:
        return "carries a password: put the key into a Secret and name it in spec.backend.secretRef"
    if parts.fragment:
        return "has a fragment, which no server would see"
    return None

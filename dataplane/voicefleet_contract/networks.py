"""Networks of addresses: those that settings name, and those that limits count by."""

import ipaddress
from typing import Annotated

from pydantic import AfterValidator

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_networks(text: str) -> tuple[Network, ...]:
    """Return the networks of a comma-separated list. Raises ValueError naming the wrong one."""
    return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())


def _checked(text: str) -> str:
    try:
        parse_networks(text)
    except ValueError as error:
        raise ValueError(f"{error}: write networks, for example 10.0.0.0/8,2001:db8::/32") from None
    return text


NetworkList = Annotated[str, AfterValidator(_checked)]  # of a setting; empty: none


def is_within(host: str, networks: tuple[Network, ...]) -> bool:
    """Tell whether an address, as `normalise` writes it, is in one of the networks."""
    return bool(networks) and any(ipaddress.ip_address(host) in network for network in networks)


def limit_key(client: str) -> str:
    """Return what limits count by: an IPv4 address, or an IPv6 /64, the least that one subscriber has."""
    if ":" not in client:
        return client
    return str(ipaddress.IPv6Network((client, 64), strict=False))

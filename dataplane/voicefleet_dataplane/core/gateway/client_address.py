"""Which address a request comes from, when load balancers stand in front.

``X-Forwarded-For`` is a claim: anybody may send one. Each trusted forwarder appends the address it saw, so the list is
read from the right, and the first address that is not itself a trusted forwarder is the client's.

Owns: that reading. Does not own: the header's transport or what the address is used for.
"""

import ipaddress

from voicefleet_contract.addresses import normalise

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_networks(text: str) -> tuple[Network, ...]:
    """Return the networks of a comma-separated list. Raises ValueError naming the wrong one."""
    return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())


def client_address(peer: str, forwarded_for: str, trusted: tuple[Network, ...]) -> str:
    """Return the client's address: the peer's, or the rightmost of the header that no trusted forwarder owns."""
    client = normalise(peer)
    claimed = [part.strip() for part in forwarded_for.split(",") if part.strip()]
    while claimed and _is_trusted(client, trusted):
        try:
            client = normalise(claimed.pop())
        except ValueError:  # a trusted forwarder does not write this: what stands left of it is not believed
            break
    return client


def limit_key(client: str) -> str:
    """Return what rate limits count by: an IPv4 address, or an IPv6 /64, the least that one subscriber has."""
    if ":" not in client:
        return client
    return str(ipaddress.IPv6Network((client, 64), strict=False))


def _is_trusted(host: str, trusted: tuple[Network, ...]) -> bool:
    address = ipaddress.ip_address(host)
    return any(address in network for network in trusted)

"""Which address a request comes from, when load balancers stand in front.

``X-Forwarded-For`` is a claim: anybody may send one. Each trusted forwarder appends the address it saw, so the list is
read from the right, and the first address that is not itself a trusted forwarder is the client's.

Owns: that reading. Does not own: the header's transport or what the address is used for.
"""

from voicefleet_contract.addresses import normalise
from voicefleet_contract.networks import Network, is_within


def client_address(peer: str, forwarded_for: str, trusted: tuple[Network, ...]) -> str:
    """Return the client's address: the peer's, or the rightmost of the header that no trusted forwarder owns."""
    client = normalise(peer)
    claimed = [part.strip() for part in forwarded_for.split(",") if part.strip()]
    while claimed and is_within(client, trusted):
        try:
            client = normalise(claimed.pop())
        except ValueError:  # a trusted forwarder does not write this: what stands left of it is not believed
            break
    return client

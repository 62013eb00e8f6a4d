"""How much of a relay strangers may use: checks that fail, and flows that are new, by the network they come from.

A check that is not plainly the consent check of a flow that we hold costs parsing and up to three HMACs before anybody knows
whether it is authentic. So it takes a token first, from its network's bucket (/24, /48: what one attacker usually holds) and
from one for all (sources can be made up), and gets both back when it was authentic: honest callers pay nothing, and a
network that sent garbage is refused for the price of a dictionary look-up. Consent checks of held flows do not pass here as long as
few of them fail (core/relay/own_checks.py), so no flood ends a call in progress; what a flood can do is hold up new calls, of its own network first.

New flows have a bucket of their own. Its burst is high: after a relay's restart a whole network's flows come back within one
check interval.

Owns: the buckets. Does not own: which packets pay (core/relay/relay.py).
"""

import ipaddress

from voicefleet_contract.addresses import Address
from voicefleet_contract.drops import DropReason
from voicefleet_dataplane.core.limits import RateLimit

_FAILED_BURST_S = 2.0
_NEW_FLOWS_BURST_S = 20.0
MOST_NETWORKS = 16_384  # 3 MB a table at most; the one that was quiet longest is forgotten first
_ALL = ""


def network_of(host: str) -> str:
    """Return the /24 of an IPv4 address, the /48 of an IPv6 one."""
    if ":" in host:
        return ipaddress.IPv6Address(host).packed[:6].hex(":", 2)
    return host[: host.rindex(".")]


class CheckLimits:
    """Rates per second; 0 is no limit."""

    def __init__(
        self,
        *,
        failed_checks: float = 0.0,
        failed_checks_of_a_network: float = 0.0,
        new_flows_of_a_network: float = 0.0,
    ) -> None:
        self._all = _bucket(failed_checks, _FAILED_BURST_S)
        self._networks = _bucket(failed_checks_of_a_network, _FAILED_BURST_S)
        self._flows = _bucket(new_flows_of_a_network, _NEW_FLOWS_BURST_S)

    def admit_check(self, client: Address, now: float) -> DropReason | None:
        """Let a check be looked at, or say why not. What was authentic comes back to `check_was_authentic`."""
        network = network_of(client.host)
        if self._networks is not None and self._networks.take(network, now):
            return DropReason.CHECK_LIMIT_OF_NETWORK
        if self._all is not None and self._all.take(_ALL, now):
            if self._networks is not None:
                self._networks.give_back(network)
            return DropReason.CHECK_LIMIT
        return None

    def check_was_authentic(self, client: Address) -> None:
        """Give back what the check took."""
        if self._networks is not None:
            self._networks.give_back(network_of(client.host))
        if self._all is not None:
            self._all.give_back(_ALL)

    def admit_flow(self, client: Address, now: float) -> DropReason | None:
        """Let an authentic check bind a new flow, or say why not."""
        if self._flows is not None and self._flows.take(network_of(client.host), now):
            return DropReason.FLOW_LIMIT_OF_NETWORK
        return None


def _bucket(per_s: float, burst_s: float) -> RateLimit | None:
    return RateLimit(per_s, max(1.0, per_s * burst_s), MOST_NETWORKS) if per_s else None

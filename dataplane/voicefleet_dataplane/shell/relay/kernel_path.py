"""Flows of a relay → rules of its fast path, and what the rules have carried → flows.

::

    the owner is on another node                          the owner is on this one
      out  (owner → inner:port)    → (public → client)      out  (owner → client)  → (public → client)   at egress
      in   (client → public:3478)  → (inner:port → owner)   in   (client → public) → (client → owner)    up the stack

A flow that the kernel cannot carry stays in user space, silently: owner and client of different families, a way past
interfaces that are not covered, no port or no room left. Nothing of that is an error to anybody.

Owns: which rules a flow has, what each has carried so far, adoption, sweeps. Does not own: whether a flow may have rules
at all (core/relay/relay.py), maps and hooks (fastpath).
"""

import asyncio
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass

from voicefleet_contract.addresses import UNSPECIFIED, Address
from voicefleet_dataplane.core.relay.bypass import FlowPorts
from voicefleet_dataplane.core.relay.flow import Flow
from voicefleet_dataplane.core.relay.relay import Relay
from voicefleet_dataplane.fastpath.engine import FastPath
from voicefleet_dataplane.fastpath.maps import Carried, Ends, How, Rule
from voicefleet_dataplane.fastpath.netlink import Way

log = logging.getLogger("voicefleet.relay")

_ROUTES_KEPT_S = 5.0
_SWEEP_S = 5.0
_SWEEP_AT_ONCE_S = 0.05  # of the half second from one `tend` to the next


@dataclass(slots=True)
class _Ways:
    """A flow with rules in the kernel, and what of theirs is accounted for already.

    The rules themselves follow from the flow and ``public``, so nothing of them is kept: a million flows are as many of these.
    """

    flow: Flow
    public: Address  # what the client sends to: one object for all flows of an address
    packets_in: int = 0
    bytes_in: int = 0
    packets_out: int = 0
    bytes_out: int = 0


class KernelPath:
    """Implements core.bypass.Bypass over a FastPath."""

    def __init__(self, core: Relay, engine: FastPath, public: Address, ports: FlowPorts) -> None:
        self._core, self._engine, self._ports = core, engine, ports
        self._public = public
        self._any_address = public.host in UNSPECIFIED
        self._publics: dict[str, Address] = {}
        # By the ends that a rule sees, as the kernel spells them.
        self._outward: dict[bytes, _Ways] = {}
        self._inward: dict[bytes, _Ways] = {}
        self._ways: dict[str, Way | None] = {}
        self._ways_at = float("-inf")
        self._swept_at = float("-inf")  # when the last sweep, or the one under way, began
        self._sweep: Iterator[list[tuple[bytes, Carried]]] | None = None
        self.refused = 0  # flows that had a way, and for which there was no room

    def __len__(self) -> int:
        return len(self._outward) + len(self._inward)

    # ---- Bypass

    def announce(self, flow: Flow) -> Address | None:
        """Make the rule of the way out."""
        client, owner, inner = flow.client, flow.owner_address, self._core.inner
        if not (":" in client.host) == (":" in owner.host) == (":" in inner.host):
            return None
        to_owner = self._way(owner.host)
        if to_owner is None:
            return None
        to_client = self._engine.way(client.host)
        if to_client is None or to_client.local:
            return None
        public = self._public_at(flow.public or to_client.source)
        bare = client
        if not to_owner.local:
            port = self._ports.take(owner)
            if port is None:
                self.refused += 1
                return None
            bare = Address(inner.host, port)
        ways = _Ways(flow, public)
        rule = _rule_out(flow, bare, ways.public)
        if self._put(rule):
            self._outward[rule.seen.encode()] = ways
            return bare
        self._give_back(flow, bare)
        return None

    def open(self, flow: Flow) -> None:
        """Make the rule of the way in."""
        ways = self._outward.get(_out_key(flow))
        if ways is None or flow.bare is None:
            return
        rule = _rule_in(flow, flow.bare, ways.public)
        if self._put(rule):
            self._inward[rule.seen.encode()] = ways

    def close(self, flow: Flow) -> None:
        """Take both rules away, and account for what they carried to the end."""
        ways = self._outward.pop(_out_key(flow), None)
        if ways is None or flow.bare is None:
            return
        self._account_outward(ways, self._engine.drop(_rule_out(flow, flow.bare, ways.public)))
        inward = _rule_in(flow, flow.bare, ways.public)
        if self._inward.pop(inward.seen.encode(), None) is not None:
            self._account_inward(ways, self._engine.drop(inward))
        self._give_back(flow, flow.bare)

    # ---- time

    def adopt(self, now: float) -> int:
        """Know the flows again that a predecessor's rules belong to; gives how many. Before the first packet."""
        ways_in: dict[Address, tuple[Rule, Carried]] = {}
        ways_out: list[tuple[Rule, Carried]] = []
        for rule, carried in self._engine.rules():
            if rule.seen.destination.port == self._public.port and rule.how is not How.RETURN:
                ways_in[rule.seen.source] = (rule, carried)
            else:
                ways_out.append((rule, carried))
        adopted = 0
        for rule, carried in ways_out:
            client, bare = rule.to.destination, rule.seen.destination
            inward = ways_in.pop(client, None)
            if inward is not None and inward[0].to != Ends(bare, rule.seen.source):
                self._engine.drop(inward[0])  # half of another flow
                inward = None
            if self._adopt_flow(rule, carried, inward, now):
                adopted += 1
            else:
                for one in (rule, *(() if inward is None else (inward[0],))):
                    self._engine.drop(one)
        for rule, _ in ways_in.values():
            self._engine.drop(rule)
        return adopted

    async def tend(self, now: float) -> None:
        """Keep rules in force; now and then take account of all of them, between packets.

        A sweep takes a tenth of the core at most: one over a million flows goes on for many calls, and what it proves is proven
        as of its beginning.
        """
        self._engine.tend(now)
        if self._sweep is None:
            if now - self._swept_at < _SWEEP_S:
                return
            self._sweep, self._swept_at = self._engine.carried(), now
        began = time.monotonic()
        for batch in self._sweep:
            self._account(batch)
            if time.monotonic() - began > _SWEEP_AT_ONCE_S:
                return
            await asyncio.sleep(0)
        self._sweep = None
        self._core.flows.evidence_until = self._swept_at

    # ---- inside

    def _adopt_flow(self, out: Rule, carried: Carried, inward: tuple[Rule, Carried] | None, now: float) -> bool:
        client, owner_address, bare = out.to.destination, out.seen.source, out.seen.destination
        if bare not in (client, Address(self._core.inner.host, bare.port)):
            return False  # from an address of this node that is ours no more
        flow = self._core.adopt(client, out.owner, owner_address, bare, now, awaits_owner=inward is None)
        if flow is None:
            return False
        if bare != client:
            self._ports.claim(owner_address, bare.port)
        public = self._publics.setdefault(out.to.source.host, out.to.source)
        if self._any_address:
            flow.public = public.host
        ways = _Ways(flow, public, packets_out=carried.packets, bytes_out=carried.bytes)
        self._outward[out.seen.encode()] = ways
        if inward is not None:
            ways.packets_in, ways.bytes_in = inward[1].packets, inward[1].bytes
            self._inward[inward[0].seen.encode()] = ways
        return True

    def _way(self, host: str) -> Way | None:
        """How an owner is reached: they are few, and every new flow asks."""
        now = time.monotonic()
        if now - self._ways_at > _ROUTES_KEPT_S:
            self._ways.clear()
            self._ways_at = now
        if host not in self._ways:
            self._ways[host] = self._engine.way(host)
        return self._ways[host]

    def _public_at(self, host: str) -> Address:
        """What a client sends to, of a relay that listens on all addresses."""
        if not self._any_address:
            return self._public
        return self._publics.setdefault(host, self._public._replace(host=host))

    def _put(self, rule: Rule) -> bool:
        try:
            self._engine.put(rule)
        except OSError as error:
            if not self.refused:
                log.warning(
                    "no room for another rule (%s): its media and that of flows to come stay in user space", error
                )
            self.refused += 1
            return False
        return True

    def _account(self, batch: list[tuple[bytes, Carried]]) -> None:
        inward, outward = self._inward, self._outward
        to_public = self._public.port.to_bytes(2, "big")
        for key, carried in batch:
            # A client's port may be the same number: then it is found in the second place.
            first, second = (inward, outward) if key.endswith(to_public) else (outward, inward)
            ways = first.get(key)
            if ways is None:
                first, ways = second, second.get(key)
            if ways is None:
                continue
            if first is inward:
                self._account_inward(ways, carried)
            else:
                self._account_outward(ways, carried)

    def _account_inward(self, ways: _Ways, carried: Carried | None) -> None:
        if carried is not None and carried.packets != ways.packets_in:
            packets, size_bytes = carried.packets - ways.packets_in, carried.bytes - ways.bytes_in
            ways.packets_in, ways.bytes_in = carried.packets, carried.bytes
            self._core.account(ways.flow, packets, size_bytes, carried.last_ns / 1e9, inward=True)

    def _account_outward(self, ways: _Ways, carried: Carried | None) -> None:
        if carried is not None and carried.packets != ways.packets_out:
            packets, size_bytes = carried.packets - ways.packets_out, carried.bytes - ways.bytes_out
            ways.packets_out, ways.bytes_out = carried.packets, carried.bytes
            self._core.account(ways.flow, packets, size_bytes, carried.last_ns / 1e9, inward=False)

    def _give_back(self, flow: Flow, bare: Address) -> None:
        if bare != flow.client:
            self._ports.give_back(flow.owner_address, bare.port)


def _rule_out(flow: Flow, bare: Address, public: Address) -> Rule:
    how = How.RETURN if bare == flow.client else How.FORWARD
    return Rule(Ends(flow.owner_address, bare), Ends(public, flow.client), how, flow.owner)


def _rule_in(flow: Flow, bare: Address, public: Address) -> Rule:
    how = How.DELIVER if bare == flow.client else How.FORWARD
    return Rule(Ends(flow.client, public), Ends(bare, flow.owner_address), how, flow.owner)


def _out_key(flow: Flow) -> bytes:
    assert flow.bare is not None
    return Ends(flow.owner_address, flow.bare).encode()

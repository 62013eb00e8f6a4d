"""Flows of a relay → rules of its fast path, and what the rules have carried → flows.

::

    the owner is on another node                          the owner is on this one
      out  (owner → inner:port)    → (public → client)      out  (owner → client)  → (public → client)   at egress
      in   (client → public:3478)  → (inner:port → owner)   in   (client → public) → (client → owner)    up the stack

A flow that the kernel cannot carry stays in user space, silently: owner and client of different families, a way past
interfaces that are not covered, no port or no room left. Nothing of that is an error to anybody.

Owns: which rules a flow has, what each has carried so far, adoption, sweeps. Does not own: whether a flow may have rules
at all (core/relay.py), maps and hooks (fastpath).
"""

import asyncio
import logging
import time
from dataclasses import dataclass

from voicefleet_contract.addresses import Address
from voicefleet_dataplane.core.bypass import FlowPorts
from voicefleet_dataplane.core.flow import Flow
from voicefleet_dataplane.core.relay import Relay
from voicefleet_dataplane.fastpath.engine import FastPath
from voicefleet_dataplane.fastpath.maps import Carried, Ends, How, Rule
from voicefleet_dataplane.fastpath.netlink import Way

log = logging.getLogger("voicefleet.relay")

_ROUTES_KEPT_S = 5.0
_SWEEP_S = 5.0
_NOTHING = Carried(0, 0, 0)


@dataclass(slots=True)
class _Direction:
    """A rule that is in the kernel, whose it is, and what is accounted for already."""

    flow: Flow
    rule: Rule
    inward: bool
    carried: Carried = _NOTHING


class KernelPath:
    """Implements core.bypass.Bypass over a FastPath."""

    def __init__(self, core: Relay, engine: FastPath, public: Address, ports: FlowPorts) -> None:
        self._core, self._engine, self._ports = core, engine, ports
        self._public = public
        self._any_address = public.host in ("0.0.0.0", "::")
        self._rules: dict[bytes, _Direction] = {}
        self._ways: dict[str, Way | None] = {}
        self._ways_at = float("-inf")
        self._swept_at = float("-inf")
        self.refused = 0  # flows that had a way, and for which there was no room

    def __len__(self) -> int:
        return len(self._rules)

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
        public = self._public._replace(host=to_client.source) if self._any_address else self._public
        if to_owner.local:
            bare = client
            rule = Rule(Ends(owner, client), Ends(public, client), How.RETURN, flow.owner)
        else:
            port = self._ports.take(owner)
            if port is None:
                self.refused += 1
                return None
            bare = Address(inner.host, port)
            rule = Rule(Ends(owner, bare), Ends(public, client), How.FORWARD, flow.owner)
        if self._put(flow, rule, inward=False):
            return bare
        self._give_back(flow, bare)
        return None

    def open(self, flow: Flow) -> None:
        """Make the rule of the way in."""
        out = self._rules.get(_out_key(flow))
        if out is None or flow.bare is None:
            return
        public = out.rule.to.source
        how = How.DELIVER if flow.bare == flow.client else How.FORWARD
        self._put(
            flow, Rule(Ends(flow.client, public), Ends(flow.bare, flow.owner_address), how, flow.owner), inward=True
        )

    def close(self, flow: Flow) -> None:
        """Take both rules away, and account for what they carried to the end."""
        out = self._rules.pop(_out_key(flow), None)
        if out is None or flow.bare is None:
            return
        self._drop(out)
        inward = self._rules.pop(Ends(flow.client, out.rule.to.source).encode(), None)
        if inward is not None:
            self._drop(inward)
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
        """Keep rules in force; now and then take account of all of them, without keeping packets waiting."""
        self._engine.tend(now)
        if now - self._swept_at < _SWEEP_S:
            return
        self._swept_at = now
        for batch in self._engine.carried():
            for key, carried in batch:
                found = self._rules.get(key)
                if found is not None and carried != found.carried:
                    self._account(found, carried)
            await asyncio.sleep(0)
        self._core.flows.evidence_until = now

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
        self._rules[out.seen.encode()] = _Direction(flow, out, inward=False, carried=carried)
        if inward is not None:
            self._rules[inward[0].seen.encode()] = _Direction(flow, inward[0], inward=True, carried=inward[1])
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

    def _put(self, flow: Flow, rule: Rule, *, inward: bool) -> bool:
        try:
            self._engine.put(rule)
        except OSError as error:
            if not self.refused:
                log.warning(
                    "no room for another rule (%s): its media and that of flows to come stay in user space", error
                )
            self.refused += 1
            return False
        self._rules[rule.seen.encode()] = _Direction(flow, rule, inward)
        return True

    def _drop(self, direction: _Direction) -> None:
        self._account(direction, self._engine.drop(direction.rule))

    def _account(self, direction: _Direction, carried: Carried | None) -> None:
        if carried is None:
            return
        before, direction.carried = direction.carried, carried
        self._core.account(
            direction.flow,
            carried.packets - before.packets,
            carried.bytes - before.bytes,
            carried.last_ns / 1e9,
            inward=direction.inward,
        )

    def _give_back(self, flow: Flow, bare: Address) -> None:
        if bare != flow.client:
            self._ports.give_back(flow.owner_address, bare.port)


def _out_key(flow: Flow) -> bytes:
    assert flow.bare is not None
    return Ends(flow.owner_address, flow.bare).encode()

"""One resource that breaks the plan does not break it for the fleet.

A plan is computed for all resources together, so a mistake of ours that one spec brings to light would end every pass: no pool
would be mended, no lost member told. Whatever raises is looked for, resource by resource, and that one is taken for one that
is not understood (publish/unrecognized.py): it stays as it is, its status says so, and everything else goes on.
"""

from dataclasses import replace

from voicefleet_operator.desired.plan import Plan, plan
from voicefleet_operator.desired.state import Fleet, PoolResource, RelayResource, Unread


def plan_around(fleet: Fleet, now: float) -> tuple[Plan, Exception | None]:
    """Return a plan, and what a resource did to it that had to be left out. Raises what no single resource explains."""
    try:
        return plan(fleet, now), None
    except Exception as error:
        resources: list[tuple[str, RelayResource | PoolResource]] = [
            *(("VoiceRelay", relay) for _, relay in sorted(fleet.relays.items())),
            *(("Transceiver", pool) for _, pool in sorted(fleet.pools.items())),
        ]
        for kind, resource in resources:
            try:
                return plan(_without(fleet, kind, resource, error), now), error
            except Exception:  # noqa: S112  # not this one, or not this one alone
                continue
        raise


def _without(fleet: Fleet, kind: str, resource: RelayResource | PoolResource, error: Exception) -> Fleet:
    problem = f"{kind} {resource.name}: internal error: {type(error).__name__}: {error}"
    unread = {**fleet.unread, (kind, resource.name): Unread(resource.generation, problem, resource.status)}
    return replace(
        fleet,
        unread=unread,
        relays={name: one for name, one in fleet.relays.items() if one is not resource},
        pools={name: one for name, one in fleet.pools.items() if one is not resource},
    )

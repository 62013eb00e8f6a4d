"""The fleet for people: what a topology and the members' heartbeats say, problems first, of bounded size.

Owns: what is shown and in which order. Does not own: where either comes from, who may see it (shell/gateway/api/fleet.py).
"""

from collections.abc import Mapping
from typing import Any

from voicefleet_contract.registry import Heartbeat
from voicefleet_contract.topology import Member, MemberState, Pool, Relay, RelayState, Topology

MOST_SHOWN = 100  # of each pool, and of the relays: kubectl shows all of them

Beats = Mapping[tuple[int, int], Heartbeat]  # by slot and generation


def fleet_view(topology: Topology, beats: Beats, registry_problem: str = "") -> dict[str, Any]:
    """Return the fleet as JSON. Loads are None where no heartbeat is known; ``registry`` says why when none can be."""
    return {
        "cluster": topology.cluster,
        "revision": topology.revision,
        "registry": registry_problem,
        "relays": {
            "count": len(topology.relays),
            "shown": [_relay(one) for one in sorted(topology.relays, key=_relay_order)[:MOST_SHOWN]],
        },
        "pools": [_pool(pool, beats) for pool in sorted(topology.pools, key=lambda pool: pool.name)],
    }


def _relay_order(relay: Relay) -> tuple[bool, str]:
    return relay.state is RelayState.ACTIVE, relay.name


def _relay(relay: Relay) -> dict[str, Any]:
    return {
        "name": relay.name,
        "region": relay.region,
        "address": ", ".join(str(endpoint.as_address()) for endpoint in relay.advertise),
        "state": relay.state,
    }


def _pool(pool: Pool, beats: Beats) -> dict[str, Any]:
    members = [member for member in pool.members if member.state is not MemberState.GONE]
    heard = [beat for member in members if (beat := beats.get((member.slot, member.generation))) is not None]
    ordered = sorted(members, key=lambda member: (_is_well(member, beats), member.slot, member.generation))
    return {
        "name": pool.name,
        "ring_epoch": pool.ring_epoch,
        "count": len(members),
        "sessions": sum(beat.sessions for beat in heard) if heard else None,
        "capacity": sum(beat.capacity for beat in heard if beat.state == MemberState.ACTIVE) if heard else None,
        "members": [_member(member, beats) for member in ordered[:MOST_SHOWN]],
    }


def _is_well(member: Member, beats: Beats) -> bool:
    silent = bool(beats) and (member.slot, member.generation) not in beats
    return member.state is MemberState.ACTIVE and not member.gray and not silent


def _member(member: Member, beats: Beats) -> dict[str, Any]:
    beat = beats.get((member.slot, member.generation))
    return {
        "name": member.name,
        "node": member.node,
        "slot": member.slot,
        "generation": member.generation,
        "state": member.state,
        "gray": member.gray,
        "sessions": beat.sessions if beat else None,
        "capacity": beat.capacity if beat else None,
        "oldest_s": round(beat.oldest_session_age_s, 1) if beat else None,
    }

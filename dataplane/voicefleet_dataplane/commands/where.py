"""`voicefleet where`: read a hint or a call id, for people who look for a call.

Owns: the words. Does not own: the codecs (contract). Exit codes: 0 found (or merely read, said so), 1 wrong or unknown.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from voicefleet_contract.call_id import PREFIX, CallIdError, decode_call_id, peek_call_id
from voicefleet_contract.hint import HintError, decode_hint, peek_hint
from voicefleet_contract.keys import KeyRing, KeyRingError
from voicefleet_contract.topology import Topology, TopologyError, TopologyIndex

_WRONG = {
    "length": "one has 24 characters",
    "alphabet": "it holds characters that no ufrag has",
    "form": "a call id is 'call_' and 32 characters A–Z a–z 0–9 - _",
    "version": "it is of a version that this program does not know",
    "key_epoch": "it is signed with a key epoch that the key file does not hold",
    "tag": "its tag is wrong: it was not made with these keys, or was changed",
}


def where(text: str, *, hint_keys: Path | None, call_keys: Path | None, topology: Path | None, as_json: bool) -> int:
    """Print what a ufrag or a call id says, and return the exit code."""
    is_call = text.startswith(PREFIX)
    if not is_call and ":" in text:  # a whole STUN USERNAME is server_ufrag:client_ufrag
        text = text.split(":", 1)[0]
    try:
        keys = _keys(call_keys if is_call else hint_keys)
        known = TopologyIndex(Topology.load(topology.read_text("utf-8"))) if topology else None
        found = _call(text, keys) if is_call else _hint(text, keys)
    except (HintError, CallIdError) as error:
        kind = "call id" if is_call else "server ufrag"
        typer.echo(f"error: not a {kind} of this fleet: {_WRONG[error.reason]}", err=True)
        return 1
    except (KeyRingError, TopologyError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        return 1
    found["verified"] = keys is not None
    lost = None
    if known is not None:
        lost = _owner(found, known)
    if as_json:
        typer.echo(json.dumps(found))
    else:
        for name, value in found.items():
            typer.echo(f"{name.replace('_', ' '):<12} {value}")
        if keys is None:
            option = "--call-keys" if is_call else "--hint-keys"
            typer.echo(f"NOT VERIFIED: without {option} FILE anybody could have written these fields.", err=True)
    if lost:
        typer.echo(f"error: {lost}", err=True)
        return 1
    return 0


def _keys(path: Path | None) -> KeyRing | None:
    return None if path is None else KeyRing.parse(path.read_text("utf-8"))


def _hint(text: str, keys: KeyRing | None) -> dict[str, Any]:
    read: Callable[[str], Any] = peek_hint if keys is None else lambda ufrag: decode_hint(ufrag, keys)
    hint = read(text)
    return {
        "kind": "ufrag",
        "cluster": hint.cluster,
        "slot": hint.slot,
        "generation": hint.generation,
        "nonce": f"{hint.nonce:08x}",
        "key_epoch": hint.key_epoch,
    }


def _call(text: str, keys: KeyRing | None) -> dict[str, Any]:
    call = peek_call_id(text) if keys is None else decode_call_id(text, keys)
    return {
        "kind": "call",
        "cluster": call.cluster,
        "slot": call.slot,
        "generation": call.generation,
        "nonce": f"{call.nonce:016x}",
    }


def _owner(found: dict[str, Any], index: TopologyIndex) -> str | None:
    """Add the owner to ``found``, or return why there is none."""
    if found["cluster"] != index.cluster:
        return f"the topology is of cluster {index.cluster}"
    member = index.member(found["slot"], found["generation"])
    if member is None:
        return f"the topology knows no slot {found['slot']} in generation {found['generation']}"
    found |= {
        "pool": index.pool_of_slot(member.slot),
        "pod": member.name,
        "node": member.node,
        "address": str(member.as_address()),
        "state": member.state.value,
    }
    return None

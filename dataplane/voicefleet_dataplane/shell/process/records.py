"""A record for the registry, and where records go. Does not own: what they mean (each role), the connection (redis_sink)."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from voicefleet_contract.sessions import Command


class Record(NamedTuple):
    """One key with its JSON and how long it lives."""

    key: str
    value: str
    ttl_s: int


class RecordSink(Protocol):
    """Where records go."""

    async def write(self, records: Sequence[Record], forgotten: Sequence[str]) -> None:
        """Write records and delete keys, at once. May raise what its client library raises."""

    async def execute(self, commands: Sequence[Command]) -> Sequence[Any]:
        """Execute commands in order, in one round trip; gives their answers. May raise what its client library raises."""

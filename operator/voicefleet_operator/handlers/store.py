"""The fleet as last observed, fed by watches and by the answers to our own writes.

Of two versions of an object the newer resourceVersion wins, so a watch that is behind our own write changes nothing back.
Records, not objects, are kept: a pod costs a few hundred bytes here.

Owns: the newest record of each object, and whether anything changed. Does not own: what to do about it.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from voicefleet_contract import names
from voicefleet_contract.outside import parse_json
from voicefleet_contract.registry import Acknowledgement
from voicefleet_contract.release import release
from voicefleet_operator.cluster.api import version_of
from voicefleet_operator.cluster.observe import (
    Object,
    UnreadableError,
    observe_applied,
    observe_foreign_pod,
    observe_horizontal_autoscaler,
    observe_node,
    observe_pod,
    observe_pool,
    observe_relay,
    observe_slice,
    observe_unread,
)
from voicefleet_operator.desired.config import (
    CONFIG_KEY,
    MAX_CONFIG_BYTES,
    FleetConfig,
    FleetConfigError,
    parse_config,
    unknown_fields,
)
from voicefleet_operator.desired.ledger import Ledger
from voicefleet_operator.desired.objects import LABEL_FLEET, LABEL_FLEET_PORTS, MANAGED_BY
from voicefleet_operator.desired.pool.gray import History
from voicefleet_operator.desired.pool.quarantine import NAME as QUARANTINE
from voicefleet_operator.desired.pool.quarantine import decode_quarantine
from voicefleet_operator.desired.publish.unrecognized import KINDS as UNREAD_KINDS
from voicefleet_operator.desired.state import Drained, Fleet, ForeignPod, Place, Recommendation, Refusal, Unread

log = logging.getLogger("voicefleet.operator")

OURS = f"{names.LABEL_PART_OF}=voicefleet,{names.LABEL_MANAGED_BY}={MANAGED_BY}"
# What is watched, and with which labels the server filters.
WATCHED: dict[str, str] = {
    "ConfigMap": f"{LABEL_FLEET} in (config,{LABEL_FLEET_PORTS})",
    "VoiceRelay": "",
    "Transceiver": "",
    "Pod": OURS,
    "Node": "",
    "TopologySlice": "",
    "DaemonSet": OURS,
    "Deployment": OURS,
    "Service": OURS,
    "PodDisruptionBudget": OURS,
    "HorizontalPodAutoscaler": "",
}
_APPLIED = ("DaemonSet", "Deployment", "Service", "PodDisruptionBudget")
_READERS: dict[str, Callable[[Object], Any]] = {
    "VoiceRelay": observe_relay,
    "Transceiver": observe_pool,
    "Pod": observe_pod,
    "Node": observe_node,
    "TopologySlice": observe_slice,
    "HorizontalPodAutoscaler": observe_horizontal_autoscaler,
}


class FleetStore:
    """What is known of the fleet. ``dirty`` is set when it changed."""

    def __init__(self, namespace: str, config_name: str) -> None:
        self._namespace, self._config_name = namespace, config_name
        self._records: dict[str, dict[str, Any]] = {kind: {} for kind in WATCHED}
        self._versions: dict[tuple[str, str], int] = {}
        self._config: tuple[FleetConfig, str] | None = None
        self.config_problem = f"ConfigMap {config_name} not found: is the chart installed in namespace {namespace}?"
        self.dirty = asyncio.Event()
        self.ledger = Ledger()
        self.quarantine: Mapping[Place, float] = {}
        self._foreign: dict[str, ForeignPod] = {}
        self._foreign_versions: dict[str, int] = {}
        self.drained: dict[str, Drained] = {}
        self.sessions: Mapping[tuple[int, int], int] = {}
        self.setups_per_s: Mapping[tuple[int, int], float] = {}
        self.idle_since: Mapping[tuple[int, int], float] = {}
        self.recommendations: Mapping[str, tuple[Recommendation, ...]] = {}
        self.acknowledged: Mapping[str, Mapping[str, int]] | None = None
        self.acknowledgements: Mapping[str, Acknowledgement] | None = None
        self.flows_left: Mapping[str, int] = {}
        self.datapaths: Mapping[str, tuple[str, str]] | None = None
        self.media: History = {}
        self.media_asked: list[tuple[int, int]] = []  # members in the order in which they were asked
        self.refused: Mapping[tuple[str, str], Refusal] = {}
        self.waiting = 0  # changes that no pass has taken up
        self.waiting_since: float | None = None  # monotonic: of the first of them

    def mark(self) -> None:
        """Something changed: a pass is due."""
        self.waiting += 1
        if self.waiting_since is None:
            self.waiting_since = time.monotonic()
        self.dirty.set()

    def take_up(self) -> float | None:
        """A pass begins: forget what waited; return since when the first of it did."""
        since, self.waiting_since, self.waiting = self.waiting_since, None, 0
        self.dirty.clear()
        return since

    def take(self, kind: str, body: Object) -> None:
        """Take in an object as it is now."""
        metadata = body["metadata"]
        key, version = (kind, metadata["name"]), version_of(body)
        if version <= self._versions.get(key, -1):
            return
        self._versions[key] = version
        if kind == "ConfigMap":
            self._take_config(body)
            return
        try:
            record = observe_applied(kind, body) if kind in _APPLIED else _READERS[kind](body)
        except UnreadableError as error:
            log.error("%s; left alone", error)
            record = observe_unread(body, str(error)) if kind in UNREAD_KINDS else None
        self._set(kind, metadata["name"], record)

    def forget(self, kind: str, name: str, version: int | None = None) -> None:
        """Take in that an object is gone; ``version`` is its deletion's."""
        key = (kind, name)
        if version is not None and version < self._versions.get(key, -1):
            return  # the news of an older namesake
        self._versions.pop(key, None)
        if kind == "ConfigMap":
            if name == self._config_name and self._config is not None:
                self._config, self.config_problem = None, f"ConfigMap {name} was deleted"
                self.mark()
            if name == QUARANTINE:
                self._take_quarantine({})
            return
        self._set(kind, name, None)

    def take_foreign(self, body: Object, *, gone: bool = False) -> None:
        """Take in another namespace's pod; most declare no host port and leave no trace here."""
        key = f"{body['metadata']['namespace']}/{body['metadata']['name']}"
        record = None if gone else observe_foreign_pod(body)
        if self._foreign.get(key) == record:
            return
        if record is None:
            del self._foreign[key]
            self._foreign_versions.pop(key, None)
        else:
            self._foreign[key] = record
            self._foreign_versions[key] = version_of(body)
        self.mark()

    def forget_absent_foreign(self, names: Collection[str], version: int) -> set[str]:
        """The same for other namespaces' pods, ``namespace/name``."""
        gone = {key for key, at in self._foreign_versions.items() if key not in names and at <= version}
        for key in gone:
            del self._foreign[key], self._foreign_versions[key]
        if gone:
            self.mark()
        return gone

    def forget_absent(self, kind: str, names: Collection[str], version: int) -> set[str]:
        """Take in a list of all names of a kind as of ``version``: what is older and not in it is gone."""
        known = {name: at for (k, name), at in self._versions.items() if k == kind}
        gone = {name for name, at in known.items() if name not in names and at <= version}
        for name in gone:
            self.forget(kind, name)
        return gone

    def _set(self, kind: str, name: str, record: Any) -> None:
        records = self._records[kind]
        if records.get(name) == record:
            return
        if record is None:
            gone = records.pop(name, None)
            if kind == "Pod" and gone is not None:
                self.drained.pop(gone.uid, None)
        else:
            records[name] = record
        self.mark()

    def _take_quarantine(self, quarantine: Mapping[Place, float]) -> None:
        """People may take an entry out: its number is free again."""
        if quarantine != self.quarantine:
            self.quarantine = quarantine
            self.mark()

    def _take_config(self, body: Object) -> None:
        if body["metadata"]["name"] == QUARANTINE:
            self._take_quarantine(decode_quarantine(body.get("data") or {}))
        if body["metadata"]["name"] != self._config_name:
            return
        try:
            config = parse_config(body.get("data"))
        except FleetConfigError as error:
            self.config_problem = str(error)
            log.error("%s; %s", error, "the one read before stays in use" if self._config else "nothing is done")
            return
        self.config_problem = ""
        unknown = unknown_fields(config, parse_json(body["data"][CONFIG_KEY], MAX_CONFIG_BYTES))
        if unknown:
            log.warning("%s: %s: not known to release %s, left out", CONFIG_KEY, ", ".join(unknown), release())
        taken = (config, body["metadata"]["uid"])
        if taken != self._config:
            self._config = taken
            self.mark()

    def _understood(self, kind: str) -> dict[str, Any]:
        return {name: record for name, record in self._records[kind].items() if not isinstance(record, Unread)}

    def fleet(self) -> Fleet | None:
        """Return the fleet, or None while nobody has said what it is to be."""
        if self._config is None:
            return None
        config, uid = self._config
        return Fleet(
            namespace=self._namespace,
            config=config,
            config_name=self._config_name,
            config_uid=uid,
            ledger=self.ledger,
            relays=self._understood("VoiceRelay"),
            pools=self._understood("Transceiver"),
            unread={
                (kind, name): record
                for kind in UNREAD_KINDS
                for name, record in self._records[kind].items()
                if isinstance(record, Unread)
            },
            pods=dict(self._records["Pod"]),
            nodes=dict(self._records["Node"]),
            slices=dict(self._records["TopologySlice"]),
            applied={(kind, name): record for kind in _APPLIED for name, record in self._records[kind].items()},
            drained=dict(self.drained),
            foreign=dict(self._foreign),
            quarantine=self.quarantine,
            sessions=self.sessions,
            setups_per_s=self.setups_per_s,
            idle_since=self.idle_since,
            recommendations=self.recommendations,
            horizontal_autoscalers=dict(self._records["HorizontalPodAutoscaler"]),
            flows_left=self.flows_left,
            datapaths=self.datapaths,
            acknowledged=self.acknowledged,
            media=self.media,
            refused=self.refused,
        )

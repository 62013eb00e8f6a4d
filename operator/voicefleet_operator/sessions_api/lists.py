"""Lists of sessions as HTTP bodies: whole objects, only their metadata, or kubectl's table. Pure but for the registry.

A list without a limit is written while it is read: a million sessions take a page's memory.
"""

import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from voicefleet_contract.outside import OutsideError, parse_integer
from voicefleet_contract.sessions import SessionRecord
from voicefleet_operator.sessions_api.pages import Place, decode_continue, encode_continue
from voicefleet_operator.sessions_api.registry import SessionRegistry
from voicefleet_operator.sessions_api.resource import API_VERSION, KIND, Object, table, voice_session
from voicefleet_operator.sessions_api.selectors import Query
from voicefleet_operator.sessions_api.status import StatusError
from voicefleet_operator.sessions_api.watch import parse_version

LARGEST_PAGE = 5_000
_STREAMED_AT_ONCE = 500


class Form(StrEnum):
    """How an object is asked for."""

    WHOLE = "whole"
    METADATA = "metadata"
    TABLE = "table"


@dataclass(frozen=True, slots=True)
class View:
    """What is shown of a session: the form, the namespace, and what a table's rows carry."""

    form: Form
    namespace: str
    include: str = "Metadata"

    def one(self, record: SessionRecord, version: int) -> Object:
        """Return one session."""
        return self._formed(voice_session(record, self.namespace, version))

    def _formed(self, whole: Object) -> Object:
        if self.form is Form.TABLE:
            metadata = {"resourceVersion": whole["metadata"]["resourceVersion"]}
            return table([whole], metadata, include=self.include)
        if self.form is Form.METADATA:
            return {
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": whole["metadata"],
            }
        return whole

    def bookmark(self, version: int, *, initial_end: bool) -> Object:
        """Return the object of a bookmark."""
        metadata: Object = {"resourceVersion": str(version)}
        if initial_end:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        if self.form is Form.TABLE:
            empty = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata}
            rows = [{"cells": [], "object": empty}]
            return {**table([], {"resourceVersion": str(version)}, include="None", with_columns=False), "rows": rows}
        return {"kind": KIND, "apiVersion": API_VERSION, "metadata": metadata}


def negotiate(accept: str, namespace: str, include: str) -> View:
    """Return the view that an Accept header asks for, the first that we have. Raises StatusError 406."""
    for wanted in accept.split(",") if accept.strip() else ["*/*"]:
        kind, *parameters = (part.strip() for part in wanted.split(";"))
        if kind not in ("application/json", "application/*", "*/*"):
            continue
        said = dict(parameter.partition("=")[::2] for parameter in parameters)
        form = said.get("as", "")
        if form == "Table" and said.get("v") == "v1":
            return View(Form.TABLE, namespace, include or "Metadata")
        if re.fullmatch(r"PartialObjectMetadata(List)?", form) and said.get("v") == "v1":
            return View(Form.METADATA, namespace)
        if not form:
            return View(Form.WHOLE, namespace)
    raise StatusError(406, "only application/json is served (whole, as Table v1, or as PartialObjectMetadata v1)")


async def list_sessions(
    registry: SessionRegistry, query: Query, view: View, parameters: Mapping[str, str]
) -> AsyncIterator[bytes]:
    """Yield the parts of a list's body. Raises StatusError, RegistryAwayError before the first part."""
    limit = _limit(parameters.get("limit", ""))
    token = parameters.get("continue", "")
    after, newest = Place(), await registry.newest()
    version = newest
    asked = parse_version(parameters.get("resourceVersion", ""))
    if token:
        version, after = decode_continue(token)
        if version < await registry.epoch():
            raise StatusError(410, "the provided continue parameter is too old: list again from the start")
    elif asked and asked > newest:
        raise StatusError(504, f"Too large resource version: {asked}, current: {newest}", retry_after_s=1)
    elif asked and asked != newest and parameters.get("resourceVersionMatch") == "Exact":
        raise StatusError(410, f"resource version {asked} is not kept: sessions are listed as they are now")
    records = registry.walk(query, after, None if limit is None else limit + 1, newest)
    return _whole(records, view, version) if limit is None else _page(registry, records, query, view, version, limit)


async def _page(
    registry: SessionRegistry, records: AsyncIterator[SessionRecord], query: Query, view: View, version: int, limit: int
) -> AsyncIterator[bytes]:
    page: list[SessionRecord] = []
    metadata: Object = {}
    async for record in records:
        if len(page) == limit:
            last = page[-1]
            metadata["continue"] = encode_continue(version, Place(last.slot, last.generation, last.call_id))
            if query.plain:
                total = sum(slot.sessions for slot in await registry.slots())
                metadata["remainingItemCount"] = max(1, total - limit)
            break
        page.append(record)
    opening, closing, item = _frame(view, version, metadata)
    yield opening + b",".join(map(item, page)) + closing


async def _whole(records: AsyncIterator[SessionRecord], view: View, version: int) -> AsyncIterator[bytes]:
    opening, closing, item = _frame(view, version, {})
    yield opening
    between, part = b"", []
    async for record in records:
        part.append(item(record))
        if len(part) == _STREAMED_AT_ONCE:
            yield between + b",".join(part)
            between, part = b",", []
    yield (between + b",".join(part) if part else b"") + closing


def _frame(view: View, version: int, metadata: Object) -> tuple[bytes, bytes, Callable[[SessionRecord], bytes]]:
    metadata = {"resourceVersion": str(version), **metadata}
    if view.form is Form.TABLE:
        opening = _dump(table([], metadata, include=view.include))
        assert opening.endswith(b"[]}")

        def item(record: SessionRecord) -> bytes:
            return _dump(view.one(record, version)["rows"][0])

        return opening[:-2], b"]}", item
    kind = "PartialObjectMetadataList" if view.form is Form.METADATA else f"{KIND}List"
    group = "meta.k8s.io/v1" if view.form is Form.METADATA else API_VERSION
    opening = _dump({"kind": kind, "apiVersion": group, "metadata": metadata, "items": []})
    return opening[:-2], b"]}", lambda record: _dump(view.one(record, version))


def _dump(one: Any) -> bytes:
    return json.dumps(one, separators=(",", ":")).encode()


def _limit(text: str) -> int | None:
    if not text:
        return None
    try:
        return min(parse_integer(text, (1 << 63) - 1), LARGEST_PAGE) or None
    except OutsideError:
        raise StatusError(400, f"limit: Invalid value {text[:40]!r}: write a number") from None

"""VoiceSession objects, tables, watches' options and events, pages: the pure parts of the sessions API."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.session_records import make_record
from voicefleet_contract.quality import estimate_mos
from voicefleet_contract.sessions import EventType, resource_version, stream_id
from voicefleet_operator.sessions_api.lists import Form, negotiate
from voicefleet_operator.sessions_api.pages import Place, SlotView, batches, decode_continue, encode_continue
from voicefleet_operator.sessions_api.registry import Change
from voicefleet_operator.sessions_api.resource import table, voice_session
from voicefleet_operator.sessions_api.selectors import Query, parse_query
from voicefleet_operator.sessions_api.status import StatusError
from voicefleet_operator.sessions_api.watch import parse_watch_options, seen_through

TABLE = (
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
)


def test_an_object_shows_the_network_and_the_quality_and_no_address():
    one = voice_session(make_record(5, 1), "voice", 42)
    assert one["metadata"]["resourceVersion"] == "42"
    assert one["metadata"]["labels"]["voicefleet.dev/relay"] == "fra-1"
    assert one["spec"]["clientNetwork"] == "198.51.100.0/24"
    assert one["status"]["mos"] == estimate_mos(40.0, 0.01, None)
    assert "198.51.100.1" not in json.dumps(one)


def test_what_cannot_be_a_label_value_is_left_out_of_the_labels():
    one = voice_session(make_record(5, 1, relay="", node="n" * 80), "voice", 1)
    assert not {"voicefleet.dev/relay", "voicefleet.dev/node"} & set(one["metadata"]["labels"])


def test_a_row_has_a_cell_for_each_column_and_the_object_that_was_asked_for():
    one = voice_session(make_record(5, 1), "voice", 42)
    for include, kind in (("Metadata", "PartialObjectMetadata"), ("Object", "VoiceSession"), ("None", None)):
        made = table([one], {}, include=include)
        [row] = made["rows"]
        assert len(row["cells"]) == len(made["columnDefinitions"])
        assert row.get("object", {}).get("kind") == kind


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", Form.WHOLE),
        ("*/*", Form.WHOLE),
        ("application/json", Form.WHOLE),
        (TABLE, Form.TABLE),
        ("application/vnd.kubernetes.protobuf,application/json", Form.WHOLE),
        ("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", Form.METADATA),
    ],
)
def test_the_form_follows_the_accept_header(accept, form):
    assert negotiate(accept, "voice", "").form is form


def test_what_is_not_served_is_not_acceptable():
    with pytest.raises(StatusError) as refused:
        negotiate("application/vnd.kubernetes.protobuf", "voice", "")
    assert refused.value.code == 406


@pytest.mark.parametrize(
    ("rtt_ms", "loss", "low", "high"),
    [(20, 0.0, 4.3, 4.5), (20, 0.05, 2.5, 3.8), (600, 0.0, 2.0, 4.0), (2000, 0.5, 1.0, 1.2), (20, 1.0, 1.0, 1.6)],
)
def test_mos_falls_with_loss_and_delay(rtt_ms, loss, low, high):
    mos = estimate_mos(rtt_ms, loss, 0.0)
    assert mos is not None
    assert low <= mos <= high


def test_mos_needs_a_round_trip_time():
    assert estimate_mos(None, 0.0, 0.0) is None


@given(st.integers(0, 1 << 42), st.integers(0, (1 << 20) - 1))
def test_a_resource_version_is_a_stream_entry(ms, sequence):
    version = resource_version(f"{ms}-{sequence}")
    assert stream_id(version) == f"{ms}-{sequence}"
    assert version < resource_version(f"{ms}-{sequence + 1}") or sequence == (1 << 20) - 1


@given(st.integers(0, 1 << 62), st.integers(0, 0xFFFFFF), st.integers(0, 0xFFFF), st.text(max_size=40))
def test_a_continue_token_comes_back(version, slot, generation, call_id):
    assert decode_continue(encode_continue(version, Place(slot, generation, call_id))) == (
        version,
        Place(slot, generation, call_id),
    )


@given(st.text(max_size=60))
def test_a_token_of_somebody_else_is_refused_and_nothing_else(token):
    with contextlib.suppress(StatusError):
        decode_continue(token)


def slot_view(slot: int, sessions: int = 400, **counts: int) -> SlotView:
    return SlotView(slot, 0, "agents", f"node-{slot % 3}", sessions, {"relay": counts, "state": {}, "region": {}})


def test_a_page_is_read_from_as_few_slots_as_hold_it():
    slots = [slot_view(number) for number in range(2_500)]
    assert [len(batch) for batch in batches(slots, Query(), Place(), 500)][:1] == [2]


def test_slots_without_a_match_are_not_read():
    slots = [slot_view(number, fra=1 if number == 77 else 0) for number in range(2_500)]
    query = parse_query("", "relay=fra", "voice")
    assert [[slot.slot for slot in batch] for batch in batches(slots, query, Place(), 500)] == [[77]]
    assert slots[77].index_for(query) == ("relay", "fra")


def test_where_most_sessions_match_the_index_is_not_used():
    assert slot_view(1, sessions=10, fra=9).index_for(parse_query("", "relay=fra", "voice")) is None


def test_a_slot_without_a_heartbeat_is_read():
    assert list(batches([SlotView(5, 1, known=False)], parse_query("", "relay=fra", "voice"), Place(), 10))


def test_the_next_page_begins_in_the_slot_where_the_last_one_ended():
    slots = [slot_view(number) for number in range(5)]
    [batch, *_] = batches(slots, Query(), Place(2, 0, "call_x"), 500)
    assert [slot.slot for slot in batch] == [2, 3]


CONNECTING, CONNECTED = (make_record(5, 1, state=state) for state in ("connecting", "connected"))


@pytest.mark.parametrize(
    ("fields", "kind", "record", "before", "seen"),
    [
        ("", EventType.ADDED, CONNECTING, None, "ADDED"),
        ("", EventType.MODIFIED, CONNECTED, CONNECTING, "MODIFIED"),
        ("", EventType.DELETED, CONNECTED, None, "DELETED"),
        ("state=connected", EventType.ADDED, CONNECTING, None, None),
        ("state=connected", EventType.MODIFIED, CONNECTED, CONNECTING, "ADDED"),
        ("state=connecting", EventType.MODIFIED, CONNECTED, CONNECTING, "DELETED"),
        ("state=connected", EventType.DELETED, CONNECTED, None, "DELETED"),
        ("state=new", EventType.DELETED, CONNECTED, None, None),
    ],
)
def test_a_change_is_seen_as_it_crosses_the_selector(fields, kind, record, before, seen):
    event = seen_through(parse_query("", fields, "voice"), Change(1, kind, record, before))
    assert (event.kind if event else None) == seen


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"sendInitialEvents": "true", "allowWatchBookmarks": "true"}, 422),
        ({"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}, 422),
        ({"sendInitialEvents": "true", "resourceVersionMatch": "Exact", "allowWatchBookmarks": "true"}, 422),
        ({"resourceVersionMatch": "NotOlderThan"}, 422),
        ({"resourceVersion": "yesterday"}, 400),
    ],
)
def test_watch_options_that_contradict_each_other_are_refused(parameters, code):
    with pytest.raises(StatusError) as refused:
        parse_watch_options(parameters)
    assert refused.value.code == code

"""Selectors of the sessions API: what they match, and what they say when they are wrong."""

import pytest

from tests.support.session_records import make_record
from voicefleet_operator.sessions_api.selectors import parse_query
from voicefleet_operator.sessions_api.status import StatusError

ONE = make_record(5, 1, relay="fra-1", state="connected", node="node-a", pool="agents")


def matches(labels: str = "", fields: str = "") -> bool:
    return parse_query(labels, fields, "voice").matches(ONE)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("", True),
        ("voicefleet.dev/pool=agents", True),
        ("voicefleet.dev/pool==agents,voicefleet.dev/node=node-a", True),
        ("voicefleet.dev/pool=others", False),
        ("voicefleet.dev/pool!=others", True),
        ("voicefleet.dev/relay in (fra-0, fra-1)", True),
        ("voicefleet.dev/relay in (fra-1)", True),
        ("voicefleet.dev/relay notin (fra-0,fra-1)", False),
        ("voicefleet.dev/relay", True),
        ("!voicefleet.dev/relay", False),
        ("app=web", False),
        ("app!=web", True),
        ("!app", True),
        ("app", False),
        ("voicefleet.dev/pool=agents,voicefleet.dev/pool=others", False),
    ],
)
def test_label_selectors(labels, expected):
    assert matches(labels=labels) is expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("node=node-a", True),
        ("status.node=node-a", True),
        ("state!=connected", False),
        ("spec.pool=agents,status.relay=fra-1", True),
        ("spec.region=eu-central,state=new", False),
        (f"metadata.name={ONE.call_id}", True),
        ("metadata.name=another", False),
        (f"metadata.name!={ONE.call_id}", False),
        ("metadata.namespace=voice", True),
        ("metadata.namespace=default", False),
        ("metadata.namespace!=default", True),
    ],
)
def test_field_selectors(fields, expected):
    assert matches(fields=fields) is expected


def test_a_field_that_is_not_indexed_is_refused_with_those_that_are():
    with pytest.raises(StatusError) as refused:
        parse_query("", "status.rttMs=5", "voice")
    assert refused.value.code == 400
    for field in ("status.rttMs", "metadata.name", "pool", "node", "relay", "region", "state"):
        assert field in refused.value.message


@pytest.mark.parametrize(
    ("labels", "fields"), [("a b c", ""), ("pool in agents", ""), ("", "node"), ("", "=x"), ("(", "")]
)
def test_what_cannot_be_parsed_is_refused(labels, fields):
    with pytest.raises(StatusError) as refused:
        parse_query(labels, fields, "voice")
    assert refused.value.code == 400


def test_an_equality_of_an_indexed_field_is_left_to_the_index():
    query = parse_query("voicefleet.dev/relay=fra-1", "state=connected", "voice")
    assert query.equal == {"relay": "fra-1", "state": "connected"}
    assert query.checks == ()

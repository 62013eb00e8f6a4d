"""Traces: a caller's context is passed on, and spans of a set-up belong to it."""

import http.server
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from voicefleet_contract.trace_context import TraceParent, parse_traceparent
from voicefleet_dataplane.shell.process.tracing import open_tracer

PARENT = TraceParent(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, sampled=True)


def test_the_recommendations_own_example_is_read():
    assert parse_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01") == PARENT


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "nonsense",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",  # the version that never is
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",  # upper case
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
    ],
)
def test_what_is_no_context_is_ignored(value):
    assert parse_traceparent(value) is None


def test_a_later_version_may_say_more():
    assert parse_traceparent("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more") == PARENT


@given(st.integers(1, (1 << 128) - 1), st.integers(1, (1 << 64) - 1), st.booleans())
def test_a_context_comes_back(trace_id, span_id, sampled):
    parent = TraceParent(trace_id, span_id, sampled)
    assert parse_traceparent(str(parent)) == parent


@given(st.text(max_size=80))
def test_any_text_is_read_without_an_error(text):
    parse_traceparent(text)


def test_without_an_endpoint_the_callers_context_is_passed_on():
    span = open_tracer("", "service", {}).start("call", PARENT)
    assert span.context == PARENT
    span.child("stage", 0.0, 1.0)
    span.end({})


@pytest.fixture
def collector():
    """An OpenTelemetry collector as far as an exporter sees it: (endpoint, what it was sent)."""
    got: list[ExportTraceServiceRequest] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") is None:
                got.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", got
    server.shutdown()
    server.server_close()


def test_spans_reach_the_collector_under_the_callers(collector):
    endpoint, got = collector
    tracer = open_tracer(endpoint, "voicefleet-transceiver", {"k8s.pod.name": "agents-5-2"})
    span = tracer.start("call set-up", PARENT)
    assert span.context is not None
    assert span.context.trace_id == PARENT.trace_id
    now = time.monotonic()
    span.child("answer to first check", now - 0.02, now - 0.01)
    span.end({"voicefleet.call": "call_1"}, error="setup_timeout")
    tracer.close()
    spans = {
        s.name: s for request in got for r in request.resource_spans for scope in r.scope_spans for s in scope.spans
    }
    setup, stage = spans["call set-up"], spans["answer to first check"]
    assert int.from_bytes(setup.parent_span_id) == PARENT.span_id
    assert stage.parent_span_id == setup.span_id
    assert {int.from_bytes(one.trace_id) for one in spans.values()} == {PARENT.trace_id}
    assert stage.end_time_unix_nano - stage.start_time_unix_nano == pytest.approx(10_000_000, abs=2_000)
    assert setup.status.message == "setup_timeout"


def test_a_collector_that_is_away_costs_no_call_anything():
    tracer = open_tracer("http://127.0.0.1:1", "service", {})
    span = tracer.start("call", None)
    assert span.context is not None  # a trace begins here
    span.end({})
    tracer.close()  # its thread tries again otherwise, and takes its pauses from the chance that other tests have

"""Nothing goes around `voicefleet_contract.outside`: the code is scanned for Python's own readers of text.

What stands in ALLOWED reads something of our own; each entry says what. A new reader of text from outside uses the module.
"""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
HERE = "dataplane/voicefleet_contract/outside.py"
METHODS = {
    "isdigit": "outside.is_digits: '²' is a digit for Python",
    "isdecimal": "outside.is_digits: '١' is decimal for Python",
    "isnumeric": "outside.is_digits",
    "model_validate_json": "outside.parse_model: bytes are bounded, and one error is raised",
    "fromhex": "outside.decode_hex",
    "unhexlify": "outside.decode_hex",
    "b64decode": "outside.decode_base64",
    "urlsafe_b64decode": "outside.decode_base64_url",
    "standard_b64decode": "outside.decode_base64",
    "a2b_base64": "outside.decode_base64",
    "b32decode": "outside",
    "b85decode": "outside",
    "json": "outside.parse_json of the response's content",
    "literal_eval": "outside.parse_json",
}
NUMERIC_CALLS = {
    "len",
    "round",
    "min",
    "max",
    "abs",
    "sum",
    "ceil",
    "floor",
    "monotonic",
    "time",
    "bool",
    "get_running_loop",
}
NUMERIC_TEXT = {"inf", "-inf"}

# What is read → (file, source of the call).
ALLOWED_BY_REASON = {
    "a number that a JSON or CRD schema, or a model, has made one": {
        ("dataplane/voicefleet_contract/settings.py", "float(value)"),
        ("dataplane/voicefleet_dataplane/media/pipeline/session.py", "float(value)"),
        (
            "dataplane/voicefleet_dataplane/media/pipeline/session.py",
            "int(_number(given[one], least, most, f'{name}.{one}'))",
        ),
        (
            "dataplane/voicefleet_dataplane/plugin/plan_scale.py",
            "int(pool['spec'].get('capacity', {}).get('sessions', 0))",
        ),
        ("dataplane/voicefleet_dataplane/plugin/plan_scale.py", "int(ports['max'])"),
        ("dataplane/voicefleet_dataplane/plugin/plan_scale.py", "int(ports['min'])"),
        ("dataplane/voicefleet_dataplane/plugin/status.py", "int(pool['spec'].get('capacity', {}).get('sessions', 0))"),
        ("dataplane/voicefleet_dataplane/plugin/status.py", "int(status.get('readyReplicas') or 0)"),
        ("dataplane/voicefleet_dataplane/shell/gateway/files.py", "float(latitude)"),
        ("dataplane/voicefleet_dataplane/shell/gateway/files.py", "float(longitude)"),
        ("operator/voicefleet_operator/cluster/lease.py", "float(spec.get('leaseDurationSeconds') or LIFE_S)"),
        ("operator/voicefleet_operator/desired/pool/gray.py", "float(at)"),
        ("operator/voicefleet_operator/desired/pool/pod.py", "int(spec.drain.deadline)"),
        ("operator/voicefleet_operator/desired/relay/daemonset.py", "int(spec.drain.deadline)"),
        ("operator/voicefleet_operator/desired/publish/topology.py", "int(resource.status.get('ringEpoch') or 0)"),
    },
    "text whose form, ASCII and of a fixed length, was checked before": {
        ("dataplane/voicefleet_contract/hint.py", "binascii.a2b_base64(raw)"),
        ("dataplane/voicefleet_contract/trace_context.py", "int(trace_id, 16)"),
        ("dataplane/voicefleet_contract/trace_context.py", "int(span_id, 16)"),
        ("dataplane/voicefleet_contract/trace_context.py", "int(flags, 16)"),
        ("dataplane/voicefleet_dataplane/wire/sdp/codecs.py", "int(name)"),
        ("dataplane/voicefleet_dataplane/wire/sdp/codecs.py", "int(number)"),
        ("dataplane/voicefleet_dataplane/wire/sdp/codecs.py", "int(said[name])"),
        ("dataplane/voicefleet_dataplane/wire/sdp/codecs.py", "int(value)"),
        ("dataplane/voicefleet_dataplane/wire/sdp/lines.py", "int(port[1])"),
        ("dataplane/voicefleet_dataplane/wire/sdp/offer.py", "int(section.formats)"),
        ("dataplane/voicefleet_dataplane/wire/sdp/offer.py", "int(value)"),
    },
    "a number of our own": {
        ("dataplane/voicefleet_contract/resources.py", "float(base)"),
        ("dataplane/voicefleet_contract/trace_context.py", "int(self.sampled)"),
        ("dataplane/voicefleet_dataplane/core/call/sctp/chunks.py", "int(checksum)"),
        ("dataplane/voicefleet_dataplane/core/call/sctp/meter.py", "float(STEPS_AT_ONCE)"),
        ("dataplane/voicefleet_dataplane/core/call/sctp/meter.py", "int(state[0])"),
        ("dataplane/voicefleet_dataplane/core/call/sctp/meter.py", "int(state[2])"),
        ("dataplane/voicefleet_dataplane/core/call/sctp/outstanding.py", "int(one.state)"),
        ("dataplane/voicefleet_dataplane/core/call/streams.py", "int(self.jitter)"),
        ("dataplane/voicefleet_dataplane/core/relay/flow.py", "int(now)"),
        ("dataplane/voicefleet_dataplane/engines/silero.py", "float(probability[0, 0])"),
        ("dataplane/voicefleet_dataplane/engines/silero.py", "float(np.abs(window.astype(np.int32)).mean())"),
        ("dataplane/voicefleet_dataplane/engines/webrtc.py", "float(self._vad.is_speech(frame, 16000))"),
        ("dataplane/voicefleet_dataplane/media/openai_realtime.py", "int(self.rate)"),
        ("dataplane/voicefleet_dataplane/media/realtime_session.py", "int(dialect.rate)"),
        ("dataplane/voicefleet_dataplane/media/pipeline/hearing.py", "int(self.turns.started_ms)"),
        ("dataplane/voicefleet_dataplane/shell/process/tracing.py", "int(parent.sampled)"),
        ("operator/voicefleet_operator/cluster/lease.py", "int(LIFE_S)"),
        ("operator/voicefleet_operator/sessions_api/external_metrics.py", "float(self.sessions)"),
        ("operator/voicefleet_operator/sessions_api/metrics.py", "float(hub.delivered)"),
        ("operator/voicefleet_operator/sessions_api/metrics.py", "float(registry.malformed)"),
    },
    "what the kernel or our own parent process says": {
        ("dataplane/voicefleet_dataplane/commands/dev.py", "int(first.getsockname()[1])"),
        ("dataplane/voicefleet_dataplane/shell/gateway/process.py", "int(listening.getsockname()[1])"),
        ("dataplane/voicefleet_dataplane/engines/worker.py", "int(descriptor)"),
        ("dataplane/voicefleet_dataplane/fastpath/kernel.py", "int(next(lines).split()[_SOFT_INTERRUPTS])"),
    },
}
ALLOWED = frozenset().union(*ALLOWED_BY_REASON.values())


def is_number(node):
    """Whether an expression can only be a number."""
    match node:
        case ast.Constant(value=value):
            return not isinstance(value, str) or value in NUMERIC_TEXT
        case ast.BinOp(op=ast.Mod(), left=ast.Constant(value=str())):
            return False
        case ast.Name(id=name) if name.startswith(("is_", "has_")):
            return True
        case ast.BoolOp(values=values):
            return all(map(is_number, values))
        case ast.BinOp() | ast.UnaryOp() | ast.Compare():
            return True
        case ast.Call(func=ast.Name(id=name)) | ast.Call(func=ast.Attribute(attr=name)):
            return name in NUMERIC_CALLS
        case ast.Subscript(value=ast.Call(func=ast.Attribute(attr="unpack" | "unpack_from"))):
            return True
    return False


def findings(path, tree):
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        match node.func:
            case ast.Attribute(value=ast.Name(id="json"), attr="loads" | "load"):
                yield node, "outside.parse_json"
            case ast.Attribute(attr=name) if name in METHODS and not (name == "json" and node.args):
                yield node, METHODS[name]
            case ast.Name(id="int" | "float") if len(node.args) >= 1 and not is_number(node.args[0]):
                yield (
                    node,
                    "outside.parse_integer or parse_number: int() and float() take Unicode, underscores and any length",
                )
            case ast.Attribute(value=ast.Name(id="re")):
                for pattern in node.args[:1]:
                    text = "".join(
                        c.value for c in ast.walk(pattern) if isinstance(c, ast.Constant) and isinstance(c.value, str)
                    )
                    if re.search(r"\\[dw]", text) and "re.ASCII" not in ast.unparse(node):
                        yield node, r"\d and \w take Unicode: write [0-9] and so on"


def test_no_reader_goes_around_the_bounds():
    found, used = [], set()
    for side in ("dataplane", "operator"):
        for path in sorted((ROOT / side).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if name == HERE:
                continue
            for node, instead in findings(path, ast.parse(path.read_text())):
                source = ast.unparse(node)
                if (name, source) in ALLOWED:
                    used.add((name, source))
                else:
                    found.append(f"{name}:{node.lineno}: {source}: use {instead}")
    assert not found, "\n".join(found)
    assert used == ALLOWED, f"no longer there: {ALLOWED - used}"


def test_no_model_takes_infinity():
    """Pydantic's numbers take NaN and infinity unless told: each model of ours is told, or inherits from one that is."""
    for side in ("dataplane", "operator"):
        for path in sorted((ROOT / side).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "ConfigDict":
                    told = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                    assert told.get("allow_inf_nan") == "False", f"{path.name}:{node.lineno}"


def test_the_scan_sees_what_it_looks_for():
    bad = """
json.loads(x); json.load(f); response.json(); x.isdigit(); int(x); float(x["a"]); int("1"); Model.model_validate_json(x)
base64.b64decode(x); bytes.fromhex(x); re.compile(r"\\d+"); int("%s" % x)
"""
    good = 'int(a + b); float("inf"); int(len(x)); int(time.time()); re.compile(r"\\d", re.ASCII); re.compile("[0-9]"); int(struct.unpack(a, b)[0])'
    assert len(list(findings(Path(), ast.parse(bad)))) == 12
    assert not list(findings(Path(), ast.parse(good)))

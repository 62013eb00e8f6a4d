"""Label and field selectors → a query: what the registry's indexes answer, and what is left to check of each record.

Fields that can be selected are the indexed ones; a label selector may ask anything of a label, as everywhere in Kubernetes.
Pure; raises StatusError 400, which names the fields that there are.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from voicefleet_contract.sessions import SELECTABLE, SessionRecord
from voicefleet_operator.sessions_api.resource import label_of
from voicefleet_operator.sessions_api.status import StatusError

_PATHS = {
    **{name: name for name in SELECTABLE},
    **{f"spec.{name}": name for name in ("pool", "region")},
    **{f"status.{name}": name for name in ("node", "relay", "state")},
}
_FIELD_OF_LABEL = {label_of(name): name for name in SELECTABLE}
MAX_SELECTOR_CHARS = 4_096
MAX_REQUIREMENTS = 64
_NAME = "metadata.name"
_NAMESPACE = "metadata.namespace"
_KEY = r"(?:[A-Za-z0-9][-A-Za-z0-9.]*/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?"
_EQUALITY = re.compile(rf"\s*({_KEY})\s*(==|=|!=)\s*([-A-Za-z0-9_.]*)\s*")
_SET = re.compile(rf"\s*({_KEY})\s+(in|notin)\s*\(([^()]*)\)\s*")
_EXISTS = re.compile(rf"\s*(!?)\s*({_KEY})\s*")

Check = Callable[[SessionRecord], bool]


@dataclass(frozen=True, slots=True)
class Query:
    """Equalities that an index answers, and checks for the rest. ``nothing``: no record can match."""

    equal: Mapping[str, str] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    name: str | None = None
    nothing: bool = False

    @property
    def plain(self) -> bool:
        """Everything matches."""
        return not (self.equal or self.checks or self.name or self.nothing)

    def matches(self, record: SessionRecord) -> bool:
        """Tell whether a record is meant."""
        return (
            not self.nothing
            and (self.name is None or self.name == record.call_id)
            and all(getattr(record, name) == value for name, value in self.equal.items())
            and all(check(record) for check in self.checks)
        )


def parse_query(labels: str, fields: str, namespace: str) -> Query:
    """Return the query of a request's two selectors. ``namespace``: where our sessions are. Raises StatusError 400."""
    if len(labels) > MAX_SELECTOR_CHARS or len(fields) > MAX_SELECTOR_CHARS:
        raise StatusError(400, f"a selector has at most {MAX_SELECTOR_CHARS} characters")
    equal: dict[str, str] = {}
    checks: list[Check] = []
    name, nothing = None, False
    for key, operator, value in _parse_fields(fields):
        wanted = operator != "!="
        if key == _NAME:
            name = value if wanted else name
            checks += [] if wanted else [_differs("call_id", value)]
        elif key == _NAMESPACE:
            nothing |= (value == namespace) is not wanted
        elif wanted:
            nothing |= equal.setdefault(_PATHS[key], value) != value
        else:
            checks.append(_differs(_PATHS[key], value))
    for key, values, wanted in _parse_labels(labels):
        found = _FIELD_OF_LABEL.get(key)
        if found is None:  # a label that no session has
            nothing |= wanted
        elif wanted and values is not None and len(values) == 1:
            nothing |= equal.setdefault(found, next(iter(values))) not in values
        elif values is not None:
            checks.append(_is_in(found, values, wanted=wanted))
        else:
            nothing |= not wanted
    return Query(equal, tuple(checks), name, nothing)


def _differs(name: str, value: str) -> Check:
    return lambda record: getattr(record, name) != value


def _is_in(name: str, values: frozenset[str], *, wanted: bool) -> Check:
    return lambda record: (getattr(record, name) in values) is wanted


def _parse_fields(text: str) -> list[tuple[str, str, str]]:
    found = []
    parts = re.split(r"(?<!\\),", text) if text else []
    if len(parts) > MAX_REQUIREMENTS:
        raise _too_many()
    for part in parts:
        match = re.fullmatch(r"([^=!]+)(==|=|!=)(.*)", part)
        if match is None:
            raise StatusError(400, f"invalid field selector {part[:80]!r}: write field=value or field!=value")
        key = match[1].strip()
        if key not in (*_PATHS, _NAME, _NAMESPACE):
            raise StatusError(
                400,
                f"field label not supported: {key[:80]}: sessions can be selected by {_NAME}, {_NAMESPACE}, {', '.join(_PATHS)}",
            )
        found.append((key, match[2], re.sub(r"\\(.)", r"\1", match[3].strip())))
    return found


def _parse_labels(text: str) -> list[tuple[str, frozenset[str] | None, bool]]:
    """Return (key, values or None for existence, wanted) for each requirement."""
    found: list[tuple[str, frozenset[str] | None, bool]] = []
    for part in _requirements(text) if text.strip() else ():
        if match := _EQUALITY.fullmatch(part):
            found.append((match[1], frozenset({match[3]}), match[2] != "!="))
        elif match := _SET.fullmatch(part):
            values = frozenset(value.strip() for value in match[3].split(","))
            found.append((match[1], values, match[2] == "in"))
        elif match := _EXISTS.fullmatch(part):
            found.append((match[2], None, not match[1]))
        else:
            raise StatusError(400, f"invalid label selector: unable to parse requirement {part[:80]!r}")
    return found


def _requirements(text: str) -> Iterator[str]:
    """Cut a label selector at the commas that stand in no parentheses: one pass, whatever it is."""
    begin, depth, count = 0, 0, 1
    for at, character in enumerate(text):
        if character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
        elif character == "," and not depth:
            yield text[begin:at]
            begin, count = at + 1, count + 1
            if count > MAX_REQUIREMENTS:
                raise _too_many()
    yield text[begin:]


def _too_many() -> StatusError:
    return StatusError(400, f"a selector has at most {MAX_REQUIREMENTS} requirements")

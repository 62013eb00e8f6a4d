"""What the documents name exists: a threat model that names a test which is gone would claim what nobody holds."""

import re
from pathlib import Path

import pytest

from voicefleet_operator.desired.relay.daemonset import FLOW_BYTES, RULE_BYTES

ROOT = Path(__file__).resolve().parents[2]
DOCS = ("docs/security.md", "docs/asvs-v17.md", "docs/ARCHITECTURE.md", "README.md", "CONTRIBUTING.md")


def functions_of_tests() -> set[str]:
    found: set[str] = set()
    for folder in ("tests", "e2e"):
        for path in (ROOT / folder).rglob("test_*.py"):
            found.update(re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE))
    return found


@pytest.mark.parametrize("document", DOCS)
def test_every_test_that_a_document_names_is_there(document: str):
    text, known = (ROOT / document).read_text(), functions_of_tests()
    named = set(re.findall(r"`(test_\w+)`", text))
    assert not named - known


@pytest.mark.parametrize("document", DOCS)
def test_every_path_that_a_document_names_is_there(document: str):
    named = set(
        re.findall(
            r"`((?:tests|e2e|docs|dataplane|operator|crds|charts|examples|bench)/[\w./-]*)`",
            (ROOT / document).read_text(),
        )
    )
    missing = {path for path in named if not (ROOT / path).exists()}
    assert missing <= {"operator/__init__.py"}  # which the document says must not be there


def test_every_requirement_of_asvs_v17_has_its_test_or_its_reason():
    rows = re.findall(r"^\| (17\.\d\.\d) \(\d\) \|(.*)\|$", (ROOT / "docs/asvs-v17.md").read_text(), re.MULTILINE)
    assert [number for number, _ in rows] == [
        *(f"17.1.{n}" for n in (1, 2)),
        *(f"17.2.{n}" for n in range(1, 9)),
        "17.3.1",
        "17.3.2",
    ]
    for number, row in rows:
        assert ("**Not met.**" in row) != bool(re.search(r"`(?:test_|tests/)", row)), number


ROOMS = {
    "dataplane/voicefleet_dataplane": "commands|core|engines|fastpath|media|page|plugin|shell|wire",
    "operator/voicefleet_operator": "cluster|desired|handlers|sessions_api",
}
WRITTEN_IN = ("docs/*.md", "docs/adr/*.md", "*.md", "dataplane/**/*.py", "operator/**/*.py", "dataplane/**/*.[ch]")


def test_every_module_that_a_text_names_is_there():
    named = {
        (str(text.relative_to(ROOT)), root, module)
        for text in {path for pattern in WRITTEN_IN for path in ROOT.glob(pattern)}
        for root, rooms in ROOMS.items()
        for module in re.findall(rf"(?<![\w./-])((?:{rooms})/[\w/]+\.(?:py|c|h))\b", text.read_text())
    }
    assert named
    assert not {(text, module) for text, root, module in named if not (ROOT / root / module).exists()}


def test_each_number_of_a_decision_has_one_page():
    numbers = sorted(int(page.name[:4]) for page in (ROOT / "docs/adr").glob("*.md"))
    assert numbers == list(range(1, len(numbers) + 1))
    texts = {path for pattern in (*WRITTEN_IN, "tests/**/*.py", "e2e/**/*.py") for path in ROOT.glob(pattern)}
    named = {int(number) for text in texts for number in re.findall(r"(?:\bADRs? |docs/adr/)(\d+)\b", text.read_text())}
    assert named - {0} <= set(numbers)


def test_memory_per_flow_is_told_as_the_operator_reckons():
    for page in ("docs/runbooks.md", "docs/relay-capacity.md", "crds/voicerelays.yaml"):
        text = (ROOT / page).read_text()
        assert f"{FLOW_BYTES:,}" in text, page
        assert f"{FLOW_BYTES + RULE_BYTES:,}" in text, page

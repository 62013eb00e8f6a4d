"""What the documents name exists: a threat model that names a test which is gone would claim what nobody holds."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ("docs/security.md", "docs/ARCHITECTURE.md", "README.md")


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

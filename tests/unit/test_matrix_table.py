"""The table of stacks in docs/clients.md is what results.json says."""

import json

from tests.interop.matrix.checks import CHECKS
from tests.interop.matrix.known import FAILS
from tests.interop.matrix.stacks import STACKS
from tests.interop.matrix.table import DOCUMENT, RESULTS, filled, table


def test_the_document_has_the_table_of_the_results():
    document = DOCUMENT.read_text()
    assert filled(document, json.loads(RESULTS.read_text())) == document


def test_a_cell_says_what_was_seen_or_why_not():
    works, fails = {"state": "works", "words": ""}, {"state": "fails", "words": "we are too slow"}
    cells = {"audio": works, "60 KB": fails, "256 KB": fails, "any text": {"state": "cannot", "words": "it is deaf"}}
    made = table({"at": "today", "stacks": {"A": {"version": "1.0", "cells": cells}}})
    assert "| | A 1.0 |" in made
    assert "| audio | yes |" in made
    assert "| 60 KB | **no** (1) |" in made
    assert "| 256 KB | **no** (1) |" in made
    assert "| any text | – (2) |" in made
    assert made.endswith("1. we are too slow\n2. it is deaf\n")


def test_what_is_known_names_checks_and_stacks_that_exist():
    names = {stack.name for stack in STACKS}
    assert FAILS.keys() <= CHECKS.keys()
    assert all(of_check.keys() <= names | {"*"} for of_check in FAILS.values())
    assert all(stack.cannot.keys() <= CHECKS.keys() for stack in STACKS)

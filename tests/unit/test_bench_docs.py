"""Tables come from result files; what is between markers is made, what is outside stays."""

import pytest

from bench import docs, report

ROWS = [
    {"table": "cpu", "who": "a", "what": "alone", "value": 1.234, "unit": "µs", "runs": [1, 1.234, 2], "interval": [1, 2]},
    {"table": "cpu", "who": "b", "what": "alone", "value": 1234.0, "unit": "µs", "runs": [1, 1234, 2]},
    {"table": "cpu", "who": "b", "what": "lost", "value": 0, "unit": "%", "runs": [0, 0, 0]},
    {"table": "other", "who": "c", "what": "alone", "value": 9, "unit": "µs", "runs": [9, 9, 9]},
]  # fmt: skip


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    monkeypatch.setattr(docs, "RESULTS", tmp_path)
    monkeypatch.setattr(docs, "ROOT", tmp_path)
    return tmp_path


def test_a_table_has_a_line_for_each_who_and_a_column_for_each_what():
    assert docs.table_of({"rows": ROWS}, "cpu").splitlines() == [
        "| | alone, µs | lost, % |",
        "|---|---|---|",
        "| a | 1.23 (1–2) |  |",
        "| b | 1,234 | 0 |",
    ]


def test_only_blocks_change_and_a_second_time_nothing_does(results):
    one = report.Report("relay")
    one.row("cpu", "a", "alone", "µs", [1.0, 2.0, 3.0])
    one.target("a", "at most 1", 2.0, met=False)
    one.write()
    text = "before\n<!-- bench:relay/cpu -->\nold\n<!-- /bench -->\nbetween\n<!-- bench:relay/targets -->\n<!-- /bench -->\n"
    text += "<!-- bench:relay/plot cpu: alone -->\n<!-- /bench -->\n<!-- bench:nothing/cpu -->\n<!-- /bench -->\n"
    new = docs.filled(text)
    assert "| a | 2 (1–3) |" in new
    assert "**not met**" in new
    assert "make bench-nothing" in new
    assert "old" not in new
    assert "before\n" in new
    assert "between\n" in new
    assert (results / "relay.svg").read_text().startswith("<svg")
    assert docs.filled(new) == new


def test_the_interval_holds_the_median_and_is_the_same_each_time():
    runs = [3.0, 1.0, 2.0, 5.0, 4.0]
    low, high = report.interval(runs)
    assert low <= 3.0 <= high
    assert report.interval(runs) == (low, high)

"""benchmarks.run: a row measures both sides, and its figures are in the table and the JSON."""
import json
import sys

import pytest

from benchmarks import run


@pytest.fixture
def measure(monkeypatch, capsys, tmp_path):
    """Run the benchmarks' command line in this process; return what it printed."""
    def call(*words):
        monkeypatch.setattr(sys, "argv", ["run.py", "--out", str(tmp_path / "results.json"),
                                          *map(str, words)])
        run.main()
        return capsys.readouterr().out
    return call


def test_a_row_measures_both_sides(measure, drive, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "TEST_FRAMES", 24)
    out = measure("--data_path", drive, "--only", "export")
    (row,) = json.loads((tmp_path / "results.json").read_text())["rows"]
    for side in ("fast", "literal"):
        assert len(row["all"][side]) == 5
        assert min(row["all"][side]) <= row[side] <= max(row["all"][side])
    assert row["lowest"] <= row["ratio"] <= row["highest"]
    line = f"| export_gt_depth.py | {row['literal']:.3g} | {row['fast']:.3g} | frames/s |"
    assert line in out


def test_an_unknown_row_is_a_usage_error(measure, capsys):
    with pytest.raises(SystemExit) as ended:
        measure("--only", "sleep")
    assert ended.value.code == 2
    assert "--only sleep names no row" in capsys.readouterr().err

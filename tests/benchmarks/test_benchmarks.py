"""benchmarks.run: a row measures both sides, and its figures are in the table and the JSON."""
import json
import os
import sys
import time

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


@pytest.mark.parametrize(("left", "busy"), [("spinning", 1), ("alone", 0)])
def test_a_row_may_have_this_project_on_both_sides(measure, drive, tmp_path, monkeypatch, left,
                                                   busy):
    monkeypatch.setattr(run, "TEST_FRAMES", 24)
    monkeypatch.setattr(run, "ROWS", [run.Row("ours", "frames/s", "export", repeats=1, left=left,
                                              busy=busy)])
    assert "| ours | " in measure("--data_path", drive)
    (row,) = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [len(values) for values in row["all"].values()] == [1, 1]
    assert 0.1 < row["ratio"] < 10


def test_busy_processes_end_with_their_context():
    before = os.times()
    with run.busy_processes(2):
        time.sleep(0.5)
    assert os.times().children_user - before.children_user > 0.1

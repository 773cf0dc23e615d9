"""benchmarks/run.py: both sides work, and the table and the JSON say what they did."""
import json
import subprocess
import sys

from conftest import ROOT


def test_a_row_is_measured_on_both_sides(drive, tmp_path):
    command = [sys.executable, ROOT / "benchmarks/run.py", "--data_path", drive, "--only", "export",
               "--out", tmp_path / "results.json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / "results.json").read_text())["rows"]
    for side in ("fast", "literal"):
        assert len(row["all"][side]) == 5
        assert min(row["all"][side]) <= row[side] <= max(row["all"][side])
    assert row["lowest"] <= row["ratio"] <= row["highest"]
    line = f"| export_gt_depth.py | {row['literal']:.3g} | {row['fast']:.3g} | frames/s |"
    assert line in done.stdout


def test_a_row_that_does_not_exist_is_a_usage_error(tmp_path):
    done = subprocess.run([sys.executable, ROOT / "benchmarks/run.py", "--only", "sleep"],
                          capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert "--only sleep names no row" in done.stderr

"""benchmarks/runtimes.py prints a row for each runtime and precision, with its error."""
import re
import sys

import numpy as np
import pytest
from conftest import HEIGHT, WIDTH, filled_weights
from PIL import Image

from benchmarks import runtimes
from prediction.onnx import PACKAGES


def test_the_table_has_every_runtime_with_its_error(tmp_path, monkeypatch, capsys):
    for name in (*PACKAGES, "openvino"):
        pytest.importorskip(name)
    for i in range(20):
        noise = Image.fromarray(np.random.randint(0, 256, (12, 16, 3), np.uint8))
        noise.resize((150, 90)).save(tmp_path / f"{i}.png")
    weights = filled_weights(tmp_path / "weights")
    monkeypatch.setattr(sys, "argv", [
        "runtimes", "--load_weights_folder", str(weights), "--calibrate", str(tmp_path),
        "--rounds", "1", "--height", str(HEIGHT), "--width", str(WIDTH)])
    runtimes.main()
    rows = re.findall(r"^\| (.+, \w+) \| (\d*) \| [\d.]+ \| ([\d.e-]+) \|$",
                      capsys.readouterr().out, re.MULTILINE)
    names = [name for name, _, _ in rows]
    errors = {name: float(error) for name, _, error in rows}
    assert names == ["PyTorch, float32", "PyTorch, bfloat16", *(
        f"{runtime}, {kind}" for runtime in ("ONNX Runtime", "OpenVINO")
        for kind in ("float32", "half", "int8"))]
    assert errors["PyTorch, float32"] == 0
    assert errors["ONNX Runtime, float32"] < 0.01 < errors["ONNX Runtime, int8"] < 5

"""hubconf.py: torch.hub loads it from another folder, in a process of its own."""
import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, filled_weights

import hubconf
from prediction.predictor import Predictor
from runtime.errors import DataError

PACKAGES = ("checkpoints", "datasets", "metrics", "networks", "prediction", "runtime")
PREDICT = """
import json, sys
import torch
repo, weights = sys.argv[1:]
path = list(sys.path)
model = torch.hub.load(repo, "monodepth2", source="local", weights=weights)
assert sys.path == path  # later imports of this project would fail
image = torch.linspace(0, 1, 3 * 70 * 90).view(3, 70, 90)
prediction = model.predict(image)
print(json.dumps({
    "disp": prediction.disp.tolist(), "unit": prediction.unit, "training": model.training,
    "files": [m.__file__ for m in list(sys.modules.values()) if getattr(m, "__file__", None)]}))
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return filled_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def clone(weights, tmp_path_factory):
    """Copy the project and put a published model where a download would be."""
    copy = tmp_path_factory.mktemp("clone") / "monodepth2"
    shutil.copytree(ROOT, copy, ignore=lambda folder, names: [
        name for name in names if Path(folder) == ROOT and not (
            name.endswith(".py") or name in PACKAGES)])
    shutil.copytree(weights, copy / "models" / "mono+stereo_640x192")
    return copy


def run_python(code, *arguments, cwd):
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], cwd=cwd, text=True,
                          capture_output=True)


@pytest.fixture(scope="module")
def loaded(weights, tmp_path_factory):
    """Load and predict in a process that runs in another folder; return its printed JSON."""
    done = run_python(PREDICT, ROOT, weights, cwd=tmp_path_factory.mktemp("elsewhere"))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def expected_disp(weights):
    image = torch.linspace(0, 1, 3 * 70 * 90).view(3, 70, 90)
    return Predictor(weights).predict(image).disp.numpy()


def test_torch_hub_loads_a_weights_folder_from_elsewhere(weights, loaded):
    assert (loaded["unit"], loaded["training"]) == ("metres", False)
    np.testing.assert_allclose(loaded["disp"], expected_disp(weights), rtol=1e-5)


def test_torch_hub_says_once_what_it_unwrapped(weights, loaded, tmp_path):
    shutil.copytree(weights, tmp_path / "w")
    path = tmp_path / "w/depth.pth"
    state = torch.load(path, weights_only=True)
    torch.save({"epoch": np.int64(3), "state_dict": {
        f"module.{key}": value for key, value in state.items()}}, path)
    done = run_python(PREDICT, ROOT, tmp_path / "w", cwd=tmp_path)
    assert done.stderr == (
        f"note: {path}: took the weights in its 'state_dict'; removed module. (nn.DataParallel or "
        "torch.compile) from the names; skipped what the network lacks (epoch)\n")
    assert json.loads(done.stdout)["disp"] == loaded["disp"]


def test_torch_hub_lists_one_model_with_its_usage():
    listed = [name for name, value in vars(hubconf).items()
              if callable(value) and not name.startswith("_")]  # as torch.hub.list does
    assert listed == ["monodepth2"]
    assert "`.predict(images)`" in hubconf.monodepth2.__doc__


def test_dependencies_are_the_imports_of_the_loaded_files(loaded):
    files = [Path(file) for file in loaded["files"] if Path(file).is_relative_to(ROOT)
             and not any(part.startswith(".venv") for part in Path(file).parts)]
    imported = set()
    for file in files:
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module.partition(".")[0])
    own = {file.stem for file in ROOT.glob("*.py")} | set(PACKAGES)
    assert len(files) > 10
    assert imported - own - sys.stdlib_module_names == set(hubconf.dependencies)


def test_a_published_model_is_found_in_models(clone, weights, tmp_path):
    done = run_python(PREDICT, clone, "mono+stereo_640x192", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert str(clone / "prediction/predictor.py") in found["files"]
    np.testing.assert_allclose(found["disp"], expected_disp(weights), rtol=1e-5)


def test_an_unknown_name_is_refused_with_the_known_names():
    with pytest.raises(DataError, match=r"nowhere is neither a folder nor .* mono_640x192"):
        torch.hub.load(str(ROOT), "monodepth2", source="local", weights="nowhere")


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"encoder\.pth does not exist"):
        torch.hub.load(str(ROOT), "monodepth2", source="local", weights=tmp_path)


@pytest.mark.parametrize("name", ["layers.py", "datasets/__init__.py"])
def test_a_module_with_the_name_of_ours_is_reported(weights, tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("MINE = 1\n")
    done = run_python(f"import {name.partition('.')[0].partition('/')[0]}\n{PREDICT}", ROOT,
                      weights, cwd=tmp_path)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"ImportError: {path} is already imported as")
    assert "a process of its own" in last

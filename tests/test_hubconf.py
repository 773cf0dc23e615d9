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


THEIRS = ("utils", "datasets", "networks", "layers", "options", "runtime", "metrics")
BESIDE_THEIRS = f"""
import copy, importlib, io, pickle, sys
from argparse import Namespace
import torch
repo, weights, second, when = sys.argv[1:]
names = {THEIRS}
mine = {{}}
if when == "before":
    mine = {{name: importlib.import_module(f"{{name}}.part") for name in names}}
before = dict(sys.modules)
model = torch.hub.load(repo, "monodepth2", source="local", weights=weights)
own = {{path.partition(".")[0] for path in sys.modules.keys() - before.keys()}} & {{*names}}
assert not own, own
assert all(sys.modules[name] is before[name] for name in names if name in before)
for name in names:
    assert importlib.import_module(f"{{name}}.part").OWNER == "the program"
    assert mine.get(name, sys.modules[f"{{name}}.part"]) is sys.modules[f"{{name}}.part"]

image = torch.rand(3, 64, 96)
disp = model.predict(image).disp
again = torch.hub.load(repo, "monodepth2", source="local", weights=weights)
assert type(again) is type(model)
for other in (again, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
    assert other.predict(image).disp.equal(disp)
assert pickle.loads(pickle.dumps(model.predict(image))).disp.equal(disp)
file = io.BytesIO()
torch.save(model.state_dict(), file)
file.seek(0)
again.load_state_dict(torch.load(file, weights_only=True))

# evaluate imports evaluation.results when it is called
package = type(model).__module__.partition(".")[0]
evaluate = importlib.import_module(f"{{package}}.evaluate_depth").evaluate
try:
    evaluate(Namespace(compare=["a.json", "b.json"]))
except Exception as error:
    assert "a.json cannot be read" in str(error), error
if when == "after":
    for name in names:
        sys.modules.pop(name), sys.modules.pop(f"{{name}}.part")
owner = "the program" if when == "before" else "another"  # what is imported first is kept
assert torch.hub.load(second, "owner", source="local") == (owner, owner)
"""


def write_project(folder, owner, is_namespace):
    """Write packages with the names of ours that know their owner."""
    for name in THEIRS:
        (folder / name).mkdir(parents=True)
        (folder / name / "part.py").write_text(f"OWNER = {owner!r}\n")
        if not is_namespace:
            (folder / name / "__init__.py").write_text("")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("is_namespace", [False, True], ids=["regular", "namespace"])
def test_modules_of_the_program_with_our_names_stay_its_own(weights, tmp_path, is_namespace, when):
    write_project(tmp_path / "program", "the program", is_namespace)
    second = tmp_path / "second"
    write_project(second, "another", is_namespace=False)
    (second / "hubconf.py").write_text(
        "def owner():\n    import utils.part\n    from datasets.part import OWNER\n"
        "    return utils.part.OWNER, OWNER\n")
    done = run_python(BESIDE_THEIRS, ROOT, weights, second, when, cwd=tmp_path / "program")
    assert done.returncode == 0, done.stderr


def test_a_program_that_imported_ours_gets_the_same_classes(weights):
    model = torch.hub.load(str(ROOT), "monodepth2", source="local", weights=weights)
    assert type(model) is Predictor

"""The shape of the project: the root's listing, import ranks, docstrings, faithful oddities."""
import ast
import re
import subprocess

import pytest
from conftest import ROOT

SCRIPTS = ("train", "test_simple", "evaluate_depth", "evaluate_pose", "export_gt_depth",
           "prepare_data", "export_onnx", "app", "hubconf")
MODULES = ("trainer", "options", "layers", "losses", "kitti_utils", "utils")
PACKAGES = ("networks", "datasets", "metrics", "checkpoints", "training", "prediction",
            "evaluation", "preparation", "synthetic", "runtime", "benchmarks", "experiments")
FOLDERS = ("docs", "splits", "tests")
FILES_BESIDE = ("LICENSE", "Makefile", "README.md", "pyproject.toml", "requirements.txt",
                "requirements-app.txt", "requirements-dev.txt", "requirements-corruptions.txt",
                "requirements-export.txt", "requirements-hub.txt", "requirements-openvino.txt",
                "requirements-scene.txt", "requirements-timm.txt")
RANKS = {"runtime": 0,
         "options": 1, "kitti_utils": 1, "metrics": 1,
         "layers": 2, "datasets": 2,
         "utils": 3, "networks": 3, "losses": 3,
         "checkpoints": 4,
         "training": 5, "prediction": 5,
         "trainer": 6, "evaluation": 6, "preparation": 6, "synthetic": 6,
         **dict.fromkeys(SCRIPTS, 7),
         "benchmarks": 8, "experiments": 8}
FILES = sorted([*ROOT.glob("*.py"),
                *(file for package in PACKAGES for file in ROOT.glob(f"{package}/*.py"))])
TREES = {path: ast.parse(path.read_text()) for path in FILES}
every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))


def owner_of(path):
    """Return the package of a file, or the name of a module in the root."""
    return path.stem if path.parent == ROOT else path.parent.name


def imports_of(path):
    """Return the (module, imported names) of every import in a file."""
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module, [alias.name for alias in node.names]


def module_of(path):
    """Return the dotted name of a file; a package's own for its __init__.py."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def test_the_root_has_the_files_and_folders_of_the_map():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("needs a git checkout")
    top = {name.partition("/")[0] for name in listed.stdout.split("\0") if name}
    assert {name for name in top if not name.startswith(".")} == {
        *(f"{name}.py" for name in SCRIPTS + MODULES), *PACKAGES, *FOLDERS, *FILES_BESIDE}


@every_file
def test_a_file_imports_its_own_package_and_lower_ranks_only(path):
    own = owner_of(path)
    for module, _ in imports_of(path):
        name = module.partition(".")[0]
        assert name not in RANKS or name == own or RANKS[name] < RANKS[own], f"{own} -> {name}"


@every_file
def test_no_file_imports_a_star(path):
    assert all("*" not in names for _, names in imports_of(path))


def test_no_imports_run_in_a_circle():
    modules = {module_of(path): path for path in FILES}
    graph = {name: {target for module, names in imports_of(path)
                    for target in (module, *(f"{module}.{each}" for each in names))
                    if target in modules and target != name} for name, path in modules.items()}
    while leaves := [name for name, targets in graph.items() if not targets & graph.keys()]:
        for name in leaves:
            del graph[name]
    assert graph == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_says_its_job_in_one_sentence(package):
    words = ast.get_docstring(TREES[ROOT / package / "__init__.py"])
    assert re.fullmatch(r"[A-Z][^\n]*\.", words)
    assert ". " not in words


@every_file
def test_functions_have_60_lines_at_most(path):
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, node.name


@every_file
def test_what_is_public_has_a_docstring(path):
    public = [node for node in ast.walk(TREES[path])
              if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
              and node in (*TREES[path].body, *(member for c in TREES[path].body
                           if isinstance(c, ast.ClassDef) for member in c.body))]
    assert ast.get_docstring(TREES[path])
    assert [node.name for node in public if not ast.get_docstring(node)] == []


@pytest.mark.parametrize("script", [name for name in SCRIPTS if name != "hubconf"])
def test_a_script_is_a_door_of_less_than_80_lines(script):
    assert len((ROOT / f"{script}.py").read_text().splitlines()) < 80


@pytest.mark.parametrize(("line", "file", "words"), [
    (1, "layers.py", "align_corners=True"), (1, "layers.py", "align_corners=False"),
    (2, "trainer.py", "after the epoch"), (2, "checkpoints/weights.py", "--learning_rate wins"),
    (3, "datasets/augment.py", "one draw a sample"), (4, "datasets/images.py", "LANCZOS"),
    (4, "datasets/images.py", "the one above"),
    (5, "datasets/mono_dataset.py", "one normalised K"),
    (6, "datasets/stereo.py", "baseline"),
    (6, "metrics/depth.py", "0.54 m"), (7, "metrics/depth.py", "0.1 to 100"),
    (8, "layers.py", "C1 = 0.01^2"),
    (8, "losses.py", "0.85 SSIM"), (9, "losses.py", "--v1_multiscale"),
    (10, "losses.py", "minimum over source frames"), (10, "losses.py", "noise against ties"),
    (11, "losses.py", "mean-normalised"), (11, "losses.py", "halves"),
    (12, "networks/monodepth2.py", "temporal order"), (12, "losses.py", "mean inverse depth"),
    (12, "networks/pose_decoder.py", "0.01"),
    (13, "networks/resnet_encoder.py", "repeated weights"),
    (14, "metrics/depth.py", "np.median"), (14, "kitti_utils.py", "forward distance"),
    (15, "kitti_utils.py", "minus 1"), (16, "metrics/trajectory.py", "root of the sum"),
    (17, "checkpoints/weights.py", "published keys")])
def test_each_faithful_oddity_has_its_comment(line, file, words):
    comments = re.findall(r"# Faithful: (.*)", (ROOT / file).read_text())
    assert any(words in comment for comment in comments), f"line {line} of the list in {file}"

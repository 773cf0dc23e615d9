"""The shape of the project: import ranks, sizes, the list of faithful oddities."""
import ast
import re

import pytest
from conftest import ROOT

RANKS = {"options": 0, "utils": 0, "layers": 0, "metrics": 0, "machine": 0, "progress": 0,
         "randomness": 0, "interrupts": 0,
         "networks": 1, "losses": 1, "datasets": 1, "distributed": 1, "logs": 1, "profiling": 1,
         "commands": 1, "downloads": 1, "trajectories": 1, "breakdown": 1, "results": 1,
         "camera": 2, "checkpoints": 2, "divergence": 2, "footage": 2, "trajectory_figure": 2,
         "parts": 3, "prediction": 3, "predictor": 3, "training_states": 3, "preparation": 3,
         "figures": 4, "motions": 4, "resume": 4, "outputs": 4,
         "trainer": 5,
         "train": 6, "test_simple": 6, "evaluate_depth": 6, "evaluate_pose": 6,
         "export_gt_depth": 6, "export_onnx": 6, "hubconf": 6, "prepare_data": 6, "demo": 6,
         "benchmarks": 7, "experiments": 7}
FILES = sorted([*ROOT.glob("*.py"), *ROOT.glob("networks/*.py"), *ROOT.glob("datasets/*.py"),
                *ROOT.glob("benchmarks/*.py"), *ROOT.glob("experiments/*.py"),
                *ROOT.glob("preparation/*.py")])
TREES = {path: ast.parse(path.read_text()) for path in FILES}


def noun(path):
    return path.stem if path.parent == ROOT else path.parent.name


def imports(path):
    """Return the top names of the modules that a file imports."""
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert "*" not in [alias.name for alias in node.names], f"{path} imports *"
            yield node.module.split(".")[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_lower_ranks_only_and_no_star(path):
    own = noun(path)
    for name in imports(path):
        assert name not in RANKS or name == own or RANKS[name] < RANKS[own], f"{own} -> {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_short(path):
    assert len(path.read_text().splitlines()) <= 350
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, node.name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_public_has_a_docstring(path):
    public = [node for node in ast.walk(TREES[path])
              if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
              and node in (*TREES[path].body, *(member for c in TREES[path].body
                           if isinstance(c, ast.ClassDef) for member in c.body))]
    assert ast.get_docstring(TREES[path])
    assert [node.name for node in public if not ast.get_docstring(node)] == []


@pytest.mark.parametrize(("line", "file", "words"), [
    (1, "layers.py", "align_corners=True"), (1, "layers.py", "align_corners=False"),
    (2, "trainer.py", "after the epoch"), (2, "checkpoints.py", "--learning_rate wins"),
    (3, "datasets/augment.py", "one draw a sample"), (4, "datasets/images.py", "LANCZOS"),
    (4, "datasets/images.py", "the one above"),
    (5, "datasets/mono_dataset.py", "one normalised K"),
    (6, "datasets/mono_dataset.py", "baseline"),
    (6, "metrics.py", "0.54 m"), (7, "layers.py", "0.1 to 100"), (8, "layers.py", "C1 = 0.01^2"),
    (8, "losses.py", "0.85 SSIM"), (9, "losses.py", "--v1_multiscale"),
    (10, "losses.py", "minimum over source frames"), (10, "losses.py", "noise against ties"),
    (11, "losses.py", "mean-normalised"), (11, "losses.py", "halves"),
    (12, "networks/monodepth2.py", "temporal order"), (12, "losses.py", "mean inverse depth"),
    (12, "networks/pose_decoder.py", "0.01"),
    (13, "networks/resnet_encoder.py", "repeated weights"),
    (14, "metrics.py", "np.median"), (14, "datasets/kitti_utils.py", "forward distance"),
    (15, "datasets/kitti_utils.py", "minus 1"), (16, "metrics.py", "root of the sum"),
    (17, "checkpoints.py", "published keys")])
def test_each_faithful_oddity_has_its_comment(line, file, words):
    comments = re.findall(r"# Faithful: (.*)", (ROOT / file).read_text())
    assert any(words in comment for comment in comments), f"line {line} of the list in {file}"


def test_every_file_that_the_readme_links_to_exists():
    text = (ROOT / "README.md").read_text()
    links = re.findall(r"\]\(([^)#][^)]*)\)", text)
    missing = [link for link in links
               if "://" not in link and not (ROOT / link.partition("#")[0]).is_file()]
    assert links
    assert missing == []

"""Documentation: commands are accepted, Python runs, links and anchors lead somewhere."""
from __future__ import annotations

import inspect
import re
import shlex
import sys
from importlib import import_module
from pathlib import Path
from string import Template
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT, filled_weights
from torch.distributed.run import get_args_parser

from networks import ENCODERS, Monodepth2
from options import DEPTH, POSE, TRAIN, MonodepthOptions
from prediction.predictor import Predictor

PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), ROOT / "experiments/README.md"]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
FLAG = re.compile(r"(?<![\w-])--\w+")
LANGUAGES = {"shell", "python", "text", "bibtex"}
MAX_README_LINES = 200
VARIABLES = {"DATA": "kitti_data", "OUT": "runs", "SEED": "1"}  # of the lines in experiments/
PARSERS = ("parse_args", "parse")  # names of a script's parse function
COMMANDS = {"prepare_data": ("video", "import", "check", "kitti"),
            "prediction.hub": ("push", "pull")}
SCRIPTS = [TRAIN, DEPTH, POSE, "test_simple", "app", "export_gt_depth", "export_onnx",
           "prepare_data", "synthetic.render", "synthetic.teaser", "experiments.run",
           "prediction.hub"]
REPOSITORY, WEIGHTS = "path/to/this/repository", "mono+stereo_640x192"  # in Python blocks


class Block(NamedTuple):
    """A fenced block of a page: its language, its text, and the number of its first line."""

    page: Path
    line: int
    language: str
    text: str


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page."""
    text = page.read_text()
    return [Block(page, text[:found.start(2)].count("\n") + 1, *found.groups())
            for found in FENCE.finditer(text)]


def prose_of(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return FENCE.sub("", page.read_text())


def name_of(page: Path) -> str:
    """Return the path of a page below the project's root."""
    return str(page.relative_to(ROOT))


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def split_commands(text: str) -> list[list[str]]:
    """Return the words of each command of a shell block, without comments and redirections."""
    commands = []
    for line in text.replace("\\\n", " ").splitlines():
        line = Template(line).safe_substitute(VARIABLES)
        words = shlex.shlex(line, posix=True, punctuation_chars=True)
        words.whitespace_split = True
        command: list[str] = []
        for word in words:
            if word in ("&&", "|", ";"):
                commands.append(command)
                command = []
            elif word in (">", ">>"):
                next(words)
            else:
                command.append(word)
        commands.append(command)
    return [command for command in commands if command]


COMMAND_LINES = [pytest.param(command, id=f"{name_of(block.page)}:{block.line}-{i}")
                 for block in BLOCKS if block.language == "shell"
                 for i, command in enumerate(split_commands(block.text))]


def parse_flags(script: str, words: list[str], patch: pytest.MonkeyPatch) -> None:
    """Have a script's own parser read a command line; SystemExit if it refuses the line."""
    if script in (TRAIN, DEPTH, POSE):
        MonodepthOptions(script).parse(words)
        return
    module = import_module(script)
    parsers = [getattr(module, name) for name in PARSERS if hasattr(module, name)]
    if parsers:
        patch.setattr(sys, "argv", [script, *words])
        parsers[0]()
        return
    source = inspect.getsource(module)  # the parser stands in the script's main function
    unknown = [word for word in words if word.startswith("--") and f'"{word}"' not in source]
    assert unknown == [], f"{script} has no such flags"


def check_python(words: list[str], patch: pytest.MonkeyPatch) -> None:
    """Accept a script or module of the project, with flags that its parser accepts."""
    if words[0] == "-m":
        script, words = words[1], words[1:]
    else:
        assert words[0].endswith(".py")
        script = words[0].removesuffix(".py").replace("/", ".")
    path = script.replace(".", "/") + ".py"
    assert (ROOT / path).is_file(), f"there is no {path}"
    parse_flags(script, words[1:], patch)


def check_torchrun(words: list[str], patch: pytest.MonkeyPatch) -> None:
    """Accept what torchrun's own parser accepts, around a script of the project."""
    opts = get_args_parser().parse_args(words)
    check_python([opts.training_script, *opts.training_script_args], patch)


def check_make(words: list[str], patch: pytest.MonkeyPatch) -> None:
    """Accept targets and variables of the Makefile."""
    makefile = (ROOT / "Makefile").read_text()
    for word in words:
        name, is_variable, _ = word.partition("=")
        form = rf"^{name} \?=" if is_variable else rf"^{re.escape(name)}:"
        assert re.search(form, makefile, re.MULTILINE), f"the Makefile has no {word}"


def check_pip(words: list[str], patch: pytest.MonkeyPatch) -> None:
    """Accept `pip install` of one package name or of a requirements file of the project."""
    assert words[0] == "install"
    if words[1] == "-r":
        assert (ROOT / words[2]).is_file(), f"there is no {words[2]}"
        assert len(words) == 3
    else:
        assert re.fullmatch(r"\w[\w.-]*", words[1])
        assert len(words) == 2


def check_tensorboard(words: list[str], patch: pytest.MonkeyPatch) -> None:
    """Accept `tensorboard --logdir`, with a run below train.py's default --log_dir."""
    assert len(words) == 2
    assert words[0] == "--logdir"
    assert Path(words[1]).expanduser().parent == Path(MonodepthOptions(TRAIN).parse([]).log_dir)


def check_export(words: list[str], patch: pytest.MonkeyPatch) -> None:
    """Accept assignments of exactly the variables that the lines in experiments/ use."""
    assert [word.partition("=")[0] for word in words] == list(VARIABLES)


def check_grep(words: list[str], patch: pytest.MonkeyPatch) -> None:
    """Accept a pattern that selects commands of an existing list, which their parsers accept."""
    assert len(words) == 2
    pattern, path = words
    found = [line for line in (ROOT / path).read_text().splitlines() if pattern in line]
    assert found, f"{path} has no line with {pattern}"
    for command in split_commands("\n".join(found)):
        check_command(command, patch)


def check_alone(words: list[str], patch: pytest.MonkeyPatch) -> None:
    """Accept a command without arguments, which reads its input from a pipe."""
    assert words == []


def check_one_word(words: list[str], patch: pytest.MonkeyPatch) -> None:
    """Accept a command with one argument that is no flag."""
    assert len(words) == 1
    assert not words[0].startswith("-")


RULES = {"python": check_python, "torchrun": check_torchrun, "make": check_make, "pip": check_pip,
         "tensorboard": check_tensorboard, "export": check_export, "grep": check_grep,
         "bash": check_alone, "mkdir": check_one_word, "echo": check_one_word}


def check_command(command: list[str], patch: pytest.MonkeyPatch) -> None:
    """Check a command by the rule of its first word."""
    assert command[0] in RULES, f"there is no rule for {command[0]}"
    RULES[command[0]](command[1:], patch)


@pytest.mark.parametrize("command", COMMAND_LINES)
def test_each_command_of_a_page_is_accepted(command, monkeypatch):
    check_command(command, monkeypatch)


@pytest.mark.parametrize("line", [
    "curl https://example.org", "make nothing", "make demo COLOUR=red", "python nothing.py",
    "python -m experiments.nothing", "python benchmarks/run.py --nothing", "pip install -r none",
    "pip install one two", "pip remove torch", "tensorboard --logdir /nowhere/mono",
    "export HOME=here", "grep nothing experiments/table_1.sh", "bash experiments/table_1.sh",
    "mkdir one two", "python -m experiments.run"])
def test_a_wrong_command_is_refused(line, monkeypatch):
    (command,) = split_commands(line)
    with pytest.raises((AssertionError, SystemExit)):
        check_command(command, monkeypatch)


@pytest.mark.parametrize("line", [
    "python train.py --modelname mono", "python train.py --height 100",
    "python evaluate_depth.py --load_weights_folder weights --eval_mono --eval_stereo",
    "python evaluate_pose.py --sequences 09", "python test_simple.py --image_path a.jpg",
    "torchrun --nproc_per_node 4 train.py --no_such_flag",
    "torchrun --no_such_flag train.py", "python test_simple.py --output photo"])
def test_a_wrong_flag_is_refused_by_the_scripts_parser(line, monkeypatch):
    (command,) = split_commands(line)
    with pytest.raises(SystemExit) as ended:
        check_command(command, monkeypatch)
    assert ended.value.code == 2


def test_a_shell_block_is_split_into_its_commands():
    assert split_commands('mkdir a && echo "b c" > d  # e\npython f.py \\\n  --g "$OUT"/h | bash\n'
                          ) == [["mkdir", "a"], ["echo", "b c"],
                                ["python", "f.py", "--g", "runs/h"], ["bash"]]


def test_each_block_names_a_language_that_is_tested():
    assert {block.language for block in BLOCKS} == LANGUAGES
    assert [name_of(page) for page in PAGES if "```" in prose_of(page)] == []  # left open


PYTHON = [pytest.param(block, id=f"{name_of(block.page)}:{block.line}")
          for block in BLOCKS if block.language == "python"]


def run_python(block: Block, folder: Path, patch: pytest.MonkeyPatch) -> dict:
    """Run a Python block in a folder with an image street.jpg; return the names it defines."""
    cv2.imwrite(str(folder / "street.jpg"), np.full((70, 90, 3), 128, np.uint8))
    code = block.text.replace(REPOSITORY, str(ROOT))
    if WEIGHTS in code:
        code = code.replace(WEIGHTS, str(filled_weights(folder / "weights")))
    patch.chdir(folder)
    names: dict = {}
    exec(compile(code, name_of(block.page), "exec"), names)
    return names


def find_python(page: str, word: str) -> Block:
    """Return the only Python block of a page that contains a word."""
    (block,) = [block for block in blocks_of(ROOT / page)
                if block.language == "python" and word in block.text]
    return block


@pytest.mark.parametrize("block", PYTHON)
def test_each_python_block_of_a_page_runs(block, tmp_path, monkeypatch):
    names = run_python(block, tmp_path, monkeypatch)
    assert set(names) > {"__builtins__"}


def test_the_backbone_of_the_design_page_predicts(tmp_path, monkeypatch):
    block = find_python("docs/design.md", "SmallEncoder")
    encoder = run_python(block, tmp_path, monkeypatch)["SmallEncoder"]
    monkeypatch.setitem(ENCODERS, 1, encoder)
    outputs = Monodepth2(num_layers=1)(
        {("color_aug", f, 0): torch.rand(2, 3, 64, 96) for f in (0, -1, 1)})
    assert [outputs["disp", s].shape for s in range(4)] == [
        (2, 1, 64 // 2**s, 96 // 2**s) for s in range(4)]
    assert outputs["cam_T_cam", 0, -1].shape == (2, 4, 4)


def test_the_torch_hub_block_predicts_depth_at_image_size(tmp_path, monkeypatch):
    block = find_python("docs/prediction.md", "torch.hub")
    depth = run_python(block, tmp_path, monkeypatch)["depth"]
    assert depth.shape == (1, 1, 70, 90)
    assert (depth > 0).all()


def test_the_notebook_block_predicts_what_the_scripts_do(tmp_path, monkeypatch):
    block = find_python("docs/prediction.md", "networks.ResnetEncoder")
    names = run_python(block, tmp_path, monkeypatch)
    expected = Predictor(tmp_path / "weights").predict(np.asarray(names["image"]))
    torch.testing.assert_close(names["scaled_disp"], expected.disp, atol=1e-4, rtol=1e-4)
    assert names["depth"].shape == (1, 1, 70, 90)
    assert cv2.imread(str(tmp_path / "street_disp.jpeg")).shape == (70, 90, 3)


def test_the_ground_truth_block_writes_plain_arrays(tmp_path, monkeypatch):
    run_python(find_python("docs/own_data.md", "savez"), tmp_path, monkeypatch)
    with np.load(tmp_path / "gt_depths.npz") as maps:
        assert maps.files == ["depth_000000"]
        assert maps["depth_000000"].dtype == np.float32


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page.

    Markdown's marks go, letters become small, punctuation goes, spaces become hyphens, and a
    repeated anchor gets a number.
    """
    anchors: dict[str, int] = {}
    for heading in HEADING.findall(prose_of(page)):
        text = LINK.sub(lambda link: link.group(0)[1:].partition("]")[0], heading)
        anchor = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
        count = anchors.get(anchor, 0)
        anchors[anchor] = count + 1
        if count:
            anchors[f"{anchor}-{count}"] = 1
    return set(anchors)


LINKS = [pytest.param(page, link, id=f"{name_of(page)}-{link}") for page in PAGES
         for link in dict.fromkeys(LINK.findall(re.sub(r"`[^`\n]*`", "", prose_of(page))))]


@pytest.mark.parametrize(("page", "link"), LINKS)
def test_each_link_of_a_page_leads_somewhere(page, link):
    if "://" in link:
        assert re.fullmatch(r"https://[\w.-]+/[\w./-]*", link)
        return
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    assert target.is_relative_to(ROOT)
    assert target.is_file() or (path and target.is_dir())
    if anchor:
        assert anchor in anchors_of(target)


def test_anchors_are_made_by_githubs_rule(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# `video`: make a dataset\n## ImageNet's\n## street.sh\n## A, b & c_d\n"
                    "## [Flags](#x) of it\n## Flags\n## Flags\n```text\n# no heading\n```\n")
    assert anchors_of(page) == {"video-make-a-dataset", "imagenets", "streetsh", "a-b--c_d",
                                "flags-of-it", "flags", "flags-1"}


def test_the_readme_links_to_every_page():
    text = (ROOT / "README.md").read_text()
    linked = {link.partition("#")[0] for link in LINK.findall(text)}
    assert {name_of(page) for page in PAGES[1:]} <= linked


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= MAX_README_LINES


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_each_list_of_contents_names_the_pages_sections(page):
    text = prose_of(page)
    listed = re.findall(r"^- \[([^\]]+)\]\(#([^)]+)\)$", text, re.MULTILINE)
    sections = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert sections
    assert not listed or [title for title, _ in listed] == sections


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_sentence_of_a_page_goes_on_over_a_block(page):
    text = page.read_text()
    for block in FENCE.finditer(text):
        before = text[:block.start()].rstrip().splitlines()[-1]
        after = text[block.end():].lstrip()
        assert before.endswith((".", ":")) or before.startswith("#"), before
        assert not after or not after[0].islower(), after[:60]


def help_of(script: str, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> str:
    """Return what -h prints of a script, and of each of its commands."""
    commands = [[name] for name in COMMANDS.get(script, ())] or [[]]
    for command in commands:
        with pytest.raises(SystemExit) as ended:
            parse_flags(script, [*command, "-h"], patch)
        assert ended.value.code == 0
    return capsys.readouterr().out


def test_each_flag_that_a_page_names_exists(monkeypatch, capsys):
    helps = "\n".join(help_of(script, monkeypatch, capsys) for script in SCRIPTS)
    known = set(FLAG.findall(helps))
    named = {(name_of(page), flag) for page in PAGES for code in re.findall(
        r"`([^`\n]+)`", prose_of(page)) for flag in FLAG.findall(code)}
    assert len(named) > 50
    assert [(page, flag) for page, flag in sorted(named) if flag not in known] == []


def test_each_python_file_that_a_page_names_exists():
    named = {(name_of(page), path) for page in PAGES for path in re.findall(
        r"`(?:python )?([\w/]+\.py)\b", prose_of(page))}
    assert len(named) > 10
    assert [(page, path) for page, path in sorted(named) if not (ROOT / path).is_file()] == []


def test_the_map_of_the_design_page_is_the_roots_listing():
    (listing,) = [block.text for block in blocks_of(ROOT / "docs/design.md")
                  if block.text.startswith("train.py ")]
    named = [line.split()[0] for line in listing.splitlines() if line]
    files = [path.name for path in ROOT.glob("*.py")]
    folders = [f"{path.parent.name}/" for path in ROOT.glob("*/__init__.py")]
    assert sorted(named) == sorted([*files, *folders, "splits/", "tests/", "docs/"])


def test_each_module_name_of_the_design_page_can_be_imported():
    table = (ROOT / "docs/design.md").read_text().partition("\n## Names for code")[2]
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", table.partition("\n## ")[0], re.MULTILINE)
    assert len(rows) == 11
    missing = [(module, name) for module, names in rows
               for name in re.findall(r"`(\w+)`", names.partition(":")[0])
               if not hasattr(import_module(module), name)]
    assert missing == []

"""A few situations of `python -m tests.odd_files`, which tries all of them in some minutes."""
import pytest

from tests.odd_files.base import load_modules, make_base
from tests.odd_files.situation import Situation, try_situation
from tests.odd_files.table import SITUATIONS

FEW = ("JPEG in CMYK", "PNG of 100000 x 100000", "file name with a new line",
       "weights: safetensors named depth.pth", "disparities: Fortran order",
       "trajectory: 11 numbers a line", "evaluate_depth --min_depth nan")


@pytest.fixture(scope="module", autouse=True)
def shared(tmp_path_factory, drive):
    folder = tmp_path_factory.mktemp("base")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ODD_BASE", str(folder))
        (folder / "drive").symlink_to(drive)
        make_base(folder)
        load_modules()
        yield


@pytest.mark.parametrize("words", FEW)
def test_a_few_odd_files_end_well(words):
    situation, = (each for each in SITUATIONS if each.words == words)
    word, reason = try_situation(situation)
    assert word in ("right", "refused"), reason


def test_descriptions_are_unique():
    assert len({each.words for each in SITUATIONS}) == len(SITUATIONS)


@pytest.mark.parametrize(("code", "reason"), [
    ("1 / 0", "other lines"), ("print('done')", "accepted"),
    ("import os; os.kill(os.getpid(), 9)", "SIGKILL"),
    ("import sys; sys.exit('error: no')", "other words"),
    ("import sys; sys.exit('error: file\\nerror: file')", "2 lines of error")])
def test_what_must_not_happen_is_told_as_wrong(code, reason):
    def write():
        with open("program.py", "w") as file:
            file.write(code)
    word, found = try_situation(Situation("", "program.py", write, refused="file"))
    assert word == "WRONG"
    assert reason in found

"""datasets/splits.py: the published lists, the compact form, malformed lines."""
import hashlib
import pickle
import string
import textwrap
from pathlib import Path

import pytest
from conftest import ROOT
from conftest import SHARED as SHARED_FOLDER
from hypothesis import given
from hypothesis import strategies as st

from datasets.splits import (
    SplitLine,
    compact,
    eigen_to_benchmark_ids,
    parse_line,
    read_split,
    split_path,
)
from runtime.errors import DataError

SPLITS = ROOT / "splits"
SHARED = SHARED_FOLDER / "splits"

# Lines and SHA-256 of the published lists: of the sorted lines for training and validation, of
# the lines in their order for test lists, since ground truth files follow that order.
PUBLISHED = {
    "benchmark/test_files.txt": (
        500, "d98dc9a620168f9a008240d18527d94b889f8132e2bbb4eecb661ac0c08652e9"),
    "benchmark/train_files.txt": (
        72_084, "ac096cb3e9326759844e46ec317f71801a521cf02359964d047ff9a2108ee396"),
    "benchmark/val_files.txt": (
        6_060, "5741027b0f4262268597d3ce52179dd0ca8de2e32b96e0638b3ab7621f547b03"),
    "eigen/test_files.txt": (
        697, "84f2bc3f87b6bc263e93930cd7ad374f8f9149edc40bf08b31b13b2f2db8321b"),
    "eigen_benchmark/test_files.txt": (
        652, "0ad3e3d98bcde4abcbb0756953522afae4c85de4b96e4b7284a21dcf53efd37b"),
    "eigen_full/train_files.txt": (
        45_200, "08ddbca516073983aa24b0db6139fe804a725c5f675bd3a99a5e7370f1462602"),
    "eigen_full/val_files.txt": (
        1_776, "4099ab3bc538f4f61cbd7d662ab944c2921bf2d26c67c4e2d717cc2b51a058b3"),
    "eigen_zhou/train_files.txt": (
        39_810, "834f8bb1536bf970933c09eb5d2485163b5b408200b141ef89659beb5f4e9b29"),
    "eigen_zhou/val_files.txt": (
        4_424, "c9f960af08ea35d845e634f3472685a4409cb8c4b3ea55c8b764731ef798a0ba"),
    "odom/test_files_09.txt": (
        1_590, "45d0e46d308e75d066e27d4b38b29de14287aec47b720de90060b3d4cdca4d12"),
    "odom/test_files_10.txt": (
        1_200, "99f5556d91b92874516d4f0e5d5ef6e620e08848471e9a99e8aa9cd550c12c40"),
    "odom/train_files.txt": (
        36_671, "3b71046bd725a8f63d1bb03f817e08a266a1458339f21e6c1b1ed88d967e8509"),
    "odom/val_files.txt": (
        4_075, "a3d901414d55f396a304d6ba79082eabcde75bbd5fc18454a72baa90d0e93c2f"),
}
ARCHIVES_SHA256 = "9899630a856ea2661a06d223440561395792e15538ebe97f3b719a04b91e4386"
IDS_SHA256 = "e8dd9ea20ea6048953635e68bb06746e4f5f3b94f1a33edc0f9ebba03d995b2f"

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/splits here")


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def in_published_order(name: str, lines: list[str]) -> list[str]:
    return list(lines) if "/test_" in name else sorted(lines)


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "list.txt"
        path.write_text(text, encoding="utf-8")
        return path
    return write


# The project's lists

@pytest.mark.parametrize("name", PUBLISHED)
def test_a_list_expands_to_the_published_lines(name):
    count, digest = PUBLISHED[name]
    lines = in_published_order(name, read_split(split_path(*name.split("/"))))
    assert len(lines) == count
    assert sha256("\n".join(lines)) == digest


@needs_shared
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_list_equals_the_published_file(name):
    published = in_published_order(name, (SHARED / name).read_text().splitlines())
    assert in_published_order(name, read_split(SPLITS / name)) == published


def test_every_list_of_the_project_has_a_pinned_hash():
    lists = {path.relative_to(SPLITS).as_posix() for path in SPLITS.glob("*/*_files*.txt")}
    assert lists == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_list_is_readable_and_its_header_counts_its_lines(name):
    text = (SPLITS / name).read_text()
    assert max(map(len, text.splitlines())) <= 100
    assert text.splitlines()[1].startswith(f"# {PUBLISHED[name][0]:,} lines once expanded")


def test_all_split_files_together_are_under_400_kb():
    assert sum(path.stat().st_size for path in SPLITS.rglob("*.txt")) < 400_000


def test_the_archive_list_is_the_published_one():
    urls = (SPLITS / "kitti_archives_to_download.txt").read_bytes()
    assert urls.count(b"\n") == 66
    assert hashlib.sha256(urls).hexdigest() == ARCHIVES_SHA256


def test_the_benchmark_ids_are_the_published_ones():
    ids = eigen_to_benchmark_ids()
    assert len(ids) == 652
    assert sha256(" ".join(map(str, ids))) == IDS_SHA256


@needs_shared
def test_the_benchmark_ids_and_archives_equal_the_published_files():
    np = pytest.importorskip("numpy")
    published = np.load(SHARED / "benchmark" / "eigen_to_benchmark_ids.npy")
    assert eigen_to_benchmark_ids() == published.tolist()
    name = "kitti_archives_to_download.txt"
    assert (SPLITS / name).read_bytes() == (SHARED / name).read_bytes()


# Reading

def test_compact_and_plain_lines_mix_and_keep_their_order(write):
    text = "# mine\n\na/b l: 8-10 3\na/b 7 r\n  image: 0-1\r\nimage 09\ndrive\t5  2\n"
    assert read_split(write(text)) == [
        "a/b 8 l", "a/b 9 l", "a/b 10 l", "a/b 3 l", "a/b 7 r", "image 0", "image 1", "image 09",
        "drive 5 2"]


def test_a_range_keeps_leading_zeros(write):
    assert read_split(write("a l: 0098-0101 08-10")) == [
        "a 0098 l", "a 0099 l", "a 0100 l", "a 0101 l", "a 08 l", "a 09 l", "a 10 l"]


def test_a_byte_order_mark_is_not_part_of_a_folder(write):
    assert read_split(write("\ufeffa 1 l\n")) == ["a 1 l"]


def test_a_list_of_windows_is_read(tmp_path):
    text = "day\\drive 5 l\r\nday\\drive l: 6-7\r\n\r\n"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "list.txt").write_bytes(text.encode(encoding))
        assert read_split(tmp_path / "list.txt") == [f"day/drive {i} l" for i in (5, 6, 7)]
    assert parse_line("day\\drive 5 l") == ("day/drive", 5, "l")


def test_a_line_remembers_its_file_and_line_number(write):
    path = write("# mine\na l: 1-2\nb 3 r\n")
    assert [line.where for line in read_split(path)] == [
        f"{path}, line 2", f"{path}, line 2", f"{path}, line 3"]


def test_the_projects_own_lists_are_named_relative_to_the_project():
    line = read_split(split_path("odom", "test_files_09.txt"))[0]
    assert line.where == str(Path("splits/odom/test_files_09.txt")) + ", line 3"


def test_a_split_line_survives_pickling():
    line = pickle.loads(pickle.dumps(SplitLine("a 1 l", "mine.txt, line 4")))
    assert (type(line), line, line.where) == (SplitLine, "a 1 l", "mine.txt, line 4")


@pytest.mark.parametrize(("text", "found"), [
    ("a", "1 word"),
    ("a 1 l extra", "4 word"),
    ("a l:", "'l:'"),
    ("a l:1-5", "'l:1-5'"),
    ("a one l", "'one'"),
    ("a -1 l", "'-1'"),
    ("a 1.5 l", "'1.5'"),
    ("a ² l", "'²'"),
    ("a 12345678901 l", "'12345678901'"),
    ("a 1-5 l", "'1-5'"),
    ("a 1 x", "side 'x'"),
    ("a 1 L", "side 'L'"),
    ("a 4: 1", "side '4'"),
    ("a l: 1, 2", "'1,'"),
    ("a l: 1-2-3", "'1-2-3'"),
    ("a l: 9-5", "'9-5'"),
    ("a l: 009-10", "'009-10'"),
    ("a l: 9-010", "'9-010'"),
    ("a l: 0-9999999999", "1,000,000 frames"),
    ("a l: 0-999999\na 5 l", "1,000,000 frames"),
    ("../a 1 l", "'../a'"),
    ("a/../../b l: 1", "'a/../../b'"),
    ("a\\..\\b 1 l", "not below the data path"),
    ("/a 1 l", "'/a'"),
    ("C:\\a 1 l", "not below the data path"),
])
def test_a_malformed_line_is_named_with_file_line_and_expected_form(write, text, found):
    path = write(f"# mine\n{text}\n")
    with pytest.raises(DataError) as error:
        read_split(path)
    message = str(error.value)
    assert message.startswith(f"{path}, line {1 + len(text.splitlines())}: found ")
    assert found in message
    assert "expected `folder frame side`" in message


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n"])
def test_an_empty_list_is_an_error(write, text):
    with pytest.raises(DataError, match=r"list\.txt: found no frames; expected"):
        read_split(write(text))


def test_a_missing_list_is_an_error(tmp_path):
    with pytest.raises(DataError, match="is missing"):
        read_split(tmp_path / "list.txt")


def test_a_plain_line_parses_into_folder_index_and_side():
    assert parse_line("a/b 0000000069 l") == ("a/b", 69, "l")
    assert parse_line("image 7") == ("image", 7, None)


@pytest.mark.parametrize("line", ["", "a", "a l: 1", "a: 1", "# 1", "a 1 l r"])
def test_parsing_a_malformed_line_names_file_and_line_number(line):
    with pytest.raises(DataError, match=r"^split line: found "):
        parse_line(line)
    with pytest.raises(DataError, match=r"^mine\.txt, line 4: found "):
        parse_line(SplitLine(line, "mine.txt, line 4"))


# Finding

def test_a_split_is_found_from_any_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert split_path("eigen", "test_files.txt") == SPLITS / "eigen" / "test_files.txt"


def test_a_split_may_be_any_folder(write):
    path = write("a 1 l")
    assert split_path(str(path.parent), "list.txt") == path


@pytest.mark.parametrize("split", ["eigen_zuo", ""])
def test_an_unknown_split_is_an_error_that_lists_the_splits(split):
    with pytest.raises(DataError) as error:
        split_path(split, "train_files.txt")
    assert f"named {split!r}" in str(error.value)
    assert "benchmark, eigen, eigen_benchmark, eigen_full, eigen_zhou, odom" in str(error.value)


def test_a_split_without_the_list_names_the_splits_that_have_it():
    with pytest.raises(DataError) as error:
        split_path("eigen", "train_files.txt")
    assert str(error.value).startswith(str(Path("splits/eigen/train_files.txt")) + " is missing")
    assert "benchmark, eigen_full, eigen_zhou, odom" in str(error.value)


# Writing

def test_compact_joins_consecutive_frames_and_keeps_the_order():
    lines = ["a 1 l", "a 2 l", "a 3 l", "a 7 l", "a 6 l", "a 1 r", "a 4 l", "image 09", "image 10"]
    assert compact(lines) == textwrap.dedent("""\
        a l: 1-3 7 6
        a r: 1
        a l: 4
        image: 09-10
        """)


def test_compact_wraps_at_100_columns():
    rows = compact(f"2011_09_26/drive {2 * i} l" for i in range(200)).splitlines()
    assert all(len(row) <= 100 and row.startswith("2011_09_26/drive l: ") for row in rows)
    assert len(rows) > 1


@pytest.mark.parametrize("line", ["a", "a l: 1", "a 1 x", "../a 1 l"])
def test_compact_refuses_a_malformed_line(line):
    with pytest.raises(DataError, match="found"):
        compact([line])


FOLDERS = st.text(string.ascii_letters + string.digits + "_-:.#é", min_size=1, max_size=120).filter(
    lambda folder: not (folder[0] in "#." or folder[-1] == ":" or folder[1:2] == ":"))
FRAMES = st.builds(lambda frame, width: str(frame).zfill(width),
                   st.integers(0, 130), st.integers(0, 10))
RUNS = st.builds(lambda folder, side, first, width, length: [
    " ".join(filter(None, (folder, str(first + i).zfill(width), side))) for i in range(length)],
    FOLDERS, st.sampled_from([None, "l", "r", "2", "3"]), st.integers(0, 10**10 - 30),
    st.integers(0, 10), st.integers(1, 30))
LINES = st.lists(RUNS | st.builds(lambda frame: [f"a {frame} l"], FRAMES), min_size=1, max_size=12)


@given(LINES)
def test_reading_the_compact_form_gives_the_same_lines(tmp_path_factory, runs):
    lines = [line for run in runs for line in run]
    path = tmp_path_factory.getbasetemp() / "round_trip.txt"
    path.write_text(compact(lines), encoding="utf-8")
    assert read_split(path) == lines


def test_a_list_given_instead_of_its_folder_is_an_error(tmp_path):
    (tmp_path / "test_files.txt").write_text("a 0 l\n")
    with pytest.raises(DataError, match=f"is a file; give its folder, {tmp_path}"):
        split_path(str(tmp_path / "test_files.txt"), "test_files.txt")

"""preparation.archives: download from an https server, unpack, delete, resume."""
import os
import re
import shutil
import stat
import subprocess
import sys
import threading
import time
import zipfile

import pytest
from conftest import ROOT, one_line
from https_server import archive
from tqdm import tqdm

from datasets.splits import SPLITS, parse_line, read_split
from preparation import archives
from preparation.archives import ODOMETRY, PUBLISHED, archive_urls
from runtime.downloads import unpack
from runtime.files import LOCK_NAME

DATE, DRIVE = "2011_09_26", "2011_09_26_drive_0002_sync"
CALIBRATION_ZIP, DRIVE_ZIP = f"raw_data/{DATE}_calib.zip", f"raw_data/{DATE}_drive_0002/{DRIVE}.zip"
COMMAND = """
import sys
import prepare_data
from preparation import archives
from runtime.errors import run
archives.SERVER, archives.RAW_LIST, *sys.argv[1:] = sys.argv[1:]
run(prepare_data.main)
"""


def drive_files():
    """Return {path in the archive: content} of the files that the eigen split reads of a drive."""
    files = {f"{DATE}/{DRIVE}/oxts/dataformat.txt": "x"}
    for line in read_split(SPLITS / "eigen" / "test_files.txt"):
        folder, frame, _ = parse_line(line)
        if folder == f"{DATE}/{DRIVE}":
            files[f"{folder}/image_02/data/{frame:010d}.png"] = os.urandom(3000)
            files[f"{folder}/velodyne_points/data/{frame:010d}.bin"] = os.urandom(3000)
    return files


CALIBRATION = {f"{DATE}/calib_cam_to_cam.txt": "a", f"{DATE}/calib_velo_to_cam.txt": "b"}


@pytest.fixture
def kitti(server, monkeypatch, tmp_path):
    """Serve a KITTI of one drive and its calibration; return the files of the drive's archive."""
    raw_list = tmp_path / "archives.txt"
    raw_list.write_text(f"{PUBLISHED}{CALIBRATION_ZIP}\n{PUBLISHED}{DRIVE_ZIP}\n")
    monkeypatch.setattr(archives, "SERVER", server.url + "/")
    monkeypatch.setattr(archives, "RAW_LIST", raw_list)
    files = drive_files()
    server.files = {f"/{CALIBRATION_ZIP}": archive(CALIBRATION), f"/{DRIVE_ZIP}": archive(files)}
    return files


@pytest.fixture
def download(script, tmp_path):
    """Run `prepare_data.py kitti --download`, for the eigen split unless flags say otherwise."""
    def call(*flags):
        return script("prepare_data", "kitti", "--data_path", tmp_path / "data", "--download",
                      *(flags or ("--split", "eigen")))
    return call


@pytest.fixture
def start(server, tmp_path, monkeypatch):
    """Start the same command in another process, which the test kills."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def call():
        return subprocess.Popen([
            sys.executable, "-c", COMMAND, server.url + "/", tmp_path / "archives.txt", "kitti",
            "--data_path", tmp_path / "data", "--download", "--split", "eigen"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return call


def content_of(folder):
    """Return {path: content} of the files in a folder, without its lock."""
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.glob("**/*") if path.is_file() and path.name != LOCK_NAME}


def as_bytes(files):
    return {name: text if isinstance(text, bytes) else text.encode()
            for name, text in files.items()}


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition never came true"
        time.sleep(0.01)


def test_archives_are_downloaded_unpacked_and_deleted_once(kitti, server, download, tmp_path):
    outcome = download()
    assert outcome.status == 0, outcome
    assert content_of(tmp_path / "data") == as_bytes({**CALIBRATION, **kitti})
    size = tqdm.format_sizeof(sum(map(len, server.files.values())), "B")
    assert f"2 of 2 archives to fetch and unpack: {size} to come, " in outcome.out
    assert "free on the disk of " in outcome.out
    asked = list(server.asked)
    assert "0 of 2 archives to fetch and unpack: 0.00B to come" in download().out
    assert server.asked == asked
    assert len(server.sized) == 2


def test_a_download_that_breaks_off_resumes(kitti, server, download, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "TRIES", 2)
    server.cuts = [10**6, 5000, 0]
    outcome = download()
    assert "it broke off after 5000 of" in one_line(outcome, 1)
    assert (tmp_path / "data" / f"{DRIVE}.zip.part").stat().st_size == 5000
    outcome = download()
    assert outcome.status == 0
    left = tqdm.format_sizeof(len(server.files[f"/{DRIVE_ZIP}"]) - 5000, "B")
    assert f"1 of 2 archives to fetch and unpack: {left} to come" in outcome.out
    assert server.asked[-1] == (f"/{DRIVE_ZIP}", "bytes=5000-")
    assert content_of(tmp_path / "data") == as_bytes({**CALIBRATION, **kitti})


def test_a_download_that_is_killed_resumes(kitti, server, start, download, tmp_path):
    answer, blocked = server.answer, threading.Event()

    def hang(request):
        content = server.files[request.path]
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content[:-100])
        blocked.wait(30)

    server.answer = lambda request: (hang if request.path == f"/{DRIVE_ZIP}" else answer)(request)
    run, part = start(), tmp_path / "data" / f"{DRIVE}.zip.part"
    wait_until(lambda: part.is_file() and part.stat().st_size)
    run.kill()
    run.communicate()
    blocked.set()
    server.answer, have = answer, part.stat().st_size
    assert download().status == 0
    assert server.asked[-1] == (f"/{DRIVE_ZIP}", f"bytes={have}-")
    assert content_of(tmp_path / "data") == as_bytes({**CALIBRATION, **kitti})


def test_an_archive_is_unpacked_again_after_a_kill(kitti, server, start, download, tmp_path):
    # these files end the archive: the files that the split reads are extracted before the kill
    more = {f"{DATE}/{DRIVE}/image_00/data/{i:010d}.png": b"x" for i in range(2000)}
    server.files[f"/{DRIVE_ZIP}"] = archive({**kitti, **more})
    run, first = start(), tmp_path / "data" / next(iter(more))
    wait_until(first.is_file)
    run.kill()
    run.communicate()
    assert (tmp_path / "data" / f"{DRIVE}.zip").is_file()
    assert not (tmp_path / "data" / list(more)[-1]).is_file()
    asked = list(server.asked)
    assert download().status == 0
    assert server.asked == asked
    assert content_of(tmp_path / "data") == as_bytes({**CALIBRATION, **kitti, **more})


def test_the_odometry_archives_lose_their_top_folder(kitti, server, download, tmp_path):
    assert archive_urls(odometry=True) == [f"{server.url}/{name}" for name in ODOMETRY]
    contents = ({"dataset/": "", "dataset/poses/": "", "dataset/poses/09.txt": "1"},
                {"dataset/sequences/09/calib.txt": "2"},
                {"dataset/sequences/09/image_2/000000.png": "3"})
    server.files = {f"/{name}": archive(content)
                    for name, content in zip(ODOMETRY, contents, strict=True)}
    outcome = download("--odometry")
    assert outcome.status == 0
    assert content_of(tmp_path / "data") == {
        "poses/09.txt": b"1", "sequences/09/calib.txt": b"2",
        "sequences/09/image_2/000000.png": b"3"}
    assert re.search(r"odom_9 +images +1 of +1,590 +png", outcome.out)
    assert "eigen" not in outcome.out


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "dataset/../../evil", "link"])
def test_an_archive_that_would_leave_the_folder_is_refused_alone(
        kitti, server, download, tmp_path, name):
    entry = zipfile.ZipInfo(name)
    entry.external_attr = ((stat.S_IFLNK if name == "link" else stat.S_IFREG) | 0o644) << 16
    server.files[f"/{CALIBRATION_ZIP}"] = archive({**CALIBRATION, entry: "/etc/passwd"})
    error = one_line(download(), 1)
    path = tmp_path / "data" / f"{DATE}_calib.zip"
    assert f"{path} is refused: its entry '{entry.filename.removeprefix('dataset/')}'" in error
    assert "would leave the folder; delete it to fetch it again" in error
    assert content_of(tmp_path / "data") == as_bytes(
        {**kitti, path.name: server.files[f"/{CALIBRATION_ZIP}"]})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["archives.txt", "authority.pem", "data"]


def test_a_broken_archive_is_named_and_kept_until_deleted(kitti, server, download, tmp_path):
    content = server.files[f"/{CALIBRATION_ZIP}"]
    server.files[f"/{CALIBRATION_ZIP}"] = content[:-10]
    assert f"{DATE}_calib.zip is refused: it cannot be unpacked" in one_line(download(), 1)
    (tmp_path / "data" / f"{DATE}_calib.zip").unlink()
    server.files[f"/{CALIBRATION_ZIP}"] = content
    assert download().status == 0


def test_a_missing_archive_is_named_and_the_others_come(kitti, server, download, tmp_path):
    server.statuses = [404]
    error = one_line(download(), 1)
    assert f"{CALIBRATION_ZIP} cannot be fetched: Not Found" in error
    assert content_of(tmp_path / "data") == as_bytes(kitti)


def test_a_server_without_the_archives_is_one_error_line(kitti, server, download, monkeypatch):
    server.files = {}
    assert "calib.zip cannot be fetched (Not Found); run the same" in one_line(download(), 1)
    monkeypatch.setattr(archives, "SERVER", "https://127.0.0.1:9/")  # nothing listens there
    assert "refused); run the same command again" in one_line(download(), 1)
    assert server.asked == []


def test_a_disk_that_is_too_small_is_found_before_downloading(kitti, server, download, tmp_path):
    class Huge(bytes):
        def __len__(self):
            return 10**15

    server.files[f"/{DRIVE_ZIP}"] = Huge(b"x")
    error = one_line(download(), 1)
    assert re.search(r"on a disk with \d+\.?\d*\w+ free, and needs about 2\.00PB; free some", error)
    assert server.asked == []
    assert content_of(tmp_path / "data") == {}


def test_an_archive_larger_than_the_bound_is_refused(kitti, server, download, monkeypatch):
    monkeypatch.setattr(archives, "MAX_BYTES", 2000)
    assert "more than the 2000 allowed" in one_line(download(), 1)
    assert (server.asked[0][0], len(server.asked)) == (f"/{CALIBRATION_ZIP}", 2)


def test_an_archive_is_kept_whole_where_its_files_have_no_room(tmp_path):
    size, lie = 5000, 0xFFFFFFF0
    count = shutil.disk_usage(tmp_path).free // lie + 1
    content = archive({str(i): "x" * size for i in range(count)})
    path = tmp_path / "large.zip"
    path.write_bytes(content.replace(size.to_bytes(4, "little"), lie.to_bytes(4, "little")))
    with pytest.raises(OSError, match="bytes more, and the disk has"):
        unpack(path, tmp_path / "out", max_bytes=10**18)
    assert path.is_file()
    assert content_of(tmp_path / "out") == {}

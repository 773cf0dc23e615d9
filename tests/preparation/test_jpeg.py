"""preparation/jpeg.py: PNGs become JPEGs on all cores; killed runs and full disks lose none."""
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, one_line
from PIL import Image, JpegImagePlugin

from preparation import jpeg
from preparation.jpeg import convert_png, find_pngs
from runtime.files import LOCK_NAME

RAW = "2011_09_26/2011_09_26_drive_0001_sync"
HEIGHT, WIDTH = 37, 124
COUNT = 120  # frames of KITTI's size: converting them takes long enough to be interrupted


def write_png(path: Path, mode: str = "RGB", height: int = HEIGHT, width: int = WIDTH) -> Path:
    """Write a picture as smooth and as hard to compress as a photograph."""
    noise = np.random.randint(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
    image.convert(mode).save(path)
    return path


@pytest.fixture
def convert(script, tmp_path):
    def call():
        return script("prepare_data", "kitti", "--data_path", tmp_path, "--convert", "--split",
                      "odom_9")
    return call


def pictures(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.glob("**/*")
                  if path.is_file() and path.name != LOCK_NAME)


def test_camera_images_are_converted_and_depth_maps_are_kept(tmp_path, convert):
    images = [f"{RAW}/image_00/data/0000000000", f"{RAW}/image_03/data/0000000001",
              "sequences/09/image_2/000000", "sequences/10/image_1/000000"]
    others = [f"{RAW}/proj_depth/groundtruth/image_02/0000000005.png",
              f"{RAW}/proj_depth/image_02/data/0000000005.png", "image/0000000000.png",
              f"{RAW}/image_04/data/0000000000.png", "sequences/09/depth_2/000000.png",
              "train/image_02/0000000001.png", f"{RAW}/image_00/data/._0000000000.png"]
    for name in (*(f"{image}.png" for image in images), *others):
        write_png(tmp_path / name, "L" if "image_00" in name else "RGB")
    assert [path.relative_to(tmp_path).as_posix() for path in find_pngs(tmp_path)] == [
        f"{image}.png" for image in images]
    assert convert().status == 0
    assert pictures(tmp_path) == sorted([*(f"{image}.jpg" for image in images), *others])
    assert f"{tmp_path} has no PNG images to convert" in convert().out


def test_jpegs_have_the_published_quality_and_subsampling(tmp_path):
    png = write_png(tmp_path / "a.png")
    with Image.open(png) as image:
        before = np.array(image).astype(int)
    assert convert_png(png) is None
    with Image.open(tmp_path / "a.jpg") as image:
        # quantization of the first and last luminance coefficients: 16 and 99 at quality 50
        assert (image.quantization[0][0], image.quantization[0][63]) == (3, 16)
        assert JpegImagePlugin.get_sampling(image) == 2  # 4:2:0
        assert np.abs(np.array(image) - before).mean() < 4
    png = write_png(tmp_path / "grey.png", "L")
    assert convert_png(png) is None
    with Image.open(tmp_path / "grey.jpg") as image:
        assert (image.mode, image.size) == ("L", (WIDTH, HEIGHT))
    assert pictures(tmp_path) == ["a.jpg", "grey.jpg"]


def test_a_png_is_deleted_only_after_its_jpeg_was_read_back(tmp_path, monkeypatch):
    png, other = write_png(tmp_path / "a.png"), write_png(tmp_path / "b.png", width=WIDTH + 8)
    convert_png(other)
    larger = (tmp_path / "b.jpg").read_bytes()
    for written, found in ((lambda content: content[:-100], "truncated"),
                           (lambda content: b"", "the image format is unknown"),
                           (lambda content: larger, "another size than")):
        monkeypatch.setattr(jpeg, "write_atomically",  # as a disk that loses something does
                            lambda path, content, change=written: path.write_bytes(change(content)))
        fault = convert_png(png)
        assert str(png) in fault
        assert found in fault
        assert png.is_file()
    monkeypatch.undo()
    assert convert_png(png) is None
    assert not png.is_file()


def test_broken_pngs_are_named_and_kept_and_the_rest_is_converted(tmp_path, convert):
    folder = tmp_path / "sequences/09/image_2"
    names = ("good", "cut", "flipped", "text", "depth", "jpeg", "also_good")
    paths = {name: write_png(folder / f"{name}.png", height=100) for name in names}
    content = paths["cut"].read_bytes()
    paths["cut"].write_bytes(content[:-20])
    paths["flipped"].write_bytes(content[:2000] + bytes([content[2000] ^ 1]) + content[2001:])
    paths["text"].write_text("no image")
    Image.fromarray(np.full((HEIGHT, WIDTH), 300, np.uint16)).save(paths["depth"])
    with Image.open(paths["jpeg"]) as image:
        image.save(paths["jpeg"], "JPEG")
    before = {path.name: path.read_bytes() for path in paths.values()}
    outcome = convert()
    assert f"5 of the files above could not be fetched or converted; the first: {folder}" in (
        one_line(outcome, 1))
    left = ["cut.png", "depth.png", "flipped.png", "jpeg.png", "text.png"]
    assert all(outcome.err.count(f"{folder / name} ") >= 1 for name in left)
    assert pictures(folder) == sorted(["also_good.jpg", "good.jpg", *left])
    assert {name: (folder / name).read_bytes() for name in left} == {n: before[n] for n in left}
    assert "odom_9" in outcome.out  # the report is printed too


def start(folder, **kwargs):
    return subprocess.Popen([sys.executable, "prepare_data.py", "kitti", "--data_path", folder,
                             "--convert", "--split", "odom_9"], cwd=ROOT, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs)


def descendants(pid):
    """Return the process ids of all children and grandchildren of a process."""
    own = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [found for child in own for found in (child, *descendants(child))]


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def frames(tmp_path):
    folder = tmp_path / "sequences/09/image_2"
    write_png(folder / "000000.png", height=375, width=1242)
    content = (folder / "000000.png").read_bytes()
    for i in range(1, COUNT):
        (folder / f"{i:06d}.png").write_bytes(content)
    return folder


def test_after_a_kill_no_image_is_lost_and_the_next_run_goes_on(frames, tmp_path, convert):
    run = start(tmp_path)
    while len(list(frames.glob("*.jpg"))) < 5:
        assert run.poll() is None
        time.sleep(0.01)
    workers = descendants(run.pid)
    run.kill()
    run.wait()
    for _ in range(500):  # workers end with their parent, and stop writing
        if not any(map(is_running, workers)):
            break
        time.sleep(0.01)
    assert workers
    assert [pid for pid in workers if is_running(pid)] == []
    left = {path.stem for path in frames.glob("*.png")}
    assert left
    for i in range(COUNT):
        if f"{i:06d}" not in left:
            with Image.open(frames / f"{i:06d}.jpg") as image:
                image.load()
    assert convert().status == 0
    assert pictures(frames) == [f"{i:06d}.jpg" for i in range(COUNT)]


def test_an_interrupted_run_prints_one_word(frames, tmp_path):
    run = start(tmp_path, start_new_session=True)
    while len(list(frames.glob("*.jpg"))) < 5:
        assert run.poll() is None
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGINT)  # as Ctrl-C does: its workers get it too
    _, err = run.communicate(timeout=60)
    assert run.returncode == 130
    assert err.endswith("interrupted\n")
    assert "Traceback" not in err
    assert list(frames.glob("*.png"))
    assert not list(frames.glob("*.tmp"))


def test_a_killed_worker_process_ends_the_run_with_one_line(frames, tmp_path):
    run = start(tmp_path)
    while not list(frames.glob("*.jpg")):
        assert run.poll() is None
        time.sleep(0.01)
    os.kill(int(descendants(run.pid)[-1]), signal.SIGKILL)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "error: a process that converts images has died" in err
    assert "Traceback" not in err


def test_a_full_disk_ends_the_run_with_one_line_and_the_pngs_stay(frames, tmp_path):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    run = start(tmp_path, preexec_fn=limit)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "jpg cannot be written: File too large; raise the limit (ulimit -f)" in err
    assert "Traceback" not in err
    assert pictures(frames) == [f"{i:06d}.png" for i in range(COUNT)]

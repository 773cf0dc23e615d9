"""Frames are read from images, folders and videos."""
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from datasets.footage import Footage
from prediction.video import VideoFile
from runtime.errors import DataError
from synthetic.render import TRAIN


@pytest.fixture(scope="session")
def frames(drive):
    """Return sixteen frames of the drive, (64, 96, 3) uint8."""
    paths = sorted((drive / TRAIN / "image_02/data").glob("*.jpg"))[:16]
    return [np.array(Image.open(path)) for path in paths]


@pytest.fixture
def video(tmp_path, frames):
    with VideoFile(tmp_path / "drive.mp4", 20) as file:
        for frame in frames:
            file.write(frame)
    return file.path


def test_a_written_video_gives_its_frames_back(video, frames):
    footage = Footage(video)
    assert (footage.count, footage.fps, footage.name.name) == (16, 20, "drive")
    stills = list(footage)
    assert [still.name.name for still in stills] == [f"{i:06d}" for i in range(16)]
    for still, frame in zip(stills, frames, strict=True):
        image = still.read().transpose(1, 2, 0).astype(float)
        assert np.abs(image - frame).mean() < 12  # H.264 is not lossless
        assert np.abs(image - frame).mean() < np.abs(image - frame[::-1]).mean() / 2
    assert len(list(Footage(video, max_frames=5))) == Footage(video, max_frames=5).count == 5


def test_a_folder_gives_its_images_but_skips_predictions(tmp_path, frames):
    for name in ("b.PNG", "a.jpg", "a_disp.jpeg", "a_depth.png"):
        Image.fromarray(frames[0]).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    assert [still.name.name for still in Footage(tmp_path)] == ["a", "b"]
    assert [still.name.name for still in Footage(tmp_path, "jpg")] == ["a"]


def test_outputs_are_known_by_what_lies_beside_them(tmp_path, frames, capsys):
    for name in ("a.jpg", "a_disp.jpeg", "a_depth.png", "b_disp.jpeg", "c_disp.jpg",
                 "left_depth.png"):
        Image.fromarray(frames[0]).save(tmp_path / name)
    (tmp_path / "b_disp.npy").touch()
    assert [still.name.name for still in Footage(tmp_path)] == ["a", "c_disp", "left_depth"]
    assert capsys.readouterr().err == (f"note: {tmp_path}: left out 3 outputs of an earlier run, "
                                       "such as a_depth.png\n")


def test_images_with_other_endings_are_left_out_and_said(tmp_path, frames, capsys):
    for name in ("1.JPG", "2.jpeg", "3.jpg"):
        Image.fromarray(frames[0]).save(tmp_path / name)
    (tmp_path / "4.HEIC").touch()
    assert [still.name.name for still in Footage(tmp_path)] == ["1", "2", "3"]
    assert "1 image with other endings, .HEIC: convert them to JPEG" in capsys.readouterr().err
    assert [still.name.name for still in Footage(tmp_path, "jpg")] == ["3"]
    assert ("left out 3 images with other endings, .HEIC, .JPG, .jpeg: pass --ext JPG"
            in capsys.readouterr().err)


def test_two_images_whose_outputs_would_have_one_name_are_named(tmp_path, frames):
    for name in ("1.jpg", "1.png"):
        Image.fromarray(frames[0]).save(tmp_path / name)
    with pytest.raises(DataError, match=r"1\.jpg and 1\.png would have outputs of one name"):
        Footage(tmp_path)
    assert len(list(Footage(tmp_path, "png"))) == 1


def test_hidden_files_are_no_images(tmp_path, frames, capsys):
    Image.fromarray(frames[0]).save(tmp_path / "1.png")
    for name in ("._1.png", ".hidden.png", ".DS_Store", "Thumbs.db", "desktop.ini"):
        (tmp_path / name).write_bytes(b"no image")
    assert [still.name.name for still in Footage(tmp_path, "png")] == ["1"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("ending", [".mts", ".flv", ".h264", ".M2TS"])
def test_films_of_cameras_are_read_as_videos(tmp_path, ending):
    (tmp_path / f"a{ending}").write_bytes(b"no video")
    with pytest.raises(DataError, match=r"cannot be read as a video .* convert it to H\.264"):
        Footage(tmp_path / f"a{ending}")


@pytest.mark.parametrize(("content", "found"), [
    (b"", r"zero\.mp4 cannot be read as a video \(0 bytes\)"),
    (b"no video" * 100, "cannot be read as a video")])
def test_a_broken_video_is_named(tmp_path, content, found):
    (tmp_path / "zero.mp4").write_bytes(content)
    with pytest.raises(DataError, match=found):
        Footage(tmp_path / "zero.mp4")


def test_a_truncated_video_is_named(tmp_path, frames):
    write_with_opencv(tmp_path / "drive.mp4", "mp4v", frames)  # the index is at its end
    content = (tmp_path / "drive.mp4").read_bytes()
    (tmp_path / "drive.mp4").write_bytes(content[:len(content) // 2])
    with pytest.raises(DataError, match=r"drive\.mp4 (cannot be read|has no frame)"):
        list(Footage(tmp_path / "drive.mp4"))


def write_with_opencv(path, codec, frames):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 10, (96, 64))
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()


def test_a_missing_source_is_named(tmp_path):
    for source in (tmp_path / "nothing", tmp_path / "nothing.mp4"):
        with pytest.raises(DataError, match=r"nothing.* does not exist; give an image, a folder"):
            Footage(source)
    with pytest.raises(DataError, match="webcam 97 cannot be opened"):
        Footage("97")
    with pytest.raises(DataError, match="has no image"):
        Footage(tmp_path)


def test_a_video_with_missing_frames_prints_a_warning(tmp_path, frames, capsys):
    write_with_opencv(tmp_path / "a.avi", "MJPG", frames)
    content = (tmp_path / "a.avi").read_bytes()
    (tmp_path / "a.avi").write_bytes(content[:len(content) // 2])
    footage = Footage(tmp_path / "a.avi")
    found = len(list(footage))
    assert 4 < found < 14
    assert footage.count == 16  # as its header announces
    assert f"breaks off: it has {found} of the 16 frames" in capsys.readouterr().err


def test_frames_after_broken_ones_are_read(video):
    content = bytearray(video.read_bytes())
    middle = content.index(b"mdat") + (len(content) - content.index(b"mdat")) // 2
    content[middle:middle + 40] = bytes(40)
    video.write_bytes(content)
    stills = list(Footage(video))
    assert len(stills) >= 15
    assert all(still.read().shape == (3, 64, 96) for still in stills)


@pytest.mark.parametrize(("degrees", "matrix"), [(0, (1, 0, 0, 1)), (90, (0, -1, 1, 0)),
                                                 (180, (-1, 0, 0, -1)), (-90, (0, 1, -1, 0))])
def test_a_video_is_turned_upright_as_it_says(video, degrees, matrix):
    content = bytearray(video.read_bytes())
    at = content.index(b"tkhd") + 44  # the display matrix of a phone that was held upright
    struct.pack_into(">9i", content, at, *(65536 * n for n in matrix[:2]), 0,
                     *(65536 * n for n in matrix[2:]), 0, 0, 0, 2**30)
    plain = next(iter(Footage(video))).read()
    video.with_name("turned.mp4").write_bytes(content)
    turned = next(iter(Footage(video.with_name("turned.mp4")))).read()
    counterclockwise = np.rot90(plain, degrees // 90, (1, 2))
    np.testing.assert_array_equal(turned, counterclockwise)


@pytest.mark.parametrize(("ending", "codec"), [(".mp4", "mp4v"), (".avi", "MJPG"), (".mkv", "MJPG"),
                                               (".webm", "VP80")])
def test_files_of_other_writers_are_read_as_opencv_reads_them(tmp_path, frames, ending, codec):
    path = tmp_path / f"other{ending}"
    write_with_opencv(path, codec, frames)
    capture, footage = cv2.VideoCapture(str(path)), Footage(path)
    assert (footage.count, round(footage.fps, 3)) == (16, 10)
    for i, still in enumerate(footage):
        image = still.read().transpose(1, 2, 0).astype(int)
        assert np.abs(image - capture.read()[1][..., ::-1]).mean() < 2.5
        assert still.time == pytest.approx(i / 10, abs=2e-3)
    assert i == 15


def test_2_comes_before_10(tmp_path, frames):
    for i in (1, 2, 10, 9):
        Image.fromarray(frames[i]).save(tmp_path / f"f{i}.png")
    assert [still.name.name for still in Footage(tmp_path)] == ["f1", "f2", "f9", "f10"]


def test_the_current_folder_is_a_source(tmp_path, frames, monkeypatch):
    Image.fromarray(frames[0]).save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    assert [still.name.name for still in Footage(".")] == ["a"]


def test_a_wrong_extension_names_the_flag_to_pass(tmp_path):
    for name in ("a.JPG", "b.png", "notes.txt", "b_disp.jpeg"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"has no \*\.jpg; it has \.JPG, \.png: pass --ext JPG$"):
        Footage(tmp_path, "jpg")

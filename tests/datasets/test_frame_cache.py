"""datasets/frame_cache.py: each image is decoded once; full disks and killed writers do no harm."""
import multiprocessing
import os
import resource
import signal
import time

import numpy as np
import pytest
import torch
from PIL import Image

from datasets import KITTIRAWDataset
from datasets.frame_cache import FrameCache
from datasets.images import Resized, read_image
from runtime.errors import DataError, UsageError

H, W = 64, 96


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(np.random.randint(0, 256, (H, W, 3), np.uint8)).save(path)
    return path


def made(path):
    """Decode an image that already has the frames' size."""
    return Resized(read_image(path).contiguous(), (H, W))


def counted(calls):
    """Return a `make` function that records each image it decodes."""
    def make(path):
        calls.append(path)
        return made(path)
    return make


def same(one, other):
    return torch.equal(one.image, other.image) and one.original_size == other.original_size


def test_a_frame_is_decoded_once_and_read_back_bit_for_bit(tmp_path, image):
    calls = []
    for _ in range(2):  # two runs
        cache = FrameCache(tmp_path / "cache", H, W)
        for _ in range(2):
            assert same(cache.read(image, counted(calls)), made(image))
    assert calls == [image]


def test_a_changed_image_size_or_path_is_decoded_again(tmp_path, image):
    calls = []
    cache = FrameCache(tmp_path / "cache", H, W)
    cache.read(image, counted(calls))
    Image.new("RGB", (W, H), (1, 2, 3)).save(image)
    assert cache.read(image, counted(calls)).image[:, 0, 0].tolist() == [1, 2, 3]
    os.utime(image, ns=(0, 0))
    cache.read(image, counted(calls))
    (tmp_path / "copy.png").write_bytes(image.read_bytes())
    cache.read(tmp_path / "copy.png", counted(calls))
    FrameCache(tmp_path / "cache", H // 2, W).read(image, lambda _: Resized(torch.zeros(
        3, H // 2, W, dtype=torch.uint8), (H, W)))
    assert len(calls) == 4
    assert len(list(tmp_path.glob("cache/96x32-*/*/*.rgb"))) == 1


def test_a_truncated_file_is_made_again(tmp_path, image):
    cache = FrameCache(tmp_path / "cache", H, W)
    cache.read(image, made)
    (entry,) = cache.folder.glob("*/*.rgb")
    entry.write_bytes(entry.read_bytes()[:100])
    assert same(cache.read(image, counted([])), made(image))
    assert entry.stat().st_size == 3 * H * W + 16  # the original size, and the checksum


def test_a_changed_file_is_made_again(tmp_path, image):
    cache = FrameCache(tmp_path / "cache", H, W)
    cache.read(image, made)
    (entry,) = cache.folder.glob("*/*.rgb")
    whole = entry.read_bytes()
    page = 4096
    swapped = whole[page:2 * page] + whole[:page] + whole[2 * page:]
    zeroed = whole[:page] + bytes(page) + whole[2 * page:]
    for changed in (swapped, zeroed, bytes([whole[0] ^ 1]) + whole[1:], whole[:-1] + b"\x7f",
                    whole[:-page] + bytes(page)):
        entry.write_bytes(changed)
        calls = []
        assert same(cache.read(image, counted(calls)), made(image))
        assert calls == [image]
        assert entry.read_bytes() == whole


def test_a_frame_outlives_the_cut_of_its_file(tmp_path, image):
    cache = FrameCache(tmp_path / "cache", H, W)
    cache.read(image, made)
    frame = cache.read(image, made)
    (entry,) = cache.folder.glob("*/*.rgb")
    os.truncate(entry, 0)  # of a file mapped to memory, the next access would end the process
    assert same(frame, made(image))


def fill(folder, paths, frames_seen):
    cache = FrameCache(folder, H, W)
    for path in paths:
        cache.read(path, made)
        frames_seen.value += 1


def test_processes_fill_a_cache_together_and_a_killed_one_does_no_harm(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(400)]
    for i, path in enumerate(paths):
        if i < 20:
            Image.fromarray(np.random.randint(0, 256, (H, W, 3), np.uint8)).save(path)
        else:
            os.link(paths[i % 20], path)
    context = multiprocessing.get_context("fork")  # as a loader's workers
    seen = [context.Value("i", 0) for _ in range(3)]
    workers = [context.Process(target=fill, args=(tmp_path / "cache", paths, count))
               for count in seen]
    for worker in workers:
        worker.start()
    while seen[0].value < 5:
        time.sleep(0.001)
    os.kill(workers[0].pid, signal.SIGKILL)
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [-signal.SIGKILL, 0, 0]
    cache, calls = FrameCache(tmp_path / "cache", H, W), []
    for path in paths:
        assert same(cache.read(path, counted(calls)), made(path))
    assert calls == []


def test_temporary_files_of_killed_writers_are_removed_when_old(tmp_path):
    cache = FrameCache(tmp_path, H, W)
    (cache.folder / "ab").mkdir()
    old, fresh = (cache.folder / f"ab/{name}.1.tmp" for name in ("old", "fresh"))
    for path in (old, fresh):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    cache.remove_abandoned()
    assert not old.exists()
    assert fresh.exists()


def write_to_the_limit(folder, image, results):
    """Fill a cache where no file may exceed 1000 bytes, which acts as a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    cache = FrameCache(folder, H, W)
    results.put([cache.read(image, made).image.sum().item()
                 for _ in range(2)])


def test_a_full_disk_gets_one_warning_and_reading_goes_on_uncached(tmp_path, image, capfd):
    context = multiprocessing.get_context("fork")  # as a loader's workers
    results = context.Queue()
    process = context.Process(target=write_to_the_limit,
                              args=(tmp_path / "cache", image, results))
    process.start()
    assert results.get(timeout=60) == [read_image(image).sum().item()] * 2
    process.join(60)
    error = capfd.readouterr().err
    assert error.count("cannot be written any more (File too large); going on without") == 1
    assert [path for path in (tmp_path / "cache").glob("**/*") if path.is_file()] == []


def test_the_space_needed_is_reported_and_compared_with_the_disk(tmp_path):
    cache = FrameCache(tmp_path, 192, 640)
    assert "cache: 44000 frames at 0.37 MB take 16.2 GB in " in cache.describe(44000)
    assert "not enough, the rest will be read from its files" in cache.describe(10**10)
    assert "not enough" not in cache.describe(1)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"--cache_dir .*file.* cannot be made"):
        FrameCache(tmp_path / "file", H, W)


def test_a_dataset_gives_the_same_items_with_and_without_a_cache(drive, tmp_path):
    lines = ["2011_01_01/2011_01_01_drive_0001_sync 10 l"]
    for is_train in (True, False):  # fast and exact resizing have separate stores
        plain, caching = (KITTIRAWDataset(drive, lines, H, W, [0, -1, 1, "s"], 1, is_train)
                          for _ in range(2))
        caching.use_cache(FrameCache(tmp_path, H, W, exact=not is_train))
        for _ in range(2):
            item = caching.load(0)
            assert item.keys() == plain.load(0).keys()
            assert all(torch.equal(value, item[key]) for key, value in plain.load(0).items())
        assert len(list(caching.cache.folder.glob("*/*.rgb"))) == 4


def test_a_missing_image_is_named_with_a_cache_too(drive, tmp_path):
    lines = ["2011_01_01/2011_01_01_drive_0001_sync 9999 l"]
    dataset = KITTIRAWDataset(drive, lines, H, W, [0], 1)
    dataset.use_cache(FrameCache(tmp_path, H, W))
    with pytest.raises(DataError, match=r"0000009999\.jpg is missing"):
        dataset.load(0)


def test_a_dataset_with_its_own_get_color_cannot_be_cached(tmp_path):
    class Mine(KITTIRAWDataset):
        def get_color(self, folder, frame_index, side, do_flip):
            return Image.new("RGB", (W, H))

    with pytest.raises(UsageError, match="Mine has a get_color of its own; leave --cache_dir out"):
        Mine(tmp_path, ["drive 0 l"], H, W, [0], 1).use_cache(FrameCache(tmp_path, H, W))

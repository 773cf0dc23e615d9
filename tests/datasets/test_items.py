"""dataset[i], the item of Monodepth2, and subclasses in the style of code written for it."""
import subprocess
import sys

import numpy as np
import pytest
import torch
import torchvision
from conftest import HEIGHT, ROOT, SHARED, WIDTH, needs_shared, train_flags
from PIL import Image
from torch.testing import assert_close
from torch.utils.data import DataLoader

from datasets import DATASETS, Augment, KITTIRAWDataset, MonoDataset, collate
from datasets.images import to_tensor
from options import MonodepthOptions
from runtime.errors import DataError
from synthetic.render import TRAIN
from training.build import make_dataset

FRAMES = [0, -1, 1, "s"]
SUBCLASS = '''
import numpy as np
from PIL import Image

import train
from datasets import DATASETS, MonoDataset
from kitti_utils import generate_depth_map
from runtime.errors import run


class MyDataset(MonoDataset):
    def __init__(self, *args, **kwargs):
        super(MyDataset, self).__init__(*args, **kwargs)
        self.K = np.array([[0.6, 0, 0.4, 0], [0, 1.8, 0.5, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        self.full_res_shape = (96, 64)
        self.side_map = {"2": 2, "3": 3, "l": 2, "r": 3}

    def check_depth(self):
        return False

    def get_image_path(self, folder, frame_index, side):
        return f"{self.data_path}/{folder}/image_0{self.side_map[side]}/data/{frame_index:010d}.jpg"

    def get_color(self, folder, frame_index, side, do_flip):
        color = self.loader(self.get_image_path(folder, frame_index, side))
        return color.transpose(Image.FLIP_LEFT_RIGHT) if do_flip else color
'''
PREPROCESS = '''
    def preprocess(self, inputs, color_aug):
        super(MyDataset, self).preprocess(inputs, color_aug)
        for key in list(inputs):
            if "color_aug" in key:
                inputs[key] = 1 - inputs[key]
'''
PREPROCESS_BY_KEYS = '''
    def preprocess(self, inputs, color_aug):
        for key in list(inputs):
            if "color" in key:
                name, f, _ = key
                for s in range(self.num_scales):
                    inputs[name, f, s] = self.resize[s](inputs[name, f, s - 1])
        for key in list(inputs):
            if "color" in key:
                name, f, s = key
                image = inputs[key]
                inputs[name, f, s] = self.to_tensor(image)
                inputs[name + "_aug", f, s] = self.to_tensor(color_aug(image))
'''
GETITEM = '''
    def __getitem__(self, index):
        folder, frame, side = self.filenames[index].split()
        inputs = {("color", f, -1): self.get_color(folder, int(frame) + f, side, False)
                  for f in self.frame_idxs}
        ranges = self.brightness, self.contrast, self.saturation, self.hue
        self.preprocess(inputs, lambda image: image)
        for f in self.frame_idxs:
            del inputs["color", f, -1], inputs["color_aug", f, -1]
        return inputs
'''
REGISTER = '''

DATASETS["mine"] = MyDataset
'''


def kitti(drive, is_train, lines=("10 l", "20 r"), frames=FRAMES, kind=KITTIRAWDataset):
    return kind(drive, [f"{TRAIN} {line}" for line in lines], HEIGHT, WIDTH, frames, 4, is_train)


def old_style(code):
    """Return the subclass with more code in the style of Monodepth2."""
    names = {}
    exec(SUBCLASS + code, names)
    return names["MyDataset"]


def changes(dataset, draws=60):
    """Return items of sample 0 that were flipped and not jittered, and jittered and not flipped."""
    plain = kitti(dataset.data_path, False)[0]
    flipped = jittered = None
    for _ in range(draws):
        item = dataset[0]
        is_flipped = item["stereo_T"][0, 3] > 0
        is_jittered = not torch.equal(item["color", 0, 0], item["color_aug", 0, 0])
        flipped = item if is_flipped and not is_jittered else flipped
        jittered = item if is_jittered and not is_flipped else jittered
    return plain, flipped, jittered


@needs_shared
@pytest.mark.parametrize("reader", ["item", "trainer"])
@pytest.mark.parametrize("index", [0, 1])
def test_items_and_the_trainers_inputs_are_the_published_ones(index, reader):
    # Faithful 4, 5, 6
    drive = "2011_09_26/2011_09_26_drive_0001_sync"
    dataset = KITTIRAWDataset(SHARED / "real/kitti_raw", [f"{drive} 2 l", f"{drive} 3 r"], 192, 640,
                              FRAMES, 4, img_ext=".png")
    found = dataset[index]
    if reader == "trainer":
        inputs = Augment("cpu", [0], num_scales=4).eval()(collate([dataset.load(index)]))
        found = {key: value[0] for key, value in inputs.items() if key[0] != "color_aug"}
    found = {f"{index}/" + ("/".join(map(str, key)) if isinstance(key, tuple) else key):
             value.numpy() for key, value in found.items()}
    published = {key: value for key, value in np.load(SHARED / "parity" / "items.npz").items()
                 if key.startswith(f"{index}/")}
    assert reader == "item" or found.keys() == published.keys()
    for key, expected in published.items():
        if "/color/" in key:
            difference = np.abs((255 * found[key]).round().astype(int) - expected)
            assert difference.max() <= 1
            assert (difference > 0).mean() < 0.02
        elif key.endswith("depth_gt"):
            assert (found[key] != expected).sum() <= 2
        else:
            np.testing.assert_allclose(found[key], expected, rtol=1e-6)


def test_an_item_has_floats_of_every_frame_and_scale(drive):
    for is_train in (False, True):
        item = kitti(drive, is_train)[0]
        assert {key for key in item if key[0] in ("color", "color_aug")} == {
            (name, f, s) for name in ("color", "color_aug") for f in FRAMES for s in range(4)}
        for (_, _, s), image in ((k, v) for k, v in item.items() if k[0].startswith("color")):
            assert image.shape == (3, HEIGHT >> s, WIDTH >> s)
            assert image.dtype == torch.float32
            assert 0 <= image.min() < image.max() <= 1
        assert {key for key in item if key[0] in ("K", "inv_K")} == {
            (name, s) for name in ("K", "inv_K") for s in range(4)}
        assert item["stereo_T"].shape == (4, 4)
        assert item["depth_gt"].shape == (1, 375, 1242)
        assert item["depth_gt"].dtype == torch.float32


def test_an_item_without_training_is_not_jittered(drive):
    item = kitti(drive, False)[1]
    for f in FRAMES:
        for s in range(4):
            assert torch.equal(item["color", f, s], item["color_aug", f, s])


def test_a_flipped_item_is_the_mirror_image(drive):
    # Faithful 3, 6
    class Shifted(KITTIRAWDataset):
        K = np.array([[0.6, 0, 0.4, 0], [0, 1.8, 0.5, 0], [0, 0, 1, 0], [0, 0, 0, 1]])

    plain, flipped, _ = changes(kitti(drive, True, kind=Shifted))
    for f in FRAMES:  # each scale is rounded after the one above
        for s in range(4):
            assert_close(flipped["color", f, s], plain["color", f, s].flip(2), atol=2.1 / 255,
                         rtol=0)
    assert torch.equal(flipped["depth_gt"], plain["depth_gt"].flip(2))
    assert flipped["stereo_T"][0, 3] == -plain["stereo_T"][0, 3]
    assert_close(flipped["K", 1][0, 2], torch.tensor(0.6 * WIDTH / 2))
    assert_close(flipped["K", 1] @ flipped["inv_K", 1], torch.eye(4))


def test_one_jitter_changes_all_frames_and_scales_of_an_item(drive, monkeypatch):
    # Faithful 3: all frames show the same picture here
    monkeypatch.setattr(KITTIRAWDataset, "get_color", lambda *_: Image.open(
        drive / TRAIN / "image_02/data/0000000010.jpg"))
    _, _, jittered = changes(kitti(drive, True))
    for s in range(4):
        for f in FRAMES[1:]:
            assert torch.equal(jittered["color_aug", f, s], jittered["color_aug", 0, s])
        change = (jittered["color_aug", 0, s] - jittered["color", 0, s]).mean((1, 2))
        assert_close(change, (jittered["color_aug", 0, 0] - jittered["color", 0, 0]).mean((1, 2)),
                     atol=0.01, rtol=0)


def test_half_of_the_items_are_flipped_and_half_jittered(drive):
    # Faithful 3: 0.5 each, independently: 200 draws lie within 4 deviations of 100
    dataset = kitti(drive, True, frames=[0, "s"])
    dataset.load_depth, dataset.num_scales = False, 1
    items = [dataset[0] for _ in range(200)]
    flips = np.array([item["stereo_T"][0, 3] > 0 for item in items])
    jitters = np.array([not torch.equal(item["color", 0, 0], item["color_aug", 0, 0])
                        for item in items])
    for found in (flips, jitters, flips ^ jitters):
        assert 72 <= found.sum() <= 128


@pytest.mark.parametrize("workers", [0, 2])
def test_pytorchs_own_loader_stacks_items(drive, workers):
    loader = DataLoader(kitti(drive, True), batch_size=2, num_workers=workers, shuffle=True)
    (batch,) = loader
    assert batch["color_aug", "s", 3].shape == (2, 3, HEIGHT // 8, WIDTH // 8)
    assert batch["K", 0].shape == batch["stereo_T"].shape == (2, 4, 4)
    assert batch["depth_gt"].shape == (2, 1, 375, 1242)


def test_an_item_that_is_changed_leaves_the_next_one_alone(drive):
    dataset = kitti(drive, False)
    dataset[0]["K", 0][0, 0] = 7
    assert dataset[0]["K", 0][0, 0] == dataset.load(0)["K", 0][0, 0] == pytest.approx(0.58 * WIDTH)


def test_a_sample_is_the_full_scale_of_the_item(drive):
    item, sample = kitti(drive, False)[0], kitti(drive, False).load(0)
    for f in FRAMES:
        assert torch.equal((255 * item["color", f, 0]).round().byte(), sample["color", f, 0])
    assert torch.equal(item["depth_gt"], sample["depth_gt"])
    assert "depth_gt" not in kitti(drive, True).load(0)


def test_a_batch_of_items_passes_the_augmentation_unchanged(drive):
    batch = collate([kitti(drive, True)[0]])
    inputs = Augment("cpu", [0]).train()(batch)
    assert inputs.keys() == batch.keys()
    assert all(torch.equal(inputs[key], torch.as_tensor(value)) for key, value in batch.items())


def test_do_flip_mirrors_what_get_color_and_get_depth_return(drive):
    dataset = kitti(drive, False)
    plain, mirrored = (np.asarray(dataset.get_color(TRAIN, 10, "l", flip)) for flip in (0, 1))
    np.testing.assert_array_equal(mirrored, plain[:, ::-1])
    plain, mirrored = (dataset.get_depth(TRAIN, 10, "l", flip) for flip in (False, True))
    np.testing.assert_array_equal(mirrored, plain[:, ::-1])


def test_images_of_an_own_get_color_may_differ_in_size(drive):
    class Cropped(KITTIRAWDataset):
        def get_color(self, folder, frame_index, side, do_flip):
            color = super().get_color(folder, frame_index, side, do_flip)
            return color.crop((0, 0, 90 - frame_index, 60))

    dataset = kitti(drive, True, kind=Cropped)
    assert dataset[0]["color", 1, 0].shape == dataset.load(0)["color", 1, 0].shape == (
        3, HEIGHT, WIDTH)


def test_a_loader_of_a_subclass_reads_every_image(drive):
    class Dark(KITTIRAWDataset):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.loader = lambda path: Image.new("RGB", (96, 64), (9, 0, 0))

    dataset = kitti(drive, True, kind=Dark)
    assert dataset.load(0)["color", -1, 0][0].unique().tolist() == [9]
    assert dataset[0]["color", "s", 2][0].unique().mul(255).tolist() == pytest.approx([9])


@pytest.mark.parametrize("more", ["", PREPROCESS], ids=["get_color", "preprocess"])
def test_a_subclass_in_the_old_style_trains_from_the_command_line(drive, tmp_path, more):
    (tmp_path / "train_mine.py").write_text(
        SUBCLASS + more + REGISTER + '\nif __name__ == "__main__":\n    run(train.main)\n')
    done = subprocess.run(
        [sys.executable, tmp_path / "train_mine.py", *train_flags(drive, "--dataset", "mine",
         "--log_dir", tmp_path, "--num_workers", 1, "--use_stereo")],
        env={"PYTHONPATH": str(ROOT), "PATH": "", "OMP_NUM_THREADS": "1"}, text=True,
        capture_output=True)
    assert done.returncode == 0, done.stderr
    assert "trained 3 steps" in done.stdout
    assert (tmp_path / "mdp/models/weights_0/depth.pth").is_file()


def test_training_reads_the_items_of_a_class_that_makes_its_own(drive):
    sample = kitti(drive, True, kind=old_style(PREPROCESS)).read(0)
    change = sample["color_aug", 0, 0] + sample["color", 0, 0] - 1
    assert change.abs().mean() < 0.2
    assert kitti(drive, True, kind=old_style("")).read(0)["color", 0, 0].dtype == torch.uint8


@pytest.mark.parametrize("code", [PREPROCESS_BY_KEYS, GETITEM], ids=["preprocess", "getitem"])
def test_items_made_in_the_old_style_hold_no_full_size_images(drive, code):
    item = kitti(drive, True, frames=[0, 1], kind=old_style(code))[0]
    assert {key for key in item if "color" in key[0]} == {
        (name, f, s) for name in ("color", "color_aug") for f in (0, 1) for s in range(4)}
    assert all(isinstance(value, torch.Tensor) for value in item.values())


def test_a_constructor_with_the_originals_parameters_is_enough(drive, monkeypatch):
    class Explicit(KITTIRAWDataset):
        def __init__(self, data_path, filenames, height, width, frame_idxs, num_scales,
                     is_train=False, img_ext=".jpg"):
            super().__init__(data_path, filenames, height, width, frame_idxs, num_scales,
                             is_train, img_ext)

    monkeypatch.setitem(DATASETS, "mine", Explicit)
    opts = MonodepthOptions().parse([*map(str, train_flags(drive, "--dataset", "mine"))])
    assert make_dataset(opts, "train", FRAMES)[0]


@pytest.mark.parametrize("change", [
    lambda dataset: setattr(dataset, "brightness", (0, 0)),
    lambda dataset: setattr(dataset, "to_tensor", lambda image: 0 * to_tensor(image)),
    lambda dataset: dataset.resize.update({0: lambda image: Image.new("RGB", (96, 64))})],
    ids=["brightness", "to_tensor", "resize"])
def test_training_reads_the_settings_of_a_subclass(drive, change):
    class Black(KITTIRAWDataset):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            change(self)

    dataset = kitti(drive, True, frames=[0], kind=Black)
    assert min(dataset.read(0)["color_aug", 0, 0].max() for _ in range(20)) == 0


@pytest.mark.parametrize("mode", ["RGB", "L", "I;16", "F"])
def test_to_tensor_converts_as_torchvision_does(mode):
    values = np.random.default_rng(0).integers(0, 255, (6, 8, 3))
    image = (Image.fromarray(values.astype(np.uint8)) if mode == "RGB" else
             Image.fromarray(values[..., 0].astype({"L": np.uint8, "I;16": np.uint16}.get(
                 mode, np.float32))))
    assert image.mode == mode
    for given in (image, np.array(image)):
        found, expected = to_tensor(given), torchvision.transforms.functional.to_tensor(given)
        assert_close(found.double(), expected.double(), rtol=0, atol=0)
        assert found.is_contiguous()


@pytest.mark.parametrize("read", [lambda dataset: dataset[0], lambda dataset: dataset.load(0)])
def test_a_mistake_in_get_color_is_not_taken_for_a_broken_image(drive, read):
    class Mistaken(KITTIRAWDataset):
        def get_color(self, *_):
            return self.lodaer

    with pytest.raises(AttributeError, match="lodaer"):
        read(kitti(drive, True, kind=Mistaken))


def test_images_that_are_not_files_are_named_by_their_line():
    class Archive(MonoDataset):
        K = np.eye(4)

        def get_color(self, folder, frame_index, side, do_flip):
            raise OSError("the archive ends early")

    with pytest.raises(DataError, match="drive 3 cannot be read as an image: the archive ends ear"):
        Archive("", ["drive 3"], 64, 96, [0], 1).load(0)

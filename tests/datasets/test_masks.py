"""datasets/masks.py, --mask_dir: pixels that the loss and the errors leave out."""
import shutil

import numpy as np
import pytest
import torch
from conftest import HEIGHT, WIDTH, one_line, train_flags
from PIL import Image
from torch.testing import assert_close

from datasets import Augment, KITTIRAWDataset, Masks, collate
from preparation.check import SampleReading, describe_masks
from runtime.errors import DataError
from synthetic.render import HELD_OUT, TRAIN

IMAGES = f"{TRAIN}/image_02/data"


def write_mask(path, left=0, size=(HEIGHT, WIDTH)):
    """Write a mask that leaves out the columns up to `left`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.full(size, 255, np.uint8)
    mask[:, :left] = 0
    Image.fromarray(mask).save(path)


def with_masks(drive, folder, height=HEIGHT, width=WIDTH, **kwargs):
    dataset = KITTIRAWDataset(str(drive), [f"{TRAIN} 10 l", f"{TRAIN} 11 l"], height, width,
                              [0, 1], 1, **kwargs)
    dataset.masks = Masks(folder, dataset)
    return dataset


def test_a_frame_has_its_own_mask_or_that_of_a_folder_above(drive, tmp_path):
    write_mask(tmp_path / TRAIN / "mask.png", 40)
    write_mask(tmp_path / "mask.png", 20)
    write_mask(tmp_path / IMAGES / "0000000011.png", 30)
    masks = with_masks(drive, tmp_path).masks
    for path, left in ((f"{IMAGES}/0000000010.jpg", 40), (f"{IMAGES}/0000000011.jpg", 30),
                       (f"{HELD_OUT}/image_02/data/0000000010.jpg", 20)):
        found = masks.read(drive / path, (HEIGHT, WIDTH))
        assert found.sum(1).tolist() == [WIDTH - left] * HEIGHT, path


def test_an_image_without_a_mask_counts_as_a_whole(drive, tmp_path):
    write_mask(tmp_path / IMAGES / "0000000011.png", 30)
    samples = [with_masks(drive, tmp_path).load(i) for i in range(2)]
    assert [sample["mask"].float().mean().item() for sample in samples] == [
        1, pytest.approx(1 - 30 / WIDTH)]


def test_a_resized_pixel_counts_if_all_that_it_covers_counts(drive, tmp_path):
    write_mask(tmp_path / "mask.png", 31)
    mask = with_masks(drive, tmp_path, HEIGHT // 2, WIDTH // 2).load(0)["mask"]
    assert mask.shape == (1, HEIGHT // 2, WIDTH // 2)
    assert mask.sum(2).tolist() == [[WIDTH // 2 - 16] * (HEIGHT // 2)]


def test_a_mask_is_flipped_with_its_image(drive, tmp_path):
    write_mask(tmp_path / "mask.png", 30)
    dataset = with_masks(drive, tmp_path, is_train=True)
    batch = collate([dataset.load(0)] * 8)
    inputs = Augment("cpu", [0]).train()(batch)
    plain = batch["color", 0, 0].float() / 255
    flipped = [not torch.equal(a, b) for a, b in zip(inputs["color", 0, 0], plain, strict=True)]
    assert 0 < sum(flipped) < 8
    for mask, is_flipped in zip(inputs["mask"], flipped, strict=True):
        assert torch.equal(mask.flip(2) if is_flipped else mask, batch["mask"][0])
    items = [dataset[0]["mask"] for _ in range(8)]
    assert {item[0, 0, 0].item() for item in items} == {False, True}


@pytest.mark.parametrize(("make", "found"), [
    (lambda path: write_mask(path, 1, (9, 12)), "has 12x9 pixels, its image 96x64"),
    (lambda path: Image.new("RGB", (WIDTH, HEIGHT)).save(path), "has 3 channels; expected one"),
    (lambda path: path.write_bytes(b"no image"), "cannot be read as a PNG")])
def test_a_wrong_mask_is_named(drive, tmp_path, make, found):
    make(tmp_path / "mask.png")
    with pytest.raises(DataError, match=rf"mask .*mask\.png {found}"):
        with_masks(drive, tmp_path).load(0)


def test_lines_without_sides_are_the_error_not_their_masks(drive, tmp_path):
    write_mask(tmp_path / "mask.png")
    dataset = KITTIRAWDataset(str(drive), [f"{TRAIN} 10"], HEIGHT, WIDTH, [0], 1)
    dataset.masks = Masks(tmp_path, dataset)
    with pytest.raises(DataError, match="the side is missing"):
        dataset.load(0)


@pytest.mark.parametrize(("folder", "found"), [
    ("missing", "is no folder; expected one with the layout of"),
    ("empty", "has no mask for any image of the list; expected"),
    ("images", "is the folder of the images; put the masks into one of their own")])
def test_a_folder_without_masks_is_refused(drive, tmp_path, script, folder, found):
    (tmp_path / "empty").mkdir()
    flags = train_flags(drive, "--mask_dir",
                        drive if folder == "images" else tmp_path / folder, "--model_name", folder)
    assert found in one_line(script("train", *flags), 1 if folder != "images" else 2)


def test_training_evaluation_and_check_leave_out_masked_pixels(drive, weights, tmp_path, script):
    masks, tiny = tmp_path / "masks", tmp_path / "tiny"
    shutil.copytree(drive / "splits/tiny", tiny)
    write_mask(masks / "mask.png", WIDTH // 4)
    outcome = script("train", *train_flags(drive, "--mask_dir", masks, "--use_stereo",
                                           "--model_name", "masked", "--seed", 0))
    assert outcome.status == 0, outcome.err
    words = ["--data_path", drive, "--eval_split", tiny, "--load_weights_folder", weights,
             "--num_workers", 0, "--no_cuda", "--eval_mono", "--eval_out_dir", tmp_path]
    counts = []
    for more in ([], ["--mask_dir", masks]):
        outcome = script("evaluate_depth", *words, *more)
        assert outcome.status == 0, outcome.err
        table = np.genfromtxt(tmp_path / "results_tiny_median.csv", delimiter=",", names=True,
                              dtype=None, encoding="utf-8")
        counts.append(table["pixels"].sum())
    truth = np.load(tiny / "gt_depths.npz")
    crop = slice(int(0.40810811 * HEIGHT), int(0.99189189 * HEIGHT))
    columns = int(0.03594771 * WIDTH), WIDTH // 4
    hidden = sum((truth[name][crop, slice(*columns)] > 0).sum()
                 for name in truth.files if name.startswith("depth"))
    assert counts[0] - counts[1] == hidden > 0
    outcome = script("prepare_data", "check", "--data_path", drive, "--split", tiny, "--height",
                     HEIGHT, "--width", WIDTH, "--mask_dir", masks, "--num_workers", 0, "--out",
                     tmp_path / "check.png")
    assert "masks: 6 of 6 samples have masked pixels; 25% of all pixels are left out" in outcome.out


@pytest.mark.parametrize(("shares", "is_warned"), [([0.1, 0.2], False), ([0.9, 0.8], True)])
def test_a_check_tells_that_masks_may_be_inverted(shares, is_warned):
    line, = describe_masks([SampleReading(i, masked=share) for i, share in enumerate(shares)])
    assert ("0 must mark what is left out, not what counts" in line) == is_warned


def test_no_mask_and_a_mask_of_ones_train_alike(drive, tmp_path):
    # the weights after an epoch, to rounding: sums over pixels that count, or over all of them
    from options import MonodepthOptions
    from trainer import Trainer
    write_mask(tmp_path / "mask.png")
    ended = []
    for more in ([], ["--mask_dir", str(tmp_path)]):
        trainer = Trainer(MonodepthOptions().parse(train_flags(
            drive, "--seed", 1, "--overwrite", "--model_name", "ones", *more)))
        trainer.train()
        ended.append(trainer.model.encoder.state_dict())
    for name, value in ended[0].items():
        assert_close(ended[1][name], value, atol=1e-4, rtol=1e-3, msg=name)

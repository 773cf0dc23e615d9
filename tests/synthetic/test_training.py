"""synthetic/training.py: streets are rendered and learned by command lines."""
import json

import torch

from synthetic.training import MIN_DEPTH, Training, choose_precision


def test_a_street_is_learned_from_stereo_pairs_then_from_frames_in_time(tmp_path):
    training = Training(frames=16, height=64, width=96, stereo_epochs=1, video_epochs=1)
    drive, weights = training.run(tmp_path, "--overwrite")
    assert len(list(drive.glob("*/*/image_02/data/*.jpg"))) == 16
    assert not (tmp_path / "stereo/models/weights_0/pose.pth").exists()
    assert (weights / "pose.pth").exists()
    camera = json.loads((weights / "camera.json").read_text())
    assert (camera["training"], camera["min_depth"]) == ("mono+stereo", MIN_DEPTH)
    opt = json.loads((weights.parent / "opt.json").read_text())
    assert opt["load_weights_folder"].endswith("stereo/models/weights_0")


def test_only_a_cpu_that_multiplies_in_bf16_trains_in_it(tmp_path):
    fast, slow = tmp_path / "fast", tmp_path / "slow"
    fast.write_text("flags\t\t: fpu avx512f avx512_bf16 clzero\n")
    slow.write_text("flags\t\t: fpu avx2 avx512f\n")
    expected = "fp32" if torch.cuda.is_available() else "bf16"
    assert [choose_precision(path) for path in (fast, slow, tmp_path / "missing")] == [
        expected, "fp32", "fp32"]

"""synthetic/training.py: streets are rendered and learned by command lines."""
import json

from synthetic.training import MIN_DEPTH, Training


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

"""python -m prediction.hub: weights as others get them; a server of this machine is the Hub."""
import json
import os
import shutil
import subprocess
import sys

import huggingface_hub
import numpy as np
import pytest
import torch
from conftest import HEIGHT, ROOT, WIDTH, Outcome, one_line, read_results, train_flags
from https_server import serve
from hub_server import COMMIT, HubServer

from checkpoints.architecture import TRUSTED_FILE, load_model, pose_frames
from checkpoints.frames_seen import FramesSeen, read_frames_seen
from checkpoints.state_file import read_state, weights_file
from checkpoints.weights import InputFormat, save_weights
from evaluate_depth import evaluate
from networks import Monodepth2
from options import DEPTH, MonodepthOptions
from prediction.predictor import Predictor
from prediction.shared_folder import make_shared_folder
from runtime.errors import DataError
from runtime.hub import find_weights
from trainer import Trainer

NETWORKS = ("encoder", "depth", "pose_encoder", "pose")
IMAGE = np.random.RandomState(0).randint(0, 256, (70, 90, 3), np.uint8)
SHARED_NAMES = {*(f"{name}.safetensors" for name in NETWORKS), "config.json", "camera.json",
                "frames_seen.json", "README.md"}


OWN_ENCODER = """
from torch import nn

class Small(nn.Module):
    num_ch_enc = [8, 8, 16, 16, 32]

    def __init__(self, pretrained, num_input_images=1):
        super().__init__()
        widths = [3 * num_input_images, *self.num_ch_enc]
        self.stages = nn.ModuleList(nn.Conv2d(*pair, 3, 2, 1) for pair in zip(widths, widths[1:]))

    def forward(self, x):
        return [x := stage(x) for stage in self.stages]
"""


def evaluate_on(drive, weights, *more):
    evaluate(MonodepthOptions(DEPTH).parse([str(word) for word in (
        "--data_path", drive, "--eval_split", drive / "splits/tiny", "--eval_mono", "--no_cuda",
        "--num_workers", 0, "--load_weights_folder", weights, *more)]))


@pytest.fixture(scope="module")
def evaluated(weights, drive, tmp_path_factory):
    """Copy a run of three steps, and evaluate its weights."""
    run = tmp_path_factory.mktemp("run")
    shutil.copytree(weights, run / "weights_0", ignore=shutil.ignore_patterns("results_*"))
    shutil.copy(weights.parent / "opt.json", run)
    evaluate_on(drive, run / "weights_0")
    return run / "weights_0"


@pytest.fixture(scope="module")
def shared(evaluated, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared") / "model"
    make_shared_folder(evaluated, "user/name", folder)
    return folder


def copy_of(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def test_shared_weights_are_equal_bit_for_bit(evaluated, shared):
    assert {path.name for path in shared.iterdir()} == SHARED_NAMES
    for name in NETWORKS:
        before, after = (read_state(weights_file(folder, name)) for folder in (evaluated, shared))
        assert before.keys() == after.keys()
        for key, value in before.items():
            assert type(after[key]) is type(value)
            if isinstance(value, torch.Tensor):
                assert (after[key].dtype, after[key].shape) == (value.dtype, value.shape)
                assert after[key].numpy().tobytes() == value.contiguous().numpy().tobytes()
            else:
                assert after[key] == value


def test_shared_weights_predict_the_same_bit_for_bit(evaluated, shared):
    before, after = (Predictor(folder).predict(IMAGE) for folder in (evaluated, shared))
    assert before.disp.equal(after.disp)
    assert before.depth.equal(after.depth)
    assert before.unit == after.unit == "metres"
    motions = [load_model(folder, with_pose=True)[0](
        {("color_aug", f, 0): torch.full((1, 3, HEIGHT, WIDTH), 0.1 * (f + 2)) for f in (0, 1)}
    )["cam_T_cam", 0, 1] for folder in (evaluated, shared)]
    assert motions[0].equal(motions[1])


def test_a_shared_folder_knows_its_camera_and_what_was_seen(evaluated, shared):
    assert (shared / "camera.json").read_bytes() == (evaluated / "camera.json").read_bytes()
    before, after = map(read_frames_seen, (evaluated, shared))
    assert after.instants == before.instants
    assert after.is_complete
    assert [entry["sha256"] for entry in after.lists] == [
        entry["sha256"] for entry in before.lists]
    flags = json.loads((evaluated.parent / "opt.json").read_text())
    own = json.loads((shared / "config.json").read_text())
    assert own["frame_ids"] == [0, -1, 1]
    assert all(own[name] == flags[name] for name in own.keys() - {"model_type"})


def test_a_shared_folder_has_no_path_of_the_machine(shared):
    for name in SHARED_NAMES:
        content = (shared / name).read_bytes()[:100_000]
        assert str(shared.parents[2]).encode() not in content
        assert b"/home" not in content


def test_training_goes_on_from_a_shared_folder(drive, shared, tmp_path, capsys):
    trainer = Trainer(MonodepthOptions().parse(train_flags(
        drive, "--load_weights_folder", shared, "--log_dir", tmp_path, "--model_name", "tuned")))
    assert "skipped Adam's state" in capsys.readouterr().out
    for name in NETWORKS:
        own = getattr(trainer.model, name).state_dict()
        loaded = read_state(shared / f"{name}.safetensors")
        assert all(own[key].equal(loaded[key]) for key in own)
    assert len(trainer.frames_seen.lists) == 2
    assert trainer.frames_seen.is_complete


def test_the_flags_of_a_shared_folder_name_its_pose_frames(shared, tmp_path):
    folder = copy_of(shared, tmp_path)
    flags = json.loads((folder / "config.json").read_text())
    (tmp_path / "opt.json").write_text(json.dumps(
        {"pose_model_input": "all", "frame_ids": [0, 5, 6, 7]}))  # of another run
    (folder / "config.json").write_text(json.dumps(
        flags | {"pose_model_input": "all", "frame_ids": [0, -2, -1, 1]}))
    assert pose_frames(folder, 4) == [0, -2, -1, 1]


def test_weights_without_a_record_say_that_it_is_unknown(evaluated, tmp_path):
    folder = copy_of(evaluated, tmp_path)
    for name in ("frames_seen.json", "camera.json"):
        (folder / name).unlink()
    for results in folder.glob("results_*"):
        results.unlink()
    make_shared_folder(folder, "user/name", tmp_path / "shared")
    assert read_frames_seen(tmp_path / "shared") == FramesSeen(set(), [], is_complete=False)
    assert not (tmp_path / "shared/camera.json").exists()
    card = (tmp_path / "shared/README.md").read_text()
    for words in ("Unknown: these weights were shared without an evaluation.",
                  "## Training data\n\nUnknown.", "All images that training has seen",
                  "without `camera.json`, that of KITTI is assumed"):
        assert words in card


def test_the_name_of_an_own_encoder_travels_without_its_path(tmp_path, monkeypatch):
    own = tmp_path / "mine.py"
    own.write_text(OWN_ENCODER)
    model = Monodepth2(frame_ids=[0], encoder=f"{own}:Small", image_size=(HEIGHT, WIDTH))
    save_weights(tmp_path / "weights_0", model, torch.optim.Adam(model.parameters()),
                 InputFormat(HEIGHT, WIDTH, False))
    monkeypatch.setenv(TRUSTED_FILE, str(own))
    make_shared_folder(tmp_path / "weights_0", "user/name", tmp_path / "shared")
    state = read_state(tmp_path / "shared/encoder.safetensors")
    assert state["encoder_name"] == "mine.py:Small"
    assert (state["height"], state["width"], state["use_stereo"]) == (HEIGHT, WIDTH, False)
    before, after = (Predictor(tmp_path / name).predict(IMAGE).disp
                     for name in ("weights_0", "shared"))
    assert before.equal(after)
    monkeypatch.delenv(TRUSTED_FILE)
    with pytest.raises(DataError, match=r"encoder\.safetensors was trained with the encoder mine"):
        Predictor(tmp_path / "shared")


def test_safetensors_are_preferred_to_a_pth_file(shared, tmp_path):
    folder = copy_of(shared, tmp_path)
    for name in ("encoder", "depth"):
        (folder / f"{name}.pth").write_bytes(b"broken")
    assert Predictor(folder).predict(IMAGE).disp.equal(Predictor(shared).predict(IMAGE).disp)


def test_a_pushed_folder_can_be_pushed_again_with_its_card(shared, tmp_path):
    folder = copy_of(shared, tmp_path)
    (folder / "README.md").write_text("edited")
    (folder / "LICENSE").write_text("mine")
    make_shared_folder(folder, "user/name", tmp_path / "again")
    assert {path.name for path in (tmp_path / "again").iterdir()} == {*SHARED_NAMES, "LICENSE"}
    for path in folder.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


def test_the_model_card_has_the_figures_of_the_evaluation(evaluated, shared):
    results, card = read_results(evaluated), (shared / "README.md").read_text()
    for name in ("abs_rel", "rmse", "a1"):
        mean, low, high = (results["metrics"][name][part] for part in ("mean", "low", "high"))
        assert f"| {name} | {mean:.4f} | {low:.4f} to {high:.4f} |" in card
    for words in ("### tiny, alignment median", "4 images", "0 of 4 test images were seen in",
                  results["lists"]["test"]["sha256"], results["lists"]["training"][0]["sha256"],
                  "median (each prediction is scaled to the median of its ground truth)",
                  "sq_rel and rmse are in metres",
                  "| depth | metres: 5.4 x the network's depth", "resnet18", f"{WIDTH}x{HEIGHT}",
                  "trained with | video and stereo pairs"):
        assert words in card
    fields = huggingface_hub.ModelCard.load(shared / "README.md").data
    assert fields.library_name == "monodepth2"
    assert fields.pipeline_tag == "depth-estimation"
    assert fields.license == "other"
    assert card.count("FILL IN") == 3


def test_the_model_card_says_how_predictions_were_changed(evaluated, tmp_path):
    folder = copy_of(evaluated, tmp_path)
    path = folder / "results_tiny_median.json"
    fields = json.loads(path.read_text())
    fields["flags"]["post_process"], fields["scale_factor"] = True, 5.4
    fields["metrics"]["a1"]["low"] = fields["metrics"]["a1"]["high"] = None  # of a single drive
    path.write_text(json.dumps(fields))
    make_shared_folder(folder, "user/name", tmp_path / "shared")
    card = (tmp_path / "shared/README.md").read_text()
    assert "averaged with that of the mirrored image (--post_process)" in card
    assert "ground truth; before, all are multiplied by 5.4)" in card
    assert f"| a1 | {fields['metrics']['a1']['mean']:.4f} | unknown |" in card


def test_the_three_lines_of_the_model_card_load_the_weights(shared):
    lines = (shared / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    lines = lines.replace("path/to/monodepth2", str(ROOT)).replace("hf:user/name", str(shared))
    names = {"image": IMAGE}
    exec(lines, names)
    assert len(lines.splitlines()) == 3
    assert names["depth"].equal(Predictor(shared).predict(IMAGE).depth)


@pytest.mark.parametrize("change", ["weights", "broken", "other fields"])
def test_results_of_other_weights_are_not_shared(evaluated, tmp_path, change):
    folder = copy_of(evaluated, tmp_path)
    results = folder / "results_tiny_median.json"
    if change == "weights":
        state = torch.load(folder / "depth.pth", weights_only=True)
        torch.save(state | {"decoder.0.conv.conv.bias": torch.zeros(256)}, folder / "depth.pth")
    else:
        fields = json.loads(results.read_text())
        del fields["metrics"]["a1"]["low"]
        results.write_text(json.dumps(fields) if change == "other fields" else "{")
    words = "depth.pth differs" if change == "weights" else "is not a results file"
    with pytest.raises(DataError, match=rf"results_tiny_median\.json is .*{words}|{words}"):
        make_shared_folder(folder, "user/name", tmp_path / "shared")
    assert not (tmp_path / "shared").exists()


def test_an_evaluation_of_a_shared_folder_names_its_files(drive, shared, tmp_path, capsys):
    evaluate_on(drive, shared, "--eval_out_dir", tmp_path)
    assert "0 of 4 test images were seen in training" in capsys.readouterr().out
    assert read_results(tmp_path)["weights"]["sha256"].keys() == {
        "encoder.safetensors", "depth.safetensors", "camera.json"}


@pytest.mark.parametrize(("package", "call"), [
    ("safetensors", lambda folder: Predictor(folder)),
    ("huggingface_hub", lambda folder: find_weights("hf:user/name"))])
def test_a_missing_package_is_one_line(shared, monkeypatch, package, call):
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)  # an import then fails
    with pytest.raises(DataError, match=rf"{package}.* pip install -r requirements-hub\.txt"):
        call(shared)


# what is below asks the server, in processes of their own: HF_ENDPOINT is read once

@pytest.fixture
def hub(tmp_path, shared, monkeypatch):
    """Serve the shared folder as user/name, to this test's processes alone."""
    own = HubServer()
    own.models["user/name"] = {path.name: path.read_bytes() for path in shared.iterdir()}
    for name, value in (("HF_HOME", tmp_path / "hf"), ("HF_HUB_DISABLE_PROGRESS_BARS", 1),
                        ("HF_HUB_DISABLE_TELEMETRY", 1), ("HF_HUB_DISABLE_XET", 1)):
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    for url in serve(own):
        own.url = url
        monkeypatch.setenv("HF_ENDPOINT", url)
        yield own


def run_hub(*words, **environment):
    done = subprocess.run(
        [sys.executable, "-m", "prediction.hub", *map(str, words)], cwd=ROOT, text=True,
        capture_output=True, env=os.environ | environment)
    return Outcome(done.returncode, done.stdout, done.stderr)


def test_a_model_is_pulled_as_it_was_pushed(hub, shared, tmp_path):
    hub.models["user/name"]["large.bin"] = b"of no use"
    done = run_hub("pull", "user/name", "--out", tmp_path / "pulled")
    assert (done.status, done.err) == (0, "")
    assert {path.name for path in (tmp_path / "pulled").iterdir()} == SHARED_NAMES
    for path in shared.iterdir():
        assert (tmp_path / "pulled" / path.name).read_bytes() == path.read_bytes()
    assert not (tmp_path / "pulled/encoder.safetensors").is_symlink()
    assert not any("large.bin" in request for request in hub.asked)
    refused = run_hub("pull", "user/name", "--out", tmp_path / "pulled")
    assert "pulled exists; remove it or choose another folder" in one_line(refused, 1)


USE = """
import sys
import numpy as np
import torch
from options import DEPTH, MonodepthOptions
repo, image = sys.argv[1:]
model = torch.hub.load(repo, "monodepth2", source="local", weights="hf:user/name")
from prediction.predictor import Predictor
again = Predictor("hf:user/name@main")
flags = ["--load_weights_folder", "hf:user/name", "--eval_mono"]
print(MonodepthOptions(DEPTH).parse(flags).load_weights_folder, again.folder, sep="\\n")
disps = [each.predict(np.load(image)).disp for each in (model, again)]
assert disps[0].equal(disps[1])
np.save("disp.npy", disps[0].numpy())
"""


def test_a_name_loads_everywhere_and_later_without_a_network(hub, shared, tmp_path):
    np.save(tmp_path / "image.npy", IMAGE)
    words = [sys.executable, "-c", USE, ROOT, tmp_path / "image.npy"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    folders = done.stdout.splitlines()
    assert folders[0] == folders[1]
    assert folders[0].endswith(COMMIT)
    disp = Predictor(shared).predict(IMAGE).disp.numpy()
    np.testing.assert_array_equal(np.load(tmp_path / "disp.npy"), disp)
    later = run_hub("pull", "user/name", "--out", tmp_path / "later",
                    HF_ENDPOINT="http://127.0.0.1:9")  # nobody listens there
    assert later.status == 0, later.err
    assert Predictor(tmp_path / "later").folder == tmp_path / "later"


@pytest.mark.parametrize(("name", "status", "words"), [
    ("user/other", 1, "there is no such model, or it is private; check the name, or type: hf auth"),
    ("user/closed", 1, "its owner must admit you first"),
    ("user/name@v2", 1, "it has no such revision; leave out what follows @"),
    ("user/text", 1, "has no encoder.safetensors, so it is no model of this project"),
    ("user", 2, "'user' is no name of a model on the Hugging Face Hub; expected user/name"),
    ("../../etc/passwd", 2, "is no name of a model"),
    ("user/name@", 2, "'' is no revision; give a branch, a tag or a commit, as in hf:user/name@m")])
def test_a_model_that_is_not_there_is_one_line(hub, tmp_path, name, status, words):
    hub.gated.add("user/closed")
    hub.models["user/text"] = {"model.bin": b"of another project", "config.json": b"{}"}
    error = one_line(run_hub("pull", name, "--out", tmp_path / "pulled"), status)
    assert words in error
    assert not (tmp_path / "pulled").exists()


def test_no_network_is_one_line(hub, tmp_path):
    done = run_hub("pull", "user/name", "--out", tmp_path / "p", HF_ENDPOINT="http://127.0.0.1:9")
    assert "hf:user/name cannot be downloaded: " in one_line(done, 1)
    assert "refused" in done.err
    done = run_hub("pull", "user/name", "--out", tmp_path / "p", HF_HUB_OFFLINE="1")
    assert "hf:user/name cannot be downloaded: " in one_line(done, 1)


def test_a_push_uploads_the_folder_and_warns_of_the_licence(hub, evaluated, shared):
    done = run_hub("push", evaluated, "--repo", "me/mine", "--private", HF_TOKEN=hub.token)
    assert done.status == 0, done.err
    assert f"uploaded to {hub.url}/me/mine" in done.out
    assert "warning: the licence in README.md is not filled in: look for FILL IN" in done.err
    assert hub.models["me/mine"].keys() == SHARED_NAMES
    for name in SHARED_NAMES - {"README.md"}:
        assert hub.models["me/mine"][name] == (shared / name).read_bytes()
    assert 'weights="hf:me/mine"' in hub.models["me/mine"]["README.md"].decode()


def test_a_push_without_a_token_is_one_line(hub, shared):
    error = one_line(run_hub("push", shared, "--repo", "me/mine"), 1)
    assert "hf:me/mine cannot be uploaded: " in error
    assert "type: hf auth login" in error


def test_a_push_with_out_asks_no_server(hub, evaluated, tmp_path, script):
    outcome = script("prediction.hub", "push", evaluated, "--repo", "me/mine", "--out",
                     tmp_path / "made")
    assert outcome.status == 0, outcome.err
    assert f"python -m prediction.hub push {tmp_path / 'made'} --repo me/mine" in outcome.out
    assert hub.asked == []
    assert "is no name of a model" in one_line(script(
        "prediction.hub", "push", evaluated, "--repo", "mine", "--out", tmp_path / "x"), 2)

"""evaluate_depth.py and export_gt_depth.py from the command line, on real and rendered frames."""
import hashlib
import inspect
import json
import re
import shutil

import cv2
import numpy as np
import pytest
import recipe
import torch
from conftest import (
    HEIGHT,
    ROOT,
    SHARED,
    WIDTH,
    figures,
    filled_weights,
    needs_shared,
    one_line,
    read_results,
)
from PIL import Image

import evaluate_depth
import export_gt_depth
from checkpoints.architecture import load_model
from checkpoints.training_camera import read_training_camera, write_training_camera
from checkpoints.weights import InputFormat, save_weights
from datasets import KITTIRAWDataset
from datasets.splits import eigen_to_benchmark_ids, read_split
from evaluate_depth import STEREO_SCALE_FACTOR, batch_post_process_disparity, compute_errors
from evaluation.depth_errors import measure_errors
from layers import disp_to_depth
from metrics import DEPTH_METRICS
from networks import Monodepth2


def table(out):
    """Return the seven numbers of a printed table."""
    assert re.search(r"abs_rel \| +sq_rel \| +rmse \| +rmse_log \| +a1 \| +a2 \| +a3 \|", out)
    (row,) = [line for line in out.splitlines() if line.startswith("&")]
    return [float(number) for number in row.strip("&\\ ").split("&")]


@pytest.mark.parametrize("name", ["evaluate_depth", "evaluate_pose"])
def test_an_out_folder_is_tried_before_predicting(drive, tmp_path, script, name):
    (tmp_path / "file").touch()
    (tmp_path / "list.txt").write_text("9 l: 0-6\n")
    flags = {"evaluate_depth": ["--eval_mono", "--eval_split", drive / "splits/tiny"],
             "evaluate_pose": ["--eval_split", tmp_path / "list.txt"]}[name]
    outcome = script(name, "--data_path", drive, "--load_weights_folder", tmp_path / "absent",
                     "--no_cuda", "--eval_out_dir", tmp_path / "file", *flags)
    assert "--eval_out_dir" in one_line(outcome, 1)
    assert "file is a file, not a folder; choose another folder" in outcome.err


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """Write the weights of the published figures and a split of the 12 real Eigen frames."""
    folder = tmp_path_factory.mktemp("filled")
    model = Monodepth2(frame_ids=[0])
    for tag, network in (("encoder18", model.encoder), ("depth18", model.depth)):
        network.load_state_dict(recipe.filled_state_dict(network.state_dict(), tag))
    save_weights(folder / "weights", model, torch.optim.Adam(model.parameters()),
                 InputFormat(192, 640, False))
    (folder / "eigen_12").mkdir()
    lines = figures("evaluate_real.json")["lines"]
    (folder / "eigen_12" / "test_files.txt").write_text("\n".join(lines) + "\n")
    return folder


@needs_shared
@pytest.mark.parametrize("flags", ["--eval_mono", "--eval_stereo", "--eval_mono --post_process"])
def test_real_eigen_frames_give_the_published_figures(filled, script, flags):
    # Faithful 6, 14
    expected = figures("evaluate_real.json")["evaluate_depth"][flags]
    outcome = script("evaluate_depth", "--data_path", SHARED / "real/kitti_raw", "--png",
                     "--eval_split", filled / "eigen_12", "--num_workers", 0, "--no_cuda",
                     "--load_weights_folder", filled / "weights", "--save_pred_disps",
                     *flags.split())
    assert outcome.status == 0, outcome.err
    assert table(outcome.out) == pytest.approx(expected["metrics"], abs=1e-3, rel=1e-3)
    ratios = re.search(r"Scaling ratios \| med: (\S+) \| std: (\S+)", outcome.out)
    if expected["ratio_med_std"] is None:
        assert ratios is None
    else:
        found = [float(number) for number in ratios.groups()]
        assert found == pytest.approx(expected["ratio_med_std"], abs=1e-3)
    disps = np.load(filled / "weights" / "disps_eigen_12_split.npy")
    assert list(disps.shape) == expected["disp_shape"]
    assert disps.mean() == pytest.approx(expected["disp_mean"], rel=1e-3)
    np.testing.assert_allclose(disps[:2, ::48, ::80].ravel(), expected["disp_samples"], rtol=1e-3)


def write_gt(folder, key, lines):
    """Write a split of four images with the ground truth of the published figures."""
    folder.mkdir()
    (folder / "test_files.txt").write_text(lines)
    inputs = figures("eval_depth_inputs.npz")
    np.savez(folder / "gt_depths.npz", **{f"depth_{i:06d}": inputs[f"gt_{i}"] for i in range(4)})
    np.save(folder / "disps.npy", inputs["disps"])
    return figures("eval_depth.json")[key]


@pytest.mark.parametrize(("key", "flags"), [
    ("eigen/mono", ["--eval_mono"]), ("eigen/stereo", ["--eval_stereo"]),
    ("eigen/mono_no_median",
     ["--eval_mono", "--disable_median_scaling", "--pred_depth_scale_factor", 1.4])])
def test_precomputed_disparities_give_the_published_table(tmp_path, script, key, flags):
    expected = write_gt(tmp_path / "four", key, "drive l: 0-3\n")
    outcome = script("evaluate_depth", "--eval_split", tmp_path / "four", "--ext_disp_to_eval",
                     tmp_path / "four" / "disps.npy", *flags)
    assert table(outcome.out) == pytest.approx(expected["metrics"], abs=5.1e-4)
    if expected["scaling_ratio"]:
        assert " Scaling ratios | med: {:.3f} | std: {:.3f}\n".format(
            *expected["scaling_ratio"]) in outcome.out


def test_export_writes_ground_truth_that_evaluation_reads(drive, weights, script):
    exported = drive / "splits" / "tiny"
    outcome = script("export_gt_depth", "--data_path", drive, "--split", exported)
    assert outcome.status == 0, outcome.err
    assert f"wrote {exported / 'gt_depths.npz'}" in outcome.out
    with np.load(exported / "gt_depths.npz", allow_pickle=False) as maps:
        assert len(maps.files) == 5
        assert len(maps["lines"]) == 4
        assert maps["depth_000000"].shape == (HEIGHT, WIDTH)
    outcome = evaluate(script, drive, weights, "--eval_mono")
    assert 0 < table(outcome.out)[0] < 2


def evaluate(script, drive, weights, *flags):
    return script("evaluate_depth", "--data_path", drive, "--eval_split", drive / "splits/tiny",
                  "--load_weights_folder", weights, "--num_workers", 0, "--no_cuda", *flags)


def test_missing_ground_truth_is_made(drive, weights, script):
    exported = drive / "splits" / "tiny"
    (exported / "gt_depths.npz").unlink(missing_ok=True)
    outcome = evaluate(script, drive, weights, "--eval_stereo")
    assert "gt_depths.npz does not exist yet; making it from" in outcome.out
    assert len(table(outcome.out)) == 7
    assert (exported / "gt_depths.npz").is_file()


def test_no_eval_only_saves_disparities(drive, weights, tmp_path, script):
    outcome = evaluate(script, drive, weights, "--eval_mono", "--no_eval", "--save_pred_disps",
                       "--eval_out_dir", tmp_path)
    assert outcome.status == 0
    assert "abs_rel" not in outcome.out
    assert np.load(tmp_path / "disps_tiny_split.npy").shape == (4, HEIGHT, WIDTH)


def test_saved_disparities_evaluate_as_the_network_does(drive, weights, tmp_path, script):
    direct = evaluate(script, drive, weights, "--eval_mono", "--save_pred_disps",
                      "--eval_out_dir", tmp_path)
    again = script("evaluate_depth", "--data_path", drive, "--eval_split",
                   drive / "splits" / "tiny", "--eval_mono",
                   "--ext_disp_to_eval", tmp_path / "disps_tiny_split.npy")
    assert table(again.out) == table(direct.out)


def test_the_benchmark_gets_500_pngs_of_metres_times_256(weights, tmp_path, script):
    (tmp_path / "image").mkdir()
    for i in range(500):
        color = (i % 256, 80, 255 - i % 256)
        Image.new("RGB", (121, 35), color).save(tmp_path / "image" / f"{i:010d}.png")
    outcome = script("evaluate_depth", "--data_path", tmp_path, "--dataset", "kitti_test",
                     "--eval_split", "benchmark", "--eval_stereo", "--load_weights_folder", weights,
                     "--save_pred_disps", "--eval_out_dir", tmp_path, "--num_workers", 0,
                     "--batch_size", 50, "--no_cuda")
    assert outcome.status == 0, outcome.err
    pngs = sorted((tmp_path / "benchmark_predictions").iterdir())
    assert [path.name for path in pngs] == [f"{i:010d}.png" for i in range(500)]
    disps = np.load(tmp_path / "disps_benchmark_split.npy")
    for i in (0, 499):
        png = cv2.imread(str(pngs[i]), cv2.IMREAD_UNCHANGED)
        assert png.shape == (352, 1216)
        assert png.dtype == np.uint16
        metres = (STEREO_SCALE_FACTOR / disps[i]).clip(0, 80)
        assert metres.min() - 0.01 <= png.min() / 256 <= png.max() / 256 <= metres.max() + 0.01


def test_precomputed_disparities_are_written_for_the_benchmark(tmp_path, script):
    disps = np.full((500, 2, 4), 0.5, np.float32)
    np.save(tmp_path / "disps.npy", disps)
    outcome = script("evaluate_depth", "--eval_split", "benchmark", "--eval_mono",
                     "--ext_disp_to_eval", tmp_path / "disps.npy", "--pred_depth_scale_factor", 2)
    assert "monocular depth has no known scale" in outcome.out
    png = cv2.imread(str(tmp_path / "benchmark_predictions/0000000499.png"), cv2.IMREAD_UNCHANGED)
    assert (png == int(2 * 5.4 / 0.5 * 256)).all()


def test_eigens_disparities_are_evaluated_on_eigen_benchmark(tmp_path, script):
    # the ground truth of image i of eigen is constant 5 + i / 100 m, and so is its prediction
    ids = eigen_to_benchmark_ids()
    np.save(tmp_path / "disps.npy", np.broadcast_to(
        (1 / (5 + np.arange(697) / 100)).astype(np.float32)[:, None, None], (697, 4, 8)))
    split = tmp_path / "eigen_benchmark"
    split.mkdir()
    shutil.copy(ROOT / "splits/eigen_benchmark/test_files.txt", split)
    np.savez(split / "gt_depths.npz", **{
        f"depth_{n:06d}": np.full((8, 16), 5 + i / 100, np.float32) for n, i in enumerate(ids)})
    outcome = script("evaluate_depth", "--eval_split", split, "--eval_mono",
                     "--eval_eigen_to_benchmark", "--ext_disp_to_eval", tmp_path / "disps.npy",
                     "--disable_median_scaling")
    assert table(outcome.out) == [0, 0, 0, 0, 1, 1, 1]


def test_post_processing_averages_with_the_mirrored_image(drive, weights, tmp_path, script):
    disps = {}
    for flags in ([], ["--post_process"]):
        evaluate(script, drive, weights, "--eval_mono", "--no_eval", "--save_pred_disps",
                 "--eval_out_dir", tmp_path, *flags)
        disps[len(flags)] = np.load(tmp_path / "disps_tiny_split.npy")
    model, _ = load_model(weights)
    frames = KITTIRAWDataset(drive, read_split(drive / "splits/tiny/test_files.txt"), HEIGHT, WIDTH,
                             [0], 1)
    images = torch.stack([frames[i]["color", 0, 0] for i in range(4)])
    with torch.no_grad():
        mirrored = disp_to_depth(model.disparity(images.flip(3)), 0.1, 100)[0][:, 0].flip(2).numpy()
    expected = batch_post_process_disparity(disps[0], mirrored)
    np.testing.assert_allclose(disps[1], expected, rtol=1e-4)


def test_another_depth_range_and_dataset_are_used(drive, weights, tmp_path, script):
    outcome = evaluate(script, drive, weights, "--eval_mono", "--no_eval", "--save_pred_disps",
                       "--eval_out_dir", tmp_path, "--min_depth", 1, "--max_depth", 50,
                       "--dataset", "kitti_depth")
    assert outcome.status == 0, outcome.err
    disps = np.load(tmp_path / "disps_tiny_split.npy")
    assert 1 / 50 < disps.min() < disps.max() < 1
    outcome = evaluate(script, drive, weights, "--eval_mono", "--dataset", "nuscenes")
    assert "--dataset nuscenes does not exist; choose one of kitti, kitti_odom" in one_line(
        outcome, status=2)


def test_stereo_evaluation_of_a_monocular_model_warns(drive, filled, script):
    outcome = evaluate(script, drive, filled / "weights", "--eval_stereo")
    assert "was trained without stereo, so its depth has no known scale" in outcome.out


def test_weights_that_miss_keys_stop_an_evaluation(drive, weights, tmp_path, script):
    shutil.copytree(weights, tmp_path / "weights")
    state = torch.load(tmp_path / "weights/depth.pth", weights_only=True)
    del state["decoder.0.conv.conv.bias"]
    torch.save(state, tmp_path / "weights/depth.pth")
    outcome = evaluate(script, drive, tmp_path / "weights", "--eval_mono")
    assert "depth.pth misses 1 key (decoder.0.conv.conv.bias" in one_line(outcome, status=1)


@pytest.mark.parametrize("key", ["eigen/mono", "eigen_benchmark/mono", "eigen_benchmark/stereo"])
def test_images_are_evaluated_as_their_split_is(key):
    inputs, expected = figures("eval_depth_inputs.npz"), figures("eval_depth.json")[key]
    stereo = key.endswith("stereo")
    columns = measure_errors(
        inputs["disps"], [inputs[f"gt_{i}"] for i in range(4)], eigen=key.startswith("eigen/"),
        scale_factor=5.4 if stereo else 1, alignment="none" if stereo else "median")
    errors = np.stack([columns[name] for name in DEPTH_METRICS], 1)
    np.testing.assert_allclose(errors, expected["per_image"], rtol=1e-5, atol=1e-5)
    if not stereo:
        assert np.median(columns["scaling_ratio"]) == pytest.approx(
            expected["scaling_ratio"][0], abs=5.1e-4)


def test_public_names_are_where_monodepth2_has_them():
    assert STEREO_SCALE_FACTOR == 5.4
    assert callable(batch_post_process_disparity)
    assert len(compute_errors(np.ones(3), np.ones(3))) == 7
    assert list(inspect.signature(evaluate_depth.evaluate).parameters) == ["opt"]
    assert callable(export_gt_depth.export_gt_depths_kitti)


def png_drive(drive, folder):
    """Write the tested frames of the drive as PNG, beside its calibration and scans."""
    shutil.copytree(drive, folder, ignore=shutil.ignore_patterns("*.jpg", "splits"))
    for line in read_split(drive / "splits/tiny/test_files.txt"):
        name, frame, _ = line.split()
        path = f"{name}/image_02/data/{int(frame):010d}"
        Image.open(drive / f"{path}.jpg").save(folder / f"{path}.png")
    return folder


def test_png_images_are_found_and_reported_without_a_flag(drive, weights, tmp_path, script):
    pngs = png_drive(drive, tmp_path / "pngs")
    script("export_gt_depth", "--data_path", drive, "--split", drive / "splits/tiny")
    asked, found = (evaluate(script, drive, weights, "--data_path", pngs, "--eval_mono",
                             "--eval_out_dir", tmp_path, *flags) for flags in (["--png"], []))
    note = f"the images of {pngs} are .png, and are read as such\n"
    assert note not in asked.out
    assert found.out == note + asked.out


def epochs(weights, run, *numbers):
    for number in numbers:
        shutil.copytree(weights, run / f"models/weights_{number}",
                        ignore=shutil.ignore_patterns("results*"))
    return run


def test_each_weights_folder_of_a_run_is_evaluated(drive, weights, tmp_path, script):
    run = epochs(weights, tmp_path / "run", 10, 9)
    filled_weights(run / "models/weights_9")
    alone = [table(evaluate(script, drive, run / f"models/weights_{epoch}", "--eval_mono").out)
             for epoch in (9, 10)]
    outcome = script("evaluate_depth", "--data_path", drive, "--eval_split", drive / "splits/tiny",
                     "--eval_all", run, "--eval_mono", "--num_workers", 0, "--no_cuda")
    assert outcome.status == 0, outcome.err
    summary = outcome.out[outcome.out.index("epoch |"):].splitlines()
    assert [list(map(float, re.split("[ &]+", row.strip()))) for row in summary[1:3]] == [
        [9, *alone[0]], [10, *alone[1]]]
    assert alone[0] != alone[1]
    assert "is not a result" in outcome.out
    for epoch in (9, 10):
        assert (run / f"models/weights_{epoch}/results_tiny_median.json").is_file()
    assert cv2.imread(str(run / "figure_error_by_epoch_tiny_median.png")).shape[0] > 500


def test_each_epoch_of_a_run_has_its_own_output_folder(drive, weights, tmp_path, script):
    run, out = epochs(weights, tmp_path / "run", 3), tmp_path / "out"
    outcome = script("evaluate_depth", "--data_path", drive, "--eval_split", drive / "splits/tiny",
                     "--eval_all", run / "models", "--eval_mono", "--num_workers", 0, "--no_cuda",
                     "--eval_out_dir", out)
    assert outcome.status == 0, outcome.err
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*")) == [
        "figure_error_by_epoch_tiny_median.png", "weights_3/results_tiny_median.csv",
        "weights_3/results_tiny_median.json"]
    assert not (run / "models/weights_3/results_tiny_median.json").exists()


def test_a_run_without_weights_is_refused(drive, tmp_path, script):
    outcome = script("evaluate_depth", "--data_path", drive, "--eval_all", tmp_path, "--eval_mono")
    assert "has no weights_<epoch> folders" in one_line(outcome, status=1)


def test_results_name_the_weights_by_their_hashes(drive, weights, tmp_path, script):
    evaluate(script, drive, weights, "--eval_mono", "--eval_out_dir", tmp_path)
    results = read_results(tmp_path)
    (trained,) = json.loads((weights / "frames_seen.json").read_text())["lists"]
    assert results["lists"]["training"] == [trained]
    assert trained["sha256"] != results["lists"]["test"]["sha256"]
    found = results["weights"]
    assert found["folder"] == str(weights.resolve())
    assert found["sha256"] == {name: hashlib.sha256((weights / name).read_bytes()).hexdigest()
                               for name in ("encoder.pth", "depth.pth", "camera.json")}


def test_edges_are_evaluated_where_ground_truth_is_dense(tmp_path, script):
    # a wall at 10 m beside one at 20 m, predicted 10 m and, in the right third, 20 m
    gt = np.full((30, 60), 10, np.float32)
    gt[:, 30:] = 20
    pred = np.full((30, 60), 10, np.float32)
    pred[:, 40:] = 20
    scan = np.zeros_like(gt)
    scan[::2] = gt[::2]
    np.savez(tmp_path / "gt_depths.npz", gt, np.full_like(gt, 10), scan)
    np.save(tmp_path / "disps.npy", 1 / np.stack([pred] * 3))
    (tmp_path / "test_files.txt").write_text("mine: 0-2\n")
    flags = ["--eval_split", tmp_path, "--eval_mono", "--disable_median_scaling",
             "--ext_disp_to_eval", tmp_path / "disps.npy"]
    script("evaluate_depth", *flags)
    assert "edge_a1" not in read_results(tmp_path)["images"]
    assert script("evaluate_depth", *flags, "--edges").status == 0
    found = read_results(tmp_path)["images"]
    assert found["boundary_f1"] == [0, None, None]  # ten pixels off; no boundary; a scan
    assert found["edge_a1"] == [0.5, None, None]
    assert found["edge_abs_rel"] == [pytest.approx(0.25), None, None]


def test_point_clouds_and_normals_are_evaluated(tmp_path, script):
    gt = np.full((30, 60), 10, np.float32)
    np.savez(tmp_path / "gt_depths.npz", depth_000000=gt, depth_000001=np.eye(30, 60, dtype="f4"))
    np.save(tmp_path / "disps.npy", 1 / np.stack([gt + 0.2, gt]))
    (tmp_path / "test_files.txt").write_text("mine: 0-1\n")
    flags = ["--eval_split", tmp_path, "--ext_disp_to_eval", tmp_path / "disps.npy", "--clouds"]
    assert script("evaluate_depth", *flags, "--alignment", "none").status == 0
    found = json.loads((tmp_path / f"results_{tmp_path.name}_none.json").read_text())["images"]
    # 0.2 m along the axis, and less than 0.2 m to the side at KITTI's narrowest angles
    assert 0.2 <= found["cloud_chamfer"][0] < 0.25
    assert [found[f"cloud_f_{cm}cm"][0] for cm in (10, 50)] == [0, 1]
    assert found["normal_angle"] == [pytest.approx(0, abs=1e-4), None]  # a scan has no surface
    assert script("evaluate_depth", *flags, "--alignment", "median").status == 0
    found = json.loads((tmp_path / f"results_{tmp_path.name}_median.json").read_text())["images"]
    assert found["cloud_f_10cm"][0] == 1


def test_point_clouds_without_intrinsics_are_refused_first(tmp_path, script):
    np.savez(tmp_path / "gt_depths.npz", depth_000000=np.full((30, 60), 10, np.float32))
    (tmp_path / "test_files.txt").write_text("mine 0\n")
    outcome = script("evaluate_depth", "--eval_split", tmp_path, "--data_path", tmp_path,
                     "--dataset", "folder", "--load_weights_folder", tmp_path / "absent",
                     "--eval_mono", "--clouds")
    assert "intrinsics.json" in one_line(outcome, status=1)
    assert "predicting" not in outcome.err


def test_edges_in_scans_are_refused_before_prediction(drive, weights, script):
    outcome = evaluate(script, drive, weights, "--eval_mono", "--edges")
    assert "--edges needs dense ground truth" in one_line(outcome, status=1)
    assert "predicting" not in outcome.err


def test_bad_weights_data_and_splits_get_one_line_and_status_1(drive, weights, tmp_path, script):
    assert "nowhere does not exist" in one_line(
        evaluate(script, drive, "nowhere", "--eval_mono"), status=1)
    assert "--data_path nowhere does not exist" in one_line(
        evaluate(script, drive, weights, "--eval_mono", "--data_path", "nowhere"), status=1)
    assert "0000000005.png is missing; leave out --png" in one_line(
        evaluate(script, drive, weights, "--eval_mono", "--png"), status=1)
    assert "found no split and no folder" in one_line(
        evaluate(script, drive, weights, "--eval_mono", "--eval_split", "nowhere"), status=1)


@pytest.mark.parametrize(("make", "found"), [
    (lambda path: np.save(path, np.ones((3, 4, 8), np.float32)), "shape (3, 4, 8)"),
    (lambda path: np.save(path, np.ones((4, 8), np.float32)), "shape (4, 8)"),
    (lambda path: np.save(path, np.ones((4, 4, 8), np.int64)), "int64"),
    (lambda path: np.save(path, np.array([{}] * 4)), "cannot be read as a .npy"),
    (lambda path: path.write_bytes(b"no array"), "cannot be read as a .npy"),
    (lambda path: path.write_bytes(b""), "cannot be read as a .npy"),
    (lambda path: path.write_bytes(b"PK\x03\x04"), "cannot be read as a .npy"),
    (lambda path: np.save(path, np.ones((4, 0, 8), np.float32)), "shape (4, 0, 8)"),
    (lambda path: None, "does not exist")])
def test_a_wrong_npy_is_refused(drive, tmp_path, script, make, found):
    make(tmp_path / "disps.npy")
    outcome = script("evaluate_depth", "--data_path", drive, "--eval_split", drive / "splits/tiny",
                     "--eval_mono", "--ext_disp_to_eval", tmp_path / "disps.npy")
    assert found in one_line(outcome, status=1)


def test_an_export_without_its_data_or_split_is_refused(drive, tmp_path, script):
    for data, split, found in ((tmp_path / "no", "eigen", "no does not exist"),
                               (drive, tmp_path / "no", "found no split")):
        outcome = script("export_gt_depth", "--data_path", data, "--split", split)
        assert found in one_line(outcome, status=1)


def test_a_negative_number_of_export_workers_is_refused(drive, script):
    outcome = script("export_gt_depth", "--data_path", drive, "--split", "eigen",
                     "--num_workers", -1)
    assert "--num_workers is -1; it must be 0 or more" in one_line(outcome, status=2)


def test_a_missing_scan_stops_the_export_without_a_file(tmp_path, script):
    (tmp_path / "test_files.txt").write_text("day/drive 3 l\n")
    (tmp_path / "day").mkdir()
    (tmp_path / "day" / "calib_cam_to_cam.txt").write_text(
        f"S_rect_02: 8 4\nR_rect_00: {'1 0 0 0 ' * 2}1\nP_rect_02:{' 1' * 12}\n")
    (tmp_path / "day" / "calib_velo_to_cam.txt").write_text("R: 0 -1 0 0 0 -1 1 0 0\nT: 0 0 0\n")
    outcome = script("export_gt_depth", "--data_path", tmp_path, "--split", tmp_path)
    assert "0000000003.bin is missing" in one_line(outcome, status=1)
    assert "test_files.txt, line 1" in outcome.err
    assert not (tmp_path / "gt_depths.npz").exists()


def test_stereo_depth_is_scaled_by_the_baseline_of_training(
        drive, weights, tmp_path, script):
    copied = shutil.copytree(weights, tmp_path / "weights")
    camera = read_training_camera(copied, True)
    tables = []
    for baseline, flags in ((0.54, ["--pred_depth_scale_factor", 2]), (1.08, [])):
        write_training_camera(copied, camera._replace(baseline=baseline))
        outcome = script("evaluate_depth", "--data_path", drive, "--eval_split",
                         drive / "splits/tiny", "--load_weights_folder", copied, "--eval_stereo",
                         "--num_workers", 0, "--no_cuda", *flags)
        assert outcome.status == 0, outcome.err
        tables.append(outcome.out.splitlines()[-1])
    assert tables[0] == tables[1]

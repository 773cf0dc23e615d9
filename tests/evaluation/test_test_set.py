"""evaluation.test_set: the processes that read images are forked before the networks are loaded."""
import multiprocessing

import pytest

from networks import ENCODERS


@pytest.mark.parametrize("name", ["evaluate_depth", "evaluate_pose"])
def test_evaluation_forks_its_workers_before_the_networks(drive, weights, tmp_path, script,
                                                          monkeypatch, name):
    def workers():
        return {process.pid for process in multiprocessing.active_children()}

    def build(*args, **options):
        seen.append(len(workers() - others))
        return resnet18(*args, **options)

    seen, others, resnet18 = [], workers(), ENCODERS[18]
    monkeypatch.setitem(ENCODERS, 18, build)
    (tmp_path / "list.txt").write_text("9 l: 0-6\n")
    split = drive / "splits/tiny" if name == "evaluate_depth" else tmp_path / "list.txt"
    flags = ["--data_path", drive, "--eval_split", split, "--load_weights_folder", weights,
             "--num_workers", 2, "--no_cuda", "--eval_out_dir", tmp_path]
    if name == "evaluate_depth":
        flags.append("--eval_mono")
    assert script(name, *flags).status == 0
    assert seen
    assert set(seen) == {2}
    assert workers() <= others

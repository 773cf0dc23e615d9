"""Scripts answer -h and wrong flags without the seconds that importing PyTorch takes."""
import subprocess
import sys

import pytest
from conftest import ROOT

SCRIPTS = ("train", "evaluate_depth", "evaluate_pose", "test_simple", "export_gt_depth",
           "prepare_data", "export_onnx", "app")
HEAVY = {"torch", "torchvision", "tensorboardX", "cv2", "av", "PIL", "matplotlib", "gradio"}


def run_python(*words):
    """Run Python; return its exit status and the top-level names of the imported modules."""
    done = subprocess.run([sys.executable, "-X", "importtime", *words], cwd=ROOT, text=True,
                          capture_output=True)
    assert "Traceback" not in done.stderr
    return done.returncode, {line.rpartition("|")[2].strip().partition(".")[0]
                             for line in done.stderr.splitlines() if "|" in line}


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(("flag", "status"), [("-h", 0), ("--no_such_flag", 2)])
def test_help_and_a_wrong_flag_need_no_torch(script, flag, status):
    found, imported = run_python(f"{script}.py", flag)
    assert found == status
    assert {"argparse", "runtime"} <= imported
    assert imported & HEAVY == set()


def test_monodepth2s_names_of_evaluation_import_without_torch():
    status, imported = run_python("-c", """
from evaluate_depth import STEREO_SCALE_FACTOR, batch_post_process_disparity, compute_errors
from evaluate_pose import compute_ate, dump_xyz
""")
    assert status == 0
    assert imported & HEAVY == set()

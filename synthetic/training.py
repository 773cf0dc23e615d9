"""Render a street and train a network on it, by the project's own command lines."""
from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import torch

from runtime.errors import DataError

BATCH_SIZE = 4
# three times the paper's, because the training is much shorter; a tenth of it after 15 epochs
LEARNING_RATE = 3e-4
LAST_LEARNING_RATE = 1e-4  # of the epochs with frames in time
MIN_DEPTH = 0.4  # in the network's unit; 2.2 m, nearer than almost everything on the street


class Training(NamedTuple):
    """Describe a rendered street, and how a network learns on it from random weights.

    Stereo pairs alone come first: they know the scale, and a step takes half the time of a step
    with frames in time. The pose network learns in the last epochs.

    Attributes:
        frames: stereo frames of the streets for training and for tests together.
        height, width: size of the images, pixels.
        stereo_epochs: epochs on stereo pairs alone.
        video_epochs: epochs on stereo pairs and frames in time, at the end.
    """

    frames: int
    height: int
    width: int
    stereo_epochs: int
    video_epochs: int

    def run(self, out: Path, *flags: str) -> tuple[Path, Path]:
        """Render the streets if they are missing, and train.

        Args:
            out: folder for the drive, weights and logs.
            flags: further flags of train.py; a second run needs --overwrite or --resume.

        Returns:
            The folders of the drive and of the trained weights.

        Raises:
            DataError: a command failed.
        """
        drive = out / f"drive_{self.width}x{self.height}"
        if not drive.exists():
            run_command("-m", "synthetic.render", drive, "--frames", self.frames,
                        "--height", self.height, "--width", self.width)
        words = ["--data_path", drive, "--split", drive / "splits/drive", "--height", self.height,
                 "--width", self.width, "--use_stereo", "--weights_init", "scratch",
                 "--batch_size", BATCH_SIZE, "--num_workers", 1, "--min_depth", MIN_DEPTH,
                 "--precision", choose_precision(), "--log_dir", out, *flags]
        run_command("train.py", *words, "--frame_ids", 0, "--model_name", "stereo",
                    "--num_epochs", self.stereo_epochs, "--save_frequency", self.stereo_epochs,
                    "--learning_rate", LEARNING_RATE)
        run_command("train.py", *words, "--frame_ids", 0, -1, 1, "--model_name", "model",
                    "--num_epochs", self.video_epochs, "--save_frequency", self.video_epochs,
                    "--learning_rate", LAST_LEARNING_RATE, "--models_to_load", "encoder", "depth",
                    "--load_weights_folder",
                    out / f"stereo/models/weights_{self.stereo_epochs - 1}")
        return drive, out / f"model/models/weights_{self.video_epochs - 1}"


def choose_precision(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the --precision of training: bf16 on a CPU that multiplies in it, otherwise fp32.

    Args:
        cpuinfo: file of Linux with the CPU's features: avx512_bf16 or amx_bf16 on x86, bf16 on ARM.
    """
    is_fast = cpuinfo.exists() and "bf16" in cpuinfo.read_text()
    return "bf16" if is_fast and not torch.cuda.is_available() else "fp32"


def run_command(script: str, *words: object) -> str:
    """Print a command line of the project, run it, and return its output.

    Raises:
        DataError: the command failed.
    """
    line = [script, *map(str, words)]
    print("\n$ python " + shlex.join(line), flush=True)
    done = subprocess.run([sys.executable, *line], text=True, stdout=subprocess.PIPE)
    print(done.stdout, end="", flush=True)
    if done.returncode:
        raise DataError(f"{script} ended with status {done.returncode}; see above")
    return done.stdout

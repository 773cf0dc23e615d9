"""Make a folder that can be shared of a weights folder: safetensors, flags, camera, model card."""
from __future__ import annotations

import os
import shutil
from pathlib import Path

from checkpoints.frames_seen import FramesSeen, read_frames_seen, write_frames_seen
from checkpoints.network_weights import ENCODER_NAME, InputFormat, read_weights
from checkpoints.safetensors_file import SUFFIX, write_safetensors
from checkpoints.state_file import weights_file
from checkpoints.training_camera import FILE_NAME as CAMERA
from checkpoints.training_flags import read_training_flags, write_shared_flags
from networks.encoders import OWN_FILE
from prediction.model_card import write_model_card
from prediction.predictor import Predictor
from runtime.files import new_folder
from runtime.hub import NETWORKS, find_weights

CARD, LICENCE = "README.md", "LICENSE"


def make_shared_folder(weights: str | Path, repository: str, out: Path) -> None:
    """Write what others need of a weights folder: no path of this machine, no state of Adam.

    A README.md and a LICENSE of the weights folder are kept as they are.

    Args:
        weights: weights folder, published or of train.py; or a shared one.
        repository: user/name of the model, for the model card.
        out: folder to make.

    Raises:
        DataError: the weights or the results of their evaluation are broken, or `out` has files.
    """
    weights = Path(find_weights(weights))
    files = {name: file for name in NETWORKS
             if os.path.isfile(file := weights_file(weights, name))}
    predictor = Predictor(weights, with_pose="pose" in files)  # refuses what nobody could load
    seen = read_frames_seen(weights)
    with new_folder(out) as folder:
        for name, file in files.items():
            write_safetensors(folder / f"{name}{SUFFIX}", _state(predictor, name, file))
        flags = read_training_flags(weights) | _input_format(predictor)._asdict()
        write_shared_flags(folder, flags)
        write_frames_seen(folder, _without_paths(seen))
        for name in (CAMERA, CARD, LICENCE):
            if (weights / name).is_file():
                shutil.copyfile(weights / name, folder / name)
        if not (folder / CARD).is_file():
            write_model_card(folder / CARD, repository, predictor, seen)


def _state(predictor: Predictor, name: str, file: Path) -> dict:
    """Return a network's state dict, with the entries that its .pth file has beside the tensors."""
    network = read_weights(file)
    others = _input_format(predictor)._asdict() if name == "encoder" else {}
    if network.encoder_name is not None:
        own = OWN_FILE.fullmatch(network.encoder_name)
        others[ENCODER_NAME] = f"{Path(own[1]).name}:{own[2]}" if own else network.encoder_name
    return network.tensors | others


def _input_format(predictor: Predictor) -> InputFormat:
    return InputFormat(predictor.height, predictor.width, predictor.use_stereo)


def _without_paths(seen: FramesSeen | None) -> FramesSeen:
    """Return the record of the frames seen, in which lists have the names of their folders only."""
    if seen is None:
        return FramesSeen(set(), [], is_complete=False)  # says "unknown" wherever it is read
    return seen._replace(lists=[entry | {"split": Path(entry["split"]).name}
                                for entry in seen.lists])

"""Write the model card of shared weights: how to load them, their unit, training and errors."""
from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from checkpoints.frames_seen import FramesSeen, Leak
from checkpoints.state_file import weights_file
from checkpoints.training_camera import FILE_NAME as CAMERA
from metrics.alignment import describe_alignment
from metrics.depth import DEPTH_METRICS
from metrics.intervals import LEVEL, choose_resampled
from networks.encoders import describe_encoder
from prediction.predictor import Predictor
from runtime.errors import DataError, counted
from runtime.hub import PREFIX

FILL_IN = "FILL IN"  # marks what only the owner of the weights knows
RESULTS = "results_*_*.json"  # as evaluate_depth.py names them

CARD = """---
library_name: monodepth2
pipeline_tag: depth-estimation
tags: [monodepth2, self-supervised]
license: other  # {fill_in}: a licence that the Hub lists, or "other" and the two lines below
license_name: fill-in  # {fill_in}
license_link: LICENSE  # {fill_in}: a file in this folder, or an address
---

# {title}

Self-supervised depth from one image, trained as in Monodepth2 (Godard et al., ICCV 2019).

## Load

```python
import torch
model = torch.hub.load("path/to/monodepth2", "monodepth2", source="local", weights="{weights}")
depth = model.predict(image).depth  # image: (H, W, 3) uint8, RGB; depth: (1, 1, H, W)
```

`path/to/monodepth2` is a copy of the code that wrote this folder. Its scripts take
`--load_weights_folder {weights}`.

## Network and unit

| | |
|---|---|
{network}

## Training data

{training}

## Errors

{errors}

## Unknown

{unknown}
"""


def write_model_card(path: Path, repository: str, predictor: Predictor, seen: FramesSeen | None
                     ) -> None:
    """Write the model card of a weights folder.

    Args:
        path: of the card.
        repository: user/name of the model.
        predictor: of the weights folder, in which the results of evaluations are looked for.
        seen: what training read; None if unknown.

    Raises:
        DataError: results in the weights folder are broken, or are those of other weights.
    """
    results = sorted(predictor.folder.glob(RESULTS))
    text = CARD.format(
        fill_in=FILL_IN, weights=PREFIX + repository, title=repository.partition("/")[2],
        network="\n".join(f"| {name} | {value} |" for name, value in _network(predictor)),
        training=_training(seen), unknown=_unknown(predictor, seen, results),
        errors="\n\n".join(_errors(result, predictor.folder) for result in results)
        or "Unknown: these weights were shared without an evaluation.")
    path.write_text(text, encoding="utf-8")


def _network(predictor: Predictor) -> Sequence[tuple[str, str]]:
    """Return rows on the network, its input, and the unit of its depth."""
    camera, model = predictor.training_camera, predictor.model
    return (("encoder", describe_encoder(model.encoder_names["encoder"], model.encoder)),
            ("pose network", "included" if model.pose is not None else "not included"),
            ("input", f"RGB, {predictor.width}x{predictor.height}; `predict` resizes images"),
            ("trained with", {"mono": "video", "stereo": "stereo pairs",
                              "mono+stereo": "video and stereo pairs",
                              "mono+speed": "video and recorded speeds"}[camera.training]),
            ("depth", camera.unit().words),
            ("disparity", "1 / depth, in the network's unit of length"),
            ("depth range", f"{camera.min_depth:g} to {camera.max_depth:g}, in the network's unit"))


def _training(seen: FramesSeen | None) -> str:
    """Say which lists the weights were trained on."""
    if seen is None or not seen.lists:
        return "Unknown."
    rows = [f"- {Path(each['split']).name}, SHA-256 of its lines `{each['sha256']}`"
            for each in seen.lists]
    end = "" if seen.is_complete else ", and of an earlier training whose list is unknown"
    moments = counted(len(seen.instants), "moment")
    return "\n".join([*rows, "", f"`frames_seen.json` names {moments} of these lists{end}. An "
                      "evaluation counts the test images among them."])


def _errors(path: Path, folder: Path) -> str:
    """Return the errors of a results file as a table, with what they depend on.

    Raises:
        DataError: the file is broken, or of other weights.
    """
    try:
        fields = json.loads(path.read_bytes())
        _check_hashes(path, fields["weights"]["sha256"], folder)
        split, lines = Path(fields["lists"]["test"]["split"]).name, fields["lines"]
        resampled = choose_resampled([" ".join(line.split()[:1]) for line in lines])
        rows = [_row(name, **fields["metrics"][name]) for name in DEPTH_METRICS]
        return "\n".join([
            f"### {split}, alignment {fields['alignment']}", "",
            f"- {counted(len(lines), 'image')}, SHA-256 of the test list's lines "
            f"`{fields['lists']['test']['sha256']}`",
            f"- alignment: {describe_alignment(fields['alignment'], fields['scale_factor'])}",
            *(["- each prediction is averaged with that of the mirrored image (--post_process)"]
              if fields["flags"]["post_process"] else []),
            f"- ground truth: {fields['ground_truth']['kind']}, "
            f"{fields['ground_truth']['pixels']}, metres",
            f"- {Leak(**fields['seen_in_training']).describe()}",
            f"- {LEVEL:.0%} intervals by {resampled.describe()}", "",
            "sq_rel and rmse are in metres; of a1, a2 and a3, more is better.", "",
            "| error | mean | interval |", "|---|---|---|", *rows])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DataError(f"{path} is not a results file of a depth evaluation with this version; "
                        "evaluate again, or move it away") from None


def _row(name: str, mean: float, low: float | None, high: float | None, images: int) -> str:
    """Return a row of the table of errors."""
    interval = "unknown" if low is None else f"{low:.4f} to {high:.4f}"
    return f"| {name} | {mean:.4f} | {interval} |"


def _check_hashes(path: Path, hashes: dict[str, str], folder: Path) -> None:
    """Raise a DataError if the files of a weights folder are not those that were evaluated."""
    names = {*hashes, *(weights_file(folder, name).name for name in ("encoder", "depth"))}
    if (folder / CAMERA).is_file():
        names.add(CAMERA)
    for name in sorted(names):
        file = folder / name
        found = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None
        if found != hashes.get(name):
            raise DataError(f"{path} is of other weights: {name} differs from the file that was "
                            "evaluated; evaluate again, or move the results away")


def _unknown(predictor: Predictor, seen: FramesSeen | None, results: Sequence[Path]) -> str:
    """List what the files of the weights folder do not say."""
    words = ["The licence, until its fields above are filled in, and that of the training images."]
    if seen is None or not seen.is_complete:
        words.append("All images that training has seen: an evaluation may be on some of them.")
    if not (predictor.folder / CAMERA).is_file():
        words.append("The camera of training: without `camera.json`, that of KITTI is assumed.")
    if predictor.training_camera.metres is None:
        words.append("The scale of depth, which may differ from image to image.")
    words.append("Errors on other cameras, places, weather and light than those of the test images."
                 if results else "All errors: evaluate before you rely on a prediction.")
    return "\n".join(f"- {word}" for word in words)

"""Read, compare and write robustness files: the errors of a network under corruptions."""
from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evaluation.results import METHOD_FLAGS, READ_FROM_WEIGHTS
from runtime.errors import DataError
from runtime.files import write_atomically

SCHEMA = 1  # version of the fields of a robustness file
ROBUSTNESS = "robustness_{}.json"  # takes an `evaluation_name`
EXPECTED = "expected a robustness_<split>_<alignment>.json of evaluate_depth.py --corruptions"
# flags that change the errors of one network on one list; --temporal only adds others
OWN_FLAGS = (*(name for name in METHOD_FLAGS if name != "temporal"), "data_path", "dataset", "png")


def protocol_of(fields: dict) -> dict:
    """Return the fields of an evaluation that must agree for a comparison of two networks."""
    truth = fields["ground_truth"]
    return {"test list": fields["lists"]["test"]["sha256"],
            "alignment": fields["alignment"],
            "ground truth": [truth[name] for name in ("kind", "pixels", "count")]}


def network_of(fields: dict) -> dict:
    """Return the fields of an evaluation that must agree if its errors are to be used again."""
    hashes = fields["weights"]["sha256"]
    return protocol_of(fields) | {
        "weights": [hashes.get(name) for name in READ_FROM_WEIGHTS]} | {
        f"--{name}": fields["flags"].get(name) for name in OWN_FLAGS}


def differing(a: dict, b: dict) -> list[str]:
    """Return the keys of two dicts of equal keys whose values differ."""
    return [name for name in a if a[name] != b[name]]


def read_baseline(path: Path, origin: dict, names: Sequence[str],
                  severities: Sequence[int]) -> dict:
    """Read the robustness file of another network that was evaluated in the same way.

    Raises:
        DataError: the file is broken, was evaluated in another way, or lacks a corruption.
    """
    baseline = read_robustness(path)
    if changed := differing(protocol_of(origin), protocol_of(baseline)):
        raise DataError(f"--robustness_baseline {path} differs in {' and '.join(changed)}; "
                        "evaluate both networks with the same flags")
    missing = [name for name in names
               if not {*map(str, severities)} <= baseline["corrupted"].get(name, {}).keys()]
    if missing:
        raise DataError(f"--robustness_baseline {path} lacks {' '.join(missing)} at severities "
                        f"{' '.join(map(str, severities))}; evaluate its network with them")
    return baseline


def read_robustness(path: Path) -> dict:
    """Read and validate a robustness file.

    Raises:
        DataError: the file is missing or broken, or of a newer version of this project.
    """
    try:
        robustness = json.loads(path.read_bytes())
        is_newer = robustness["schema"] > SCHEMA
        if not is_newer:
            network_of(robustness)
            for errors in (robustness["clean"], *(
                    errors for by_severity in robustness["corrupted"].values()
                    for errors in by_severity.values())):
                if not 0 <= errors["dee"] < np.inf:
                    raise ValueError("a DEE is negative or infinite")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; {EXPECTED}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DataError(f"{path} is broken, or another kind of file; {EXPECTED}") from None
    if is_newer:
        raise DataError(f"{path} has schema {robustness['schema']}, and this version reads up to "
                        f"{SCHEMA}; update the project, or evaluate again")
    return robustness


def write_robustness(path: Path, robustness: dict) -> None:
    """Write a robustness file."""
    write_atomically(path, (json.dumps(robustness, indent=1) + "\n").encode())

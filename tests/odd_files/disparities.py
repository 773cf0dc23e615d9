"""Disparities and ground truth, evaluated by evaluate_depth.py."""
from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.odd_files.base import content, save_npy, truth
from tests.odd_files.situation import Situation, base

COMMAND = ("evaluate_depth --eval_mono --disable_median_scaling --num_workers 0 --eval_out_dir out "
           "--data_path {base}/drive --eval_split ")
OF_SHARED = COMMAND + "{base}/split --ext_disp_to_eval "
OF_SPLIT = COMMAND + "s --ext_disp_to_eval disps.npy"


def disps() -> np.ndarray:
    """Return the disparities (4, 64, 96) that fit the ground truth exactly."""
    return 1 / np.stack(truth())


def results() -> dict:
    """Return the fields of the results file in out/."""
    (path,) = Path("out").glob("results_*.json")
    return json.loads(path.read_text())


def is_exact(_: object, __: str) -> bool:
    """Return whether the errors of all images are 0: each met its own ground truth."""
    found = results()
    return len(found["lines"]) == 4 and max(found["images"]["abs_rel"]) < 1e-4


def warned(_: object, printed: str) -> bool:
    """Return whether a warning was printed that names the file."""
    return any("warning" in line and "disps" in line for line in printed.splitlines())


def saved(change: Callable[[np.ndarray], object], name: str = "disps.npy") -> Callable[[], None]:
    """Return a builder that saves changed disparities with np.save."""
    return lambda: save_npy(name, change(disps()))


def given(words: str, change: Callable[[np.ndarray], object], refused: str | None,
          right: Callable[[object, str], bool] | None = None) -> Situation:
    return Situation(f"disparities: {words}", OF_SHARED + "disps.npy", saved(change), refused,
                     right)


def with_number(number: float) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that puts one number into the third map."""
    def change(values: np.ndarray) -> np.ndarray:
        values[2, 5, 7] = number
        return values
    return change


def png_folder() -> None:
    Path("disps").mkdir()
    for i, disp in enumerate(disps()):
        Image.fromarray((disp * 256).astype(np.uint16)).save(f"disps/{i}.png")


NAMED = r"disps"
SITUATIONS = [
    given("float64", lambda d: d.astype("f8"), None, is_exact),
    given("float16", lambda d: d.astype("f2"), NAMED,
          lambda *_: bool(results())),
    given("big-endian float32", lambda d: d.astype(">f4"), None, is_exact),
    given("Fortran order", np.asfortranarray, None, is_exact),
    given("with an axis of 1: (4, 1, 64, 96)", lambda d: d[:, None], NAMED, is_exact),
    given("one map too few", lambda d: d[:3], NAMED),
    given("one map", lambda d: d[0], NAMED),
    given("one number", lambda d: d[0, 0, 0], NAMED),
    given("no pixels", lambda d: d[:, :0], NAMED),
    given("integers", lambda d: (d * 256).astype(int), NAMED),
    given("complex numbers", lambda d: d + 0j, NAMED),
    given("text", lambda d: d.astype(str), NAMED),
    given("an array of objects", lambda d: np.array([*d, None], object)[:4], NAMED),
    given("zeros", np.zeros_like, NAMED),
    given("one zero", with_number(0), NAMED),
    given("one NaN", with_number(np.nan), NAMED),
    given("one inf", with_number(np.inf), NAMED),
    given("one number below 0", with_number(-1e-3), NAMED),
    given("depth instead of disparity", lambda d: 1 / d, NAMED, warned),
    Situation("disparities: .npz", OF_SHARED + "disps.npz",
              lambda: np.savez("disps.npz", disps()), r"disps\.npz", is_exact),
    Situation("disparities: .npz of a map for each image", OF_SHARED + "disps.npz",
              lambda: np.savez("disps.npz", *disps()), r"disps\.npz", is_exact),
    Situation("disparities: a folder of 16-bit PNGs", OF_SHARED + "disps", png_folder, "disps",
              lambda _, __: max(results()["images"]["abs_rel"]) < 0.2),
    Situation("disparities: an empty file", OF_SHARED + "disps.npy", content("disps.npy", b""),
              NAMED),
    Situation("disparities: cut off", OF_SHARED + "disps.npy",
              lambda: [saved(lambda d: d)(), os.truncate("disps.npy", 5000)], NAMED),
    Situation("disparities: CSV", OF_SHARED + "disps.csv", content("disps.csv", b"1,2\n"), NAMED),
    Situation("disparities: missing", OF_SHARED + "disps.npy", lambda: None, NAMED),
    Situation("disparities: named with spaces and quotes", OF_SHARED + "'di sps'\"'\"'.npy'",
              saved(lambda d: d, "di sps'.npy"), None, is_exact),
]


def split(write: Callable[[], object]) -> Callable[[], None]:
    """Return a builder of a split s with its own gt_depths.npz, and of exact disparities."""
    def build() -> None:
        Path("s").mkdir()
        Path("s/test_files.txt").write_text((base() / "split/test_files.txt").read_text())
        np.save("disps.npy", disps())
        write()
    return build


def maps(words: str, write: Callable[[str], object], refused: str | None,
         right: Callable[[object, str], bool] | None = None) -> Situation:
    """Return the situation of a gt_depths.npz that `write` makes."""
    return Situation(f"ground truth: {words}", OF_SPLIT, split(lambda: write("s/gt_depths.npz")),
                     refused, right)


def npz(change: Callable[[list], list]) -> Callable[[str], None]:
    return lambda path: np.savez(path, *change(truth()))


def pickled(path: str) -> None:
    """Write ground truth as the original does: an array of objects."""
    values = np.empty(4, object)
    values[:] = truth()
    np.savez_compressed(path, data=values)


def unpadded(path: str) -> None:
    """Write 12 maps for 12 lines under names without leading zeros."""
    line = Path("s/test_files.txt").read_text().split(":")[0]
    Path("s/test_files.txt").write_text(f"{line}: 0-11\n")
    scales = [np.full((64, 96), i + 2, np.float32) for i in range(12)]
    np.savez(path, **{f"d{i}": depth for i, depth in enumerate(scales)})
    np.save("disps.npy", 1 / np.stack(scales))


def in_zip(path: str) -> None:
    inner = io.BytesIO()
    np.savez(inner, *truth())
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("gt_depths.npz", inner.getvalue())


def set_number(number: float) -> Callable[[list], list]:
    def change(values: list) -> list:
        values[1][3, 4] = number
        return values
    return change


NPZ = r"gt_depths\.npz"
TRUTH = f"{NPZ}|ground truth"
SITUATIONS += [
    maps("12 maps, names without zeros", unpadded, None,
         lambda _, __: max(results()["images"]["abs_rel"]) < 1e-4),
    maps("objects, as the original writes", pickled, None, is_exact),
    maps("one array (4, 64, 96)", lambda path: np.savez(path, data=np.stack(truth())), None,
         is_exact),
    maps("float64", npz(lambda m: [d.astype("f8") for d in m]), None, is_exact),
    maps("one map too few", npz(lambda m: m[:3]), TRUTH),
    maps("one map too many", npz(lambda m: [*m, m[0]]), TRUTH),
    maps("a number instead of a map", npz(lambda m: [*m[:3], np.float32(3)]), NPZ),
    maps("integers", npz(lambda m: [d.astype(int) for d in m]), NPZ),
    maps("three axes", npz(lambda m: [d[None] for d in m]), NPZ),
    maps("an empty map", npz(lambda m: [*m[:3], m[3][:0]]), TRUTH),
    maps("no maps", lambda path: np.savez(path), TRUTH),
    maps("zeros only", npz(lambda m: [d * 0 for d in m]), TRUTH),
    maps("a map of zeros among others", npz(lambda m: [*m[:3], m[3] * 0]), TRUTH,
         lambda *_: results()["images"]["abs_rel"][3] is None),
    maps("NaN where there is no truth", npz(set_number(np.nan)), NPZ, is_exact),
    maps("inf in a map", npz(set_number(np.inf)), NPZ, is_exact),
    maps("numbers below 0", npz(set_number(-3)), NPZ, is_exact),
    maps("an archive in an archive", in_zip, NPZ),
    maps("an empty file", lambda path: Path(path).write_bytes(b""), NPZ),
    maps(".npy under the name .npz", lambda path: save_npy(path, np.stack(truth())),
         NPZ),
    maps("text", lambda path: Path(path).write_text("1 2 3\n"), NPZ),
    maps("a folder", lambda path: Path(path).mkdir(), NPZ),
    maps("cut off", lambda path: [np.savez(path, *truth()), os.truncate(path, 9000)], NPZ),
    maps("lines of another list", lambda path: np.savez(
        path, lines=np.array(["a 1 l"]), **{f"depth_{i:06d}": d for i, d in enumerate(truth())}),
        NPZ),
    Situation("--scale_from with names without zeros",
              "test_simple --image_path d --ext png --load_weights_folder {base}/w --output disp "
              "--output_dir out --scale_from gt.npz",
              lambda: [Path("d").mkdir(), Image.new("RGB", (96, 64)).save("d/0.png"),
                       np.savez("gt.npz", *truth(3))], r"gt\.npz.*3 maps"),
    Situation("--compare of results that are cut off",
              "evaluate_depth --compare a.json b.json",
              lambda: [Path(f"{n}.json").write_text('{"lines": [') for n in "ab"],
              r"a\.json"),
    Situation("--compare with NaN for lines", "evaluate_depth --compare a.json a.json",
              lambda: Path("a.json").write_text('{"lines": NaN, "images": {}}'),
              r"a\.json"),
]

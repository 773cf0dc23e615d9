"""Export ground truth depth of a test split to gt_depths.npz, which evaluate_depth.py reads."""
from __future__ import annotations

from datasets.ground_truth import export_gt_depths
from options import OneLineParser
from utils import run


def main() -> None:
    """Export as the command line says."""
    parser = OneLineParser(description=__doc__)
    parser.add_argument("--data_path", required=True, help="KITTI's raw folder")
    parser.add_argument("--split", required=True,
                        help="eigen (velodyne scans), eigen_benchmark (annotated PNGs), or a path "
                             "to a folder with test_files.txt (velodyne scans)")
    opts = parser.parse_args()
    print(f"wrote {export_gt_depths(opts.data_path, opts.split)}")


if __name__ == "__main__":
    run(main)

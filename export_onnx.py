"""Export the depth network of a weights folder to ONNX, and compare the file with PyTorch."""
from __future__ import annotations

import argparse
from pathlib import Path

from options import OneLineParser
from prediction.onnx import OPSETS, check, check_packages, report, to_onnx
from runtime.errors import run
from runtime.files import write_atomically


def parse_args() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = OneLineParser(description=__doc__)
    parser.add_argument("--load_weights_folder", required=True,
                        help="a folder with encoder.pth and depth.pth")
    parser.add_argument("--output", metavar="FILE",
                        help="(default: depth.onnx in the weights folder)")
    parser.add_argument("--opset", type=int, default=OPSETS[0], choices=OPSETS,
                        help="version of ONNX's operators (%(default)s)")
    return parser.parse_args()


def main() -> None:
    """Export as the command line says."""
    args = parse_args()
    check_packages()
    # not before: it takes seconds (PyTorch), and -h and a wrong flag want their answer at once
    from prediction.predictor import Predictor
    predictor = Predictor(args.load_weights_folder)
    path = Path(args.output or Path(args.load_weights_folder, "depth.onnx"))
    content = to_onnx(predictor, args.opset)
    differences = check(content, predictor)
    write_atomically(path, content)
    print(report(path, predictor, differences))


if __name__ == "__main__":
    run(main)

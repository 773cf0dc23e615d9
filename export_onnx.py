"""Export the depth network of a weights folder to ONNX, and compare the file with PyTorch."""
from __future__ import annotations

import argparse

from runtime.arguments import OneLineParser, whole_path
from runtime.errors import run

OPSETS = range(18, 21)  # written without conversion by every supported version of PyTorch


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options of a command line (default: of this program)."""
    parser = OneLineParser(description=__doc__)
    parser.add_argument("--load_weights_folder", required=True, type=whole_path,
                        help="a folder with the networks encoder and depth, or hf:user/name")
    parser.add_argument("--output", metavar="FILE", type=whole_path,
                        help="file to write (default: depth.onnx in the weights folder)")
    parser.add_argument("--opset", type=int, default=OPSETS[0], choices=OPSETS,
                        help="version of the ONNX operators (%(default)s)")
    return parser.parse_args(argv)


def main() -> None:
    """Export as the command line says."""
    args = parse_args()
    from prediction.onnx import export_onnx
    export_onnx(args.load_weights_folder, args.output, args.opset)


if __name__ == "__main__":
    run(main)

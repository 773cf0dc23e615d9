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
                        help="file to write (default: depth.onnx in the weights folder; "
                             "depth_int8.onnx, depth_half.onnx)")
    parser.add_argument("--opset", type=int, default=OPSETS[0], choices=OPSETS,
                        help="version of the ONNX operators (%(default)s)")
    smaller = parser.add_mutually_exclusive_group()
    smaller.add_argument("--int8", dest="kind", action="store_const", const="int8",
                         help="quantise the convolutions, with the images of --calibrate")
    smaller.add_argument("--half", dest="kind", action="store_const", const="half",
                         help="store the weights in float16: half the size, the same speed")
    parser.add_argument("--calibrate", metavar="FOLDER", type=whole_path,
                        help="20 or more images of the scenes that the network will see; a third "
                             "of them measures what --int8 or --half loses")
    parser.set_defaults(kind="float32")
    args = parser.parse_args(argv)
    if args.kind == "int8" and args.calibrate is None:
        parser.error("--int8 needs --calibrate FOLDER, images of the scenes it will see")
    if args.kind == "float32" and args.calibrate:
        parser.error("--calibrate is for --int8 or --half; give one of them, or leave it out")
    return args


def main() -> None:
    """Export as the command line says."""
    args = parse_args()
    from prediction.onnx import export_onnx
    export_onnx(args.load_weights_folder, args.output, args.opset, args.kind, args.calibrate)


if __name__ == "__main__":
    run(main)

"""Open a page in the browser that predicts the depth of images and short videos."""
from __future__ import annotations

import argparse

from runtime.arguments import OneLineParser, path, positive
from runtime.downloads import PRETRAINED_MODELS
from runtime.errors import run


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options of a command line (default: of this program)."""
    parser = OneLineParser(description=__doc__)
    add = parser.add_argument
    weights = parser.add_mutually_exclusive_group(required=True)
    weights.add_argument("--model_name", choices=PRETRAINED_MODELS,
                         help="a published model, downloaded on first use")
    weights.add_argument("--load_weights_folder", type=path,
                         help="a folder with the networks encoder and depth, or hf:user/name")
    add("--examples", type=path, metavar="IMAGES", help="an image or a folder of images, of which "
        "the page offers a few to try")
    add("--host", default="127.0.0.1", help="address to listen on (%(default)s: only this machine "
        "sees the page; 0.0.0.0: everybody who reaches this machine)")
    add("--port", type=positive(int), help="port to listen on (default: the first free one from "
        "7860 on)")
    add("--no_cuda", action="store_true", help="use the CPU")
    return parser.parse_args(argv)


def main() -> None:
    """Serve the page as the command line says, until Ctrl-C."""
    args = parse_args()
    from prediction.page import serve_page
    serve_page(args)


if __name__ == "__main__":
    run(main)

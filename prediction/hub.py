"""Share weights: push a weights folder to the Hugging Face Hub, or pull a shared one.

    python -m prediction.hub push ~/tmp/mono/models/weights_19 --repo user/name --out shared
    python -m prediction.hub push shared --repo user/name
    python -m prediction.hub pull user/name --out shared
"""
from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from runtime.arguments import OneLineParser, path, whole_path
from runtime.errors import run
from runtime.files import new_folder
from runtime.hub import (
    PREFIX,
    SHARED_FILES,
    check_repository,
    download_weights,
    upload_folder,
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options of a command line (default: of this program)."""
    parser = OneLineParser(prog="prediction.hub", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    about = "write a weights folder as safetensors with a model card, and upload it"
    push = commands.add_parser("push", help=about, description=about)
    push.add_argument("weights", type=path, help="a weights folder, also one that push made")
    push.add_argument("--repo", required=True, metavar="USER/NAME", help="name of the model")
    push.add_argument("--out", type=whole_path,
                      help="only make this folder, to look at or to edit; nothing is uploaded")
    push.add_argument("--private", action="store_true", help="make a new repository private")
    about = "download a shared model into a folder"
    pull = commands.add_parser("pull", help=about, description=about)
    pull.add_argument("name", metavar="USER/NAME[@REVISION]")
    pull.add_argument("--out", type=whole_path, required=True, help="folder to write")
    return parser.parse_args(argv)


def push(args: argparse.Namespace) -> None:
    """Make the shared folder of --out, or upload one that is made for the purpose.

    Raises:
        DataError: the weights are broken, or the folder cannot be written or uploaded.
    """
    check_repository(args.repo)
    from prediction.model_card import FILL_IN
    from prediction.shared_folder import make_shared_folder
    if args.out:
        make_shared_folder(args.weights, args.repo, args.out)
        print(f"wrote {args.out}; fill in the licence in its README.md, then type: "
              f"python -m prediction.hub push {args.out} --repo {args.repo}")
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "shared")
        make_shared_folder(args.weights, args.repo, folder)
        print(f"uploaded to {upload_folder(folder, args.repo, args.private)}")
        if FILL_IN in (folder / "README.md").read_text(encoding="utf-8"):
            print(f"warning: the licence in README.md is not filled in: look for {FILL_IN}",
                  file=sys.stderr)


def pull(args: argparse.Namespace) -> None:
    """Download a shared model and copy it to --out.

    Raises:
        DataError: the model cannot be downloaded, or the folder has files or cannot be written.
    """
    source = download_weights(args.name.removeprefix(PREFIX))
    with new_folder(args.out) as folder:
        for name in SHARED_FILES:
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)
    print(f"wrote {args.out}; README.md describes the model")


def main() -> None:
    """Push or pull as the command line says."""
    args = parse_args()
    push(args) if args.command == "push" else pull(args)


if __name__ == "__main__":
    run(main)

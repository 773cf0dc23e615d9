"""Train depth from video or stereo pairs: `python train.py -h` shows the flags."""
from options import TRAIN, MonodepthOptions
from runtime.errors import run


def main(argv: list[str] | None = None) -> None:
    """Train with the flags of a command line (default: this program's own)."""
    opts = MonodepthOptions(TRAIN).parse(argv)
    from trainer import Trainer
    Trainer(opts).train()


if __name__ == "__main__":
    run(main)

"""Train Monodepth2: `python train.py --help` shows the flags."""
from options import TRAIN, MonodepthOptions
from runtime.errors import run


def main() -> None:
    """Train as the command line says."""
    opts = MonodepthOptions(TRAIN).parse()
    # not before: it takes seconds (PyTorch), and -h and a wrong flag want their answer at once
    from trainer import Trainer
    Trainer(opts).train()


if __name__ == "__main__":
    run(main)

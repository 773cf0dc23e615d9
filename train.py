"""Train Monodepth2: `python train.py --help` shows the flags."""
from options import TRAIN, MonodepthOptions
from trainer import Trainer
from utils import run


def main() -> None:
    """Train as the command line says."""
    Trainer(MonodepthOptions(TRAIN).parse()).train()


if __name__ == "__main__":
    run(main)

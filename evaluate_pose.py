"""Evaluate odometry: predict the motions of a sequence, print the errors of its trajectory."""
from __future__ import annotations

from argparse import Namespace

from metrics.trajectory import compute_ate, dump_xyz
from options import POSE, MonodepthOptions
from runtime.errors import run

__all__ = ["compute_ate", "dump_xyz", "evaluate"]


def parse(argv: list[str] | None = None) -> Namespace:
    """Parse and check the command line."""
    return MonodepthOptions(POSE).parse(argv)


def evaluate(opt: Namespace) -> None:
    """Predict, measure and write the trajectory of each sequence, as the options say.

    Args:
        opt: flags, as `MonodepthOptions` of any script parses them.
    """
    opts = MonodepthOptions(POSE).complete(opt)
    from evaluation.odometry import evaluate_odometry
    evaluate_odometry(opts)


def main() -> None:
    """Evaluate as the command line says."""
    evaluate(parse())


if __name__ == "__main__":
    run(main)

"""Evaluate depth: predict the test images, compare with ground truth, print the table."""
from __future__ import annotations

from argparse import Namespace

from metrics import STEREO_SCALE_FACTOR, batch_post_process_disparity, compute_errors
from options import DEPTH, MonodepthOptions
from runtime.errors import run

__all__ = ["STEREO_SCALE_FACTOR", "batch_post_process_disparity", "compute_errors", "evaluate"]


def parse(argv: list[str] | None = None) -> Namespace:
    """Parse and check the command line."""
    return MonodepthOptions(DEPTH).parse(argv)


def evaluate(opt: Namespace) -> None:
    """Predict, measure and write, or compare two results or two lists, as the options say.

    Args:
        opt: flags, as `MonodepthOptions` of any script parses them.
    """
    opts = MonodepthOptions(DEPTH).complete(opt)
    if opts.compare:  # two JSON files, which need no PyTorch
        from evaluation.results import compare_results
        print(compare_results(*opts.compare))
    elif opts.check_leak:
        from evaluation.leak import check_leak
        print(check_leak(opts))
    elif opts.corruptions is not None:
        from evaluation.corruptions import evaluate_corruptions
        evaluate_corruptions(opts)
    else:
        from evaluation.depth import evaluate_depth
        evaluate_depth(opts)


def main() -> None:
    """Evaluate as the command line says."""
    evaluate(parse())


if __name__ == "__main__":
    run(main)

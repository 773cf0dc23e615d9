"""Save the gradients of one step: `gradients.py OUT SIZES... -- FLAGS...`, alone or by torchrun.

A SIZE is <batch size>x<accumulated batches> of one process. OUT gets, for each SIZE, a dict from
the parameters' names to their gradients.

The batches are the first lines of the training list in order, without augmentation, and split
evenly between processes and --accumulate; batch norm keeps its statistics, and ties get no noise.
Everything is float64: before training, the warped frames nearly equal the source frames, so that
float32 rounding, which depends on the batch size, would decide the minimum of some pixels.
"""
import sys
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import tiny  # noqa: F401 - adds the small encoder --num_layers 2

from datasets import collate
from options import MonodepthOptions
from runtime.distributed import shut_down_distributed
from trainer import Trainer


def gradients(flags):
    """Train one step on fixed batches; return {parameter: gradient}."""
    torch.manual_seed(0)
    trainer = Trainer(MonodepthOptions().parse(flags))
    trainer.objective.tie_noise = 0
    trainer.augment.eval()
    trainer.network.train()
    for module in trainer.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    dataset, size = trainer.train_loader.dataset, trainer.opts.batch_size
    batches = [[dataset.load(start + i) for i in range(size)]
               for start in range(0, trainer.world.size * trainer.opts.accumulate * size, size)]
    trainer.train_loader = [collate(batches[i]) for i in trainer.world.shard(len(batches))]
    trainer.augment.register_forward_hook(
        lambda _module, _batch, inputs: {key: value.double() for key, value in inputs.items()})
    trainer.augment.train = trainer.network.train = lambda mode: None
    kept = {}
    trainer.optimizer.register_step_pre_hook(lambda *_: kept.update(
        {name: p.grad.clone() for name, p in trainer.model.named_parameters()
         if p.grad is not None}))
    trainer.logs.write = trainer.val = lambda *_: None
    trainer.run_epoch()
    return kept


def main():
    """Save the gradients of every size; only the main process writes."""
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double
    split = sys.argv.index("--")
    out, *sizes = sys.argv[1:split]
    found = {}
    for size in sizes:
        batch_size, accumulate = size.split("x")
        found[size] = gradients([*sys.argv[split + 1:], "--batch_size", batch_size, "--accumulate",
                                 accumulate, "--model_name", size])
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        torch.save(found, out)
    shut_down_distributed()


if __name__ == "__main__":
    main()

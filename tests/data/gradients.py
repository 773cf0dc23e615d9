"""Save the gradients of one step: `gradients.py OUT FLAGS...`, alone or below torchrun.

The batches are the first lines of the training list in their order, unchanged by augmentation and
split evenly between processes and --accumulate; batch norm keeps its statistics, ties no noise.
All is in float64: before training the warped frames are nearly the unmoved ones, and float32's
rounding, which depends on the batch's size, decides some pixels' minimum and their gradient.
"""
import sys
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from datasets import collate
from options import MonodepthOptions
from runtime.distributed import shut_down_distributed
from trainer import Trainer

torch.set_default_dtype(torch.float64)
torch.Tensor.float = torch.Tensor.double
torch.manual_seed(0)
trainer = Trainer(MonodepthOptions().parse(sys.argv[2:]))
trainer.objective.tie_noise = 0
trainer.augment.eval()
trainer.network.train()
for module in trainer.model.modules():
    if isinstance(module, nn.BatchNorm2d):
        module.eval()
dataset, size = trainer.train_loader.dataset, trainer.opts.batch_size
batches = [[dataset[start + i] for i in range(size)]
           for start in range(0, trainer.world.size * trainer.opts.accumulate * size, size)]
own = [batches[i] for i in trainer.world.shard(len(batches))]

kept = {}
trainer.train_loader = [collate(items) for items in own]
trainer.augment.register_forward_hook(
    lambda _module, _batch, inputs: {key: value.double() for key, value in inputs.items()})
trainer.augment.train = trainer.network.train = lambda mode: None
trainer.optimizer.register_step_pre_hook(lambda *_: kept.update(
    {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}))
trainer.logs.write = trainer.val = lambda *_: None
trainer.run_epoch()
if trainer.world.is_main:
    torch.save(kept, sys.argv[1])
shut_down_distributed()

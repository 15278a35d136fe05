"""AdamW over one flat buffer, with the released decay and schedule."""

from collections.abc import Sequence
from typing import Any

import torch
from timm.optim import param_groups_weight_decay
from timm.scheduler import create_scheduler_v2
from torch import Tensor, nn

from idat_tune.config import COOLDOWN_EPOCHS, OptimConfig, RunConfig
from idat_tune.model import AdaptedModel

FUSED = ("cpu", "cuda", "mps")  # devices that have AdamW as one kernel


class FlatAdamW:
    """AdamW over what trains in all models, laid end to end in one buffer with decay and one without.

    The modules' parameters become views of these buffers, so that a step is a handful of operations instead of a dozen
    per parameter. `adamw` is torch's own, on the buffers; `groups` says which parameters lie in each.
    """

    def __init__(self, config: OptimConfig, modules: Sequence[nn.Module]):
        self.groups = decay_groups(config, modules)
        flats = [_flattened(group["params"]) for group in self.groups]
        fused = flats[0].device.type in FUSED
        self.adamw = torch.optim.AdamW(
            [
                {"params": [flat], "weight_decay": group["weight_decay"]}
                for flat, group in zip(flats, self.groups, strict=True)
            ],
            lr=config.lr,
            betas=(0.9, 0.999),
            eps=1e-8,
            fused=fused,
        )
        self._gradients = [torch.zeros_like(flat) for flat in flats]
        for flat, gradient in zip(flats, self._gradients, strict=True):
            flat.grad = gradient

    def step(self, loss: Tensor) -> None:
        """One update down the gradient of a scalar; what it does not depend on has gradient 0."""
        wanted = [parameter for group in self.groups for parameter in group["params"]]
        found = iter(torch.autograd.grad(loss, wanted, materialize_grads=True))
        for group, flat in zip(self.groups, self._gradients, strict=True):
            torch.cat([next(found).reshape(-1) for _ in group["params"]], out=flat)
        self.adamw.step()


def _flattened(parameters: Sequence[nn.Parameter]) -> nn.Parameter:
    """A buffer with all values, of which the parameters become views."""
    flat = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
    pieces = flat.split([parameter.numel() for parameter in parameters])
    for parameter, piece in zip(parameters, pieces, strict=True):
        parameter.data = piece.view_as(parameter)
    return nn.Parameter(flat)


def decay_groups(config: OptimConfig, modules: Sequence[nn.Module]) -> list[dict[str, Any]]:
    """What trains in all modules, as AdamW's groups: without weight decay, and with it.

    Weight decay goes to matrices only: biases get none, nor do class token, position embedding and position bias where
    a whole backbone trains.
    """
    groups = [
        group
        for module in modules
        for group in param_groups_weight_decay(module, config.weight_decay, no_weight_decay_list=_undecayed(module))
    ]
    by_decay: dict[float, list[nn.Parameter]] = {}
    for group in groups:
        by_decay.setdefault(group["weight_decay"], []).extend(group["params"])
    return [{"weight_decay": decay, "params": params} for decay, params in by_decay.items() if params]


def _undecayed(module: nn.Module) -> set[str]:
    """What timm says of the backbone."""
    if not isinstance(module, AdaptedModel):
        return set()
    backbone: Any = module.backbone
    return {f"backbone.{name}" for name in backbone.no_weight_decay()}


def scheduler_for(config: RunConfig, optimizer: torch.optim.Optimizer):  # type: ignore[no-untyped-def]
    """timm's cosine over epochs; linear warm-up replaces its beginning, so epoch 0 runs at `optim.warmup_lr`.

    Under the paper's protocol its cool-down follows, at `optim.min_lr`.
    """
    scheduler, epochs = create_scheduler_v2(
        optimizer,
        sched="cosine",
        num_epochs=config.epochs,
        min_lr=config.optim.min_lr,
        warmup_lr=config.optim.warmup_lr,
        warmup_epochs=config.optim.warmup_epochs,
        cooldown_epochs=COOLDOWN_EPOCHS if config.protocol == "paper" else 0,
    )
    assert epochs == config.total_epochs
    return scheduler

"""AdamW over one flat buffer, with the released decay and schedule."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from timm.optim import param_groups_weight_decay
from timm.scheduler import create_scheduler_v2
from torch import Tensor, nn

from idat_tune.config import COOLDOWN_EPOCHS, OptimConfig, RunConfig
from idat_tune.model import AdaptedModel

FUSED = ("cpu", "cuda", "mps")  # devices that have AdamW as one kernel


class FlatAdamW:
    """AdamW over what trains in all models, laid end to end in one fp32 buffer: first without weight decay, then with.

    The modules' parameters become views of it (of a copy, where they compute in another precision), so that a step is
    a handful of operations instead of a dozen per parameter. `groups` says which parameters get which decay.
    """

    def __init__(
        self,
        config: OptimConfig,
        modules: Sequence[nn.Module],
        dtype: torch.dtype = torch.float32,
        recordable: bool = False,
    ):
        """Take over the parameters of the modules that train; `dtype` is what they compute in.

        `recordable`: whether steps may be recorded as part of a CUDA graph.
        """
        self.groups = decay_groups(config, modules)
        self._parameters = [parameter for group in self.groups for parameter in group["params"]]
        self.flat = nn.Parameter(torch.cat([parameter.detach().float().reshape(-1) for parameter in self._parameters]))
        self._working = self.flat.detach() if dtype is torch.float32 else self.flat.detach().to(dtype)
        for parameter, piece in zip(self._parameters, self._views(self._working), strict=True):
            parameter.data = piece
        device = self.flat.device
        # As tensors, so that a step which is recorded once obeys the values of each trial and epoch.
        self.lr, self.decay = (torch.tensor(value, device=device) for value in (config.lr, config.weight_decay))
        self._decayed = self.flat.detach()[sum(p.numel() for p in self.groups[0]["params"]) :]
        self._adamw = torch.optim.AdamW(
            [self.flat],
            lr=self.lr,
            betas=(0.9, 0.999),
            eps=1e-8,
            weight_decay=0.0,
            fused=device.type in FUSED,
            capturable=recordable and device.type == "cuda",
        )
        self.flat.grad = torch.zeros_like(self.flat)
        self._gradient = self.flat.grad if dtype is torch.float32 else torch.zeros_like(self._working)

    def values(self) -> dict[int, Tensor]:
        """The fp32 value of every parameter, by the parameter's id: views of the buffer, in the parameter's shape."""
        return dict(zip(map(id, self._parameters), self._views(self.flat.detach()), strict=True))

    def step(self, loss: Tensor) -> None:
        """One update down the gradient of a scalar; what it does not depend on has gradient 0."""
        found = torch.autograd.grad(loss, self._parameters, materialize_grads=True)
        torch.cat([gradient.reshape(-1) for gradient in found], out=self._gradient)
        if self.flat.grad is not self._gradient:
            assert self.flat.grad is not None
            self.flat.grad.copy_(self._gradient)
        # Not times (1 - lr * decay), which fp32 rounds to a multiple of 6e-8.
        self._decayed.addcmul_(self._decayed, self.lr * self.decay, value=-1)
        self._adamw.step()
        self._follow()

    def restart(self) -> None:
        """Forget all that was learnt about the gradients, and take up what was written into `values`."""
        for state in self._adamw.state.values():
            for value in state.values():
                value.zero_()
        self._follow()

    @contextmanager
    def undone(self) -> Iterator[None]:
        """Steps within leave no trace."""
        flat, state = self.flat.detach().clone(), copy.deepcopy(self._adamw.state_dict()["state"])
        try:
            yield
        finally:
            self.flat.detach().copy_(flat)
            self.restart()
            for name, value in state.get(0, {}).items():
                self._adamw.state[self.flat][name].copy_(value)

    def _follow(self) -> None:
        if self._working.dtype is not torch.float32:
            self._working.copy_(self.flat.detach())

    def _views(self, flat: Tensor) -> list[Tensor]:
        pieces = flat.split([parameter.numel() for parameter in self._parameters])
        return [piece.view(parameter.shape) for piece, parameter in zip(pieces, self._parameters, strict=True)]


def decay_groups(config: OptimConfig, modules: Sequence[nn.Module]) -> list[dict[str, Any]]:
    """What trains in all modules, as AdamW's two groups: without weight decay, then with it.

    Weight decay goes to matrices only: biases get none, nor do class token, position embedding and position bias where
    a whole backbone trains.
    """
    of_all = [
        param_groups_weight_decay(module, weight_decay=1.0, no_weight_decay_list=_undecayed(module))
        for module in modules
    ]
    by_decay: dict[float, list[nn.Parameter]] = {0.0: [], 1.0: []}
    for group in (group for groups in of_all for group in groups):
        by_decay[group["weight_decay"]].extend(group["params"])
    return [
        {"weight_decay": 0.0, "params": by_decay[0.0]},
        {"weight_decay": config.weight_decay, "params": by_decay[1.0]},
    ]


def _undecayed(module: nn.Module) -> set[str]:
    """What timm says of the backbone."""
    if not isinstance(module, AdaptedModel):
        return set()
    backbone: Any = module.backbone
    return {f"backbone.{name}" for name in backbone.no_weight_decay()}


def learning_rates(config: RunConfig) -> list[float]:
    """The learning rate of every epoch."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=config.optim.lr)
    scheduler = scheduler_for(config, optimizer)
    rates = []
    for epoch in range(config.total_epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        scheduler.step(epoch + 1)
    return rates


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

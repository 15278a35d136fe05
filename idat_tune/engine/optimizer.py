"""AdamW over one flat buffer, with the released decay and schedule."""

# R runs, P numbers that train in one of them

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from timm.optim import param_groups_weight_decay
from timm.scheduler import create_scheduler_v2
from torch import Tensor, nn

from idat_tune.config import COOLDOWN_EPOCHS, OptimConfig, RunConfig
from idat_tune.model import AdaptedModel

FUSED = ("cpu", "cuda", "mps")  # devices that have AdamW as one kernel
# Numbers to whose multiples the room of each parameter is rounded up: CUDA's kernels read 16 bytes at a time where they
# may, and compiled ones take it for granted.
UNIT = {"cuda": 64}


class Learnt(NamedTuple):
    """All that a run has learnt, apart from the buffers that it trains in."""

    values: Tensor  # (3, P) in fp32: the parameters, AdamW's running means of their gradients and of the squares
    steps: Tensor  # () updates so far


class FlatAdamW:
    """AdamW over what trains in all models, laid end to end in one fp32 buffer: first without weight decay, then with.

    The modules' parameters become views of it (of a copy, where they compute in another precision), so that a step is
    a handful of operations instead of a dozen per parameter. `groups` says which parameters get which decay.

    Between parameters there may be room, whose numbers are zero and stay so.

    The buffer has a row for each of `runs` runs, which have a learning rate and a decay of their own. With more than
    one, parameters get them as a first dimension, and the modules must know what to do with that.
    """

    def __init__(
        self,
        config: OptimConfig,
        modules: Sequence[nn.Module],
        dtype: torch.dtype = torch.float32,
        recordable: bool = False,
        runs: int = 1,
    ):
        """Take over the parameters of the modules that train; `dtype` is what they compute in.

        `recordable`: whether steps may be recorded as part of a CUDA graph.
        """
        self.groups = decay_groups(config, modules)
        self._parameters = [parameter for group in self.groups for parameter in group["params"]]
        self._shapes = [parameter.shape for parameter in self._parameters]
        unit = UNIT.get(self._parameters[0].device.type, 1)
        self._gaps = [-shape.numel() % unit for shape in self._shapes]
        undecayed = sum(self._rooms()[: len(self.groups[0]["params"])])
        with_gaps = zip(self._parameters, self._gaps, strict=True)
        one_P = torch.cat([F.pad(p.detach().float().flatten(), (0, gap)) for p, gap in with_gaps])
        self._learnt_3RP = one_P.new_zeros(3, runs, len(one_P))
        self.flat_RP = self._learnt_3RP[0].copy_(one_P)
        self._decayed_RP = self.flat_RP[:, undecayed:]
        self._working_RP = self.flat_RP if dtype is torch.float32 else self.flat_RP.to(dtype)
        leading = () if runs == 1 else (runs,)
        for parameter, shape, piece in zip(self._parameters, self._shapes, self._pieces(self._working_RP), strict=True):
            parameter.data = piece.view(*leading, *shape)
        # As tensors, so that a step which is recorded once obeys the values of each trial and epoch.
        self.lr_R, self.decay_R = (one_P.new_full((runs,), value) for value in (config.lr, config.weight_decay))
        self._steps_R = one_P.new_zeros(runs)
        self._rows = [nn.Parameter(row_P) for row_P in self.flat_RP]
        self._adamw = self._make_adamw(recordable and one_P.device.type == "cuda")
        gradient_RP = torch.zeros_like(self.flat_RP)
        for row_P, gradient_P in zip(self._rows, gradient_RP, strict=True):
            row_P.grad = gradient_P
        self._gradient_RP = gradient_RP
        self._found_RP = gradient_RP if dtype is torch.float32 else torch.zeros_like(self._working_RP)
        self._nothing_RU = self._found_RP.new_zeros(runs, unit)

    def _make_adamw(self, capturable: bool) -> torch.optim.AdamW:
        """A group for every run, as the fused kernel takes a single learning rate; its state lies in our rows."""
        adamw = torch.optim.AdamW(
            [{"params": [row_P], "lr": lr} for row_P, lr in zip(self._rows, self.lr_R, strict=True)],
            betas=(0.9, 0.999),
            eps=1e-8,
            weight_decay=0.0,
            fused=self.flat_RP.device.type in FUSED,
            capturable=capturable,
        )
        for run, row_P in enumerate(self._rows):
            first_P, second_P = self._learnt_3RP[1:, run]
            adamw.state[row_P] = {"step": self._steps_R[run], "exp_avg": first_P, "exp_avg_sq": second_P}
        return adamw

    def step(self, loss: Tensor) -> None:
        """One update down the gradient of a scalar; what it does not depend on has gradient 0."""
        found = torch.autograd.grad(loss, self._parameters, materialize_grads=True)
        torch.cat(self._side_by_side(found), dim=1, out=self._found_RP)
        if self._gradient_RP is not self._found_RP:
            self._gradient_RP.copy_(self._found_RP)
        # Not times (1 - lr * decay), which fp32 rounds to a multiple of 6e-8.
        self._decayed_RP.addcmul_(self._decayed_RP, (self.lr_R * self.decay_R)[:, None], value=-1)
        self._adamw.step()
        self._follow()

    def nothing_learnt(self) -> Learnt:
        """Of a run before its first step, with all parameters zero; to be written through `places`."""
        return Learnt(torch.zeros_like(self._learnt_3RP[:, 0]), torch.zeros_like(self._steps_R[0]))

    def places(self, learnt: Learnt) -> dict[int, Tensor]:
        """Where the value of every parameter is in it, by the parameter's id: views of the shape it has in one run."""
        pieces = zip(self._parameters, self._shapes, self._pieces(learnt.values[0]), strict=True)
        return {id(parameter): piece.view(shape) for parameter, shape, piece in pieces}

    def load(self, run: int, learnt: Learnt) -> None:
        """Train on from there in one of the rows."""
        self._learnt_3RP[:, run].copy_(learnt.values)
        self._steps_R[run].copy_(learnt.steps)
        if self._working_RP is not self.flat_RP:
            self._working_RP[run].copy_(self.flat_RP[run])

    def save(self, run: int, learnt: Learnt) -> None:
        """Write what was learnt in one of the rows."""
        learnt.values.copy_(self._learnt_3RP[:, run])
        learnt.steps.copy_(self._steps_R[run])

    @contextmanager
    def undone(self) -> Iterator[None]:
        """Steps within leave no trace."""
        learnt_3RP, steps_R = self._learnt_3RP.clone(), self._steps_R.clone()
        try:
            yield
        finally:
            self._learnt_3RP.copy_(learnt_3RP)
            self._steps_R.copy_(steps_R)
            self._follow()

    def _follow(self) -> None:
        if self._working_RP is not self.flat_RP:
            self._working_RP.copy_(self.flat_RP)

    def _rooms(self) -> list[int]:
        return [shape.numel() + gap for shape, gap in zip(self._shapes, self._gaps, strict=True)]

    def _side_by_side(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """Each gradient as (R, numbers), and behind it its gap."""
        pieces = []
        for gradient, gap in zip(gradients, self._gaps, strict=True):
            pieces.append(gradient.reshape(len(self._rows), -1))
            if gap:
                pieces.append(self._nothing_RU[:, :gap])
        return pieces

    def _pieces(self, flat: Tensor) -> Sequence[Tensor]:
        """Each parameter's numbers in something flat."""
        rooms = flat.split(self._rooms(), dim=-1)
        return [room.narrow(-1, 0, shape.numel()) for room, shape in zip(rooms, self._shapes, strict=True)]


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

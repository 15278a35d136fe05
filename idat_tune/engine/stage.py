"""Training and validation steps on buffers that never move: recorded once for all trials of one shape."""

# B batch, C classes, P drop-paths, S steps of an epoch

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn

from idat_tune import adapters
from idat_tune.config import RunConfig
from idat_tune.distill import distillation
from idat_tune.engine import padding
from idat_tune.engine.compiling import compile_blocks
from idat_tune.engine.devices import bf16, choose_attention
from idat_tune.engine.eager import EVAL_BATCH, LOSSES, joint, rows_of
from idat_tune.engine.optimizer import FlatAdamW
from idat_tune.engine.recording import recorded
from idat_tune.engine.resident import Resident
from idat_tune.model import AdaptedModel

# What a trial may change without another recording: a stage reads it from tensors, or it is not the stage's business.
FREE = {
    "adapter.scale": 1.0,
    "adapter.init": "trunc_normal",
    "distill.temperature": 1.0,
    "distill.weight": 1.0,
    "distill.stop_epoch": 0,
    "optim.lr": 1.0,
    "optim.weight_decay": 0.0,
    "optim.warmup_epochs": 0,
    "optim.warmup_lr": 0.0,
    "optim.min_lr": 0.0,
    "epochs": 1,
    "seed": 0,
    "protocol": "clean",
}


def shape_of(config: RunConfig, narrowest: int) -> RunConfig:
    """What a stage is made for: equal for all configs that can share one, on a block of that width or wider."""
    return config.updated({**FREE, "adapter.hidden_dim": padding.padded(config, narrowest)})


class MaskedPath(nn.Module):
    """DropPath whose mask is given: (B,), 0 where the branch is dropped, else 1 / keep."""

    def __init__(self, keep: float):
        super().__init__()
        self.keep = keep
        self.mask_B: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """The branch, dropped for some images of the batch while training."""
        if not self.training:
            return x
        assert self.mask_B is not None
        return x * self.mask_B.view(-1, *[1] * (x.ndim - 1))


class Stage:
    """Models, optimizer and steps of one shape. A trial takes it with its own values and leaves it to the next."""

    def __init__(self, shape: RunConfig, resident: Resident, classes: int, low: torch.dtype):
        self.resident, self.shape, self._low = resident, shape, low
        device = resident.device
        student, teacher = resident.build_pair(shape, classes, low)
        self.models = [student] if teacher is None else [student, teacher]
        for model in self.models:
            choose_attention(model, low is torch.bfloat16, device)
        splits = [resident.split(model, shape, whole=False) for model in self.models]
        # After the cut, which is where something random begins.
        self._paths = [path for model in self.models for path in _masked(model)]
        if resident.compiled:
            for model in self.models:
                compile_blocks(model)
        self._suffixes = [split.suffix for split in splits]
        pairs = zip((shape.student, shape.teacher), splits, strict=False)
        self._parts = [resident.prefix(name, split, shape) for name, split in pairs]
        self.optimizer = FlatAdamW(shape.optim, self.models, low, recordable=True)
        self._make_buffers(device)
        self._steps: dict[str, Callable[[], None]] = {}
        self._pool = resident.graph_pool
        self._trial: Callable[[], Staged | None] = lambda: None

    def _make_buffers(self, device: torch.device) -> None:
        batch = self.shape.batch_size
        steps = len(self.resident.labels) // batch
        self._order = torch.zeros(steps, batch, dtype=torch.int64, device=device)
        self._chance = torch.zeros(steps, len(self._paths), batch, device=device)
        self._keep = torch.tensor([path.keep for path in self._paths], device=device).view(-1, 1)
        self._at = torch.zeros(1, dtype=torch.int64, device=device)
        self._totals = torch.zeros(LOSSES, device=device)
        self._rows = torch.zeros(EVAL_BATCH, dtype=torch.int64, device=device)
        self._counted = torch.zeros(EVAL_BATCH, device=device)
        self._tallies = torch.zeros(len(self.models), 2, device=device)
        self._weight, self._temperature, self._scale = (torch.ones((), device=device) for _ in range(3))
        self._distill = self.shape.distill.model_copy(update={"temperature": self._temperature})
        for model in self.models:
            adapters.set_scale(model.backbone, self._scale)
        self._generator = torch.Generator(device)

    def take(self, trial: "Staged", config: RunConfig, fresh: Sequence[AdaptedModel]) -> None:
        """Start a trial: its settings, and the initial values of its own models."""
        before = self._trial()
        if before is not None:
            before.settled()
        self._trial = weakref.ref(trial)
        values = self.optimizer.values()
        with torch.no_grad():
            for padded, model in zip(self.models, fresh, strict=True):
                initial = model.trainable()
                for name, parameter in padded.trainable().items():
                    padding.write(initial[name], values[id(parameter)])
        self.optimizer.restart()
        self.optimizer.decay.fill_(config.optim.weight_decay)
        self._temperature.fill_(config.distill.temperature)
        self._scale.fill_(config.adapter.scale)
        self._generator.manual_seed(config.seed)

    def give(self, fresh: Sequence[AdaptedModel]) -> None:
        """Write the trained values into the trial's own models."""
        values = self.optimizer.values()
        with torch.no_grad():
            for padded, model in zip(self.models, fresh, strict=True):
                own = model.trainable()
                for name, parameter in padded.trainable().items():
                    padding.read(values[id(parameter)], own[name])

    def train(self, order: Tensor, lr: float, weight: float) -> Tensor:
        """As `Eager.train`; drop-path has a generator of its own, on the device, seeded with the trial's seed."""
        step = self._recorded("distilled" if weight > 0 else "apart")
        self._order[: len(order)].copy_(order)
        self._chance.uniform_(generator=self._generator)
        self._at.zero_()
        self._totals.zero_()
        self.optimizer.lr.fill_(lr)
        self._weight.fill_(weight)
        for _ in range(len(order)):
            step()
        return self._totals.clone()

    def validate(self, rows: Tensor) -> list[Tensor]:
        """As `Eager.validate`."""
        evaluate = self._recorded("evaluated")
        self._tallies.zero_()
        for some in rows.split(EVAL_BATCH):
            self._rows.zero_()
            self._rows[: len(some)].copy_(some)
            self._counted.zero_()
            self._counted[: len(some)].fill_(1)
            evaluate()
        return list(self._tallies.clone())

    def _recorded(self, name: str) -> Callable[[], None]:
        if name not in self._steps:
            function = {"distilled": self._distilled, "apart": self._apart, "evaluated": self._evaluate}[name]
            self._steps[name] = recorded(function, self.resident.device, self._pool, self._undone)
        return self._steps[name]

    @contextmanager
    def _undone(self) -> Iterator[None]:
        changed = [self._at, self._totals, self._tallies]
        before = [value.clone() for value in changed]
        try:
            with self.optimizer.undone():
                yield
        finally:
            for value, old in zip(changed, before, strict=True):
                value.copy_(old)

    def _distilled(self) -> None:
        self._step(distilled=True)

    def _apart(self) -> None:
        self._step(distilled=False)

    def _step(self, distilled: bool) -> None:
        """One update; everything that differs from step to step is looked up by the step's number, on the device."""
        index_B = self._order.index_select(0, self._at)[0]
        if self._paths:
            kept_PB = self._chance.index_select(0, self._at)[0] < self._keep
            for path, mask_B in zip(self._paths, (kept_PB / self._keep).to(self._low).unbind(), strict=True):
                path.mask_B = mask_B
        for model in self.models:
            model.train()
        logits = self._logits(index_B)
        distill = distillation(logits[0], logits[1], self._distill) if distilled else None
        losses = joint(logits, self.resident.labels.index_select(0, index_B), distill, self._weight)
        self.optimizer.step(losses[0])
        self._totals += losses.detach()
        self._at += 1

    def _logits(self, index: Tensor) -> list[Tensor]:
        batches = rows_of(self._parts, index)
        side = self.resident.side
        if side is None or len(batches) == 1:
            return [suffix(parts).float() for suffix, parts in zip(self._suffixes, batches, strict=True)]
        main = torch.cuda.current_stream(side.device)
        side.wait_stream(main)
        with torch.cuda.stream(side):  # and so its backward pass, which autograd computes where the forward one was
            teacher_BC = self._suffixes[1](batches[1]).float()
        student_BC = self._suffixes[0](batches[0]).float()
        main.wait_stream(side)
        return [student_BC, teacher_BC]

    def _evaluate(self) -> None:
        for model in self.models:
            model.eval()
        labels_B = self.resident.labels.index_select(0, self._rows)
        with torch.no_grad():
            for place, logits_BC in zip(self._tallies, self._logits(self._rows), strict=True):
                losses_B = F.cross_entropy(logits_BC, labels_B, reduction="none")
                right_B = (logits_BC.argmax(dim=-1) == labels_B).float()
                place += torch.stack([(right_B * self._counted).sum(), (losses_B * self._counted).sum()])


def _masked(model: AdaptedModel) -> list[MaskedPath]:
    """Replace every DropPath of a model by one whose mask is given; the new ones, first to last."""
    found = []
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, DropPath):
                found.append(MaskedPath(1 - child.drop_prob))
                setattr(parent, name, found[-1])
    return found


class Staged:
    """One trial on a stage; what `Eager` is without one."""

    def __init__(self, config: RunConfig, resident: Resident, classes: int):
        low = torch.bfloat16 if bf16(config, resident.device) else torch.float32
        student, teacher = resident.build_pair(config, classes, low)
        self._fresh = [student] if teacher is None else [student, teacher]
        shape = shape_of(config, min(width for model in self._fresh for width in model.block_widths()))
        self._stage: Stage = resident.stage((shape, classes, low), lambda: Stage(shape, resident, classes, low))
        self._behind = False  # whether the stage has trained on since the models got its values
        self._stage.take(self, config, self._fresh)

    @property
    def student(self) -> AdaptedModel:
        """The student, as trained so far."""
        return self.settled()[0]

    @property
    def teacher(self) -> AdaptedModel | None:
        """The teacher, as trained so far, if there is one."""
        return self.settled()[1] if len(self._fresh) == 2 else None

    def settled(self) -> Sequence[AdaptedModel]:
        """The trial's own models, with all that was trained so far."""
        if self._behind:
            self._stage.give(self._fresh)
            self._behind = False
        return self._fresh

    def train(self, order: Tensor, lr: float, weight: float) -> Tensor:
        """As `Eager.train`."""
        self._behind = True
        return self._stage.train(order, lr, weight)

    def validate(self, rows: Tensor) -> list[Tensor]:
        """As `Eager.validate`."""
        return self._stage.validate(rows)

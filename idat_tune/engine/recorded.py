"""A trial on recordings, alone or as one with others of its shape; what `Eager` is without them."""

# R runs, S steps of an epoch, B batch, N images

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from idat_tune.config import RunConfig
from idat_tune.engine import padding
from idat_tune.engine.devices import bf16
from idat_tune.engine.recording import Epoch, Recording, Standing
from idat_tune.engine.resident import Resident
from idat_tune.kinds import KINDS
from idat_tune.model import AdaptedModel

# What a trial may change without another recording: it is read from tensors, or is not a recording's business.
FREE = {
    "adapter.scale": 1.0,
    "adapter.init": "trunc_normal",
    "distill.temperature": 1.0,
    "distill.weight": 1.0,
    "distill.ramp_epochs": 0,
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
    """What a recording is made for: equal for all configs that can share one, on a block of that width or wider."""
    return config.updated({**FREE, "adapter.hidden_dim": padding.padded(config, narrowest)})


class Recorded:
    """One trial on a recording; what `Eager` is without one."""

    undoes = True  # as `Eager`

    def __init__(self, config: RunConfig, resident: Resident, classes: int):
        self._resident, self._classes = resident, classes
        self._low = torch.bfloat16 if bf16(config, resident.device) else torch.float32
        student, teacher = resident.build_pair(config, classes, self._low)
        self._fresh = [student] if teacher is None else [student, teacher]
        self._shape = shape_of(config, min(width for model in self._fresh for width in model.block_widths()))
        # Apart from the seed of shuffling: equal ones would draw the same numbers.
        generator = torch.Generator(resident.device).manual_seed(2**41 + config.seed)
        self.standing = Standing(config, self._recording_of(1).begun(self._fresh), generator)
        self.working = 0  # as of `Eager`
        self._behind = False  # whether the trial has learnt more since its models got their values

    def _recording_of(self, runs: int) -> Recording:
        """The worker's, who may let go of it at any time; so no trial keeps it."""
        shape, resident, classes, low = self._shape, self._resident, self._classes, self._low
        return resident.recording((shape, classes, low, runs), lambda: Recording(shape, resident, classes, low, runs))

    @property
    def student(self) -> AdaptedModel:
        """The student, as trained so far."""
        return self._settled()[0]

    @property
    def teacher(self) -> AdaptedModel | None:
        """The teacher, as trained so far, if there is one."""
        return self._settled()[1] if len(self._fresh) == 2 else None

    def _settled(self) -> Sequence[AdaptedModel]:
        """The trial's own models, with all that was trained so far."""
        if self._behind:
            self._recording_of(1).give(self.standing.learnt, self._fresh)
            self._behind = False
        return self._fresh

    def train(self, order: Tensor, lr: float, weight: float, rise: float = 0.0) -> Tensor:
        """As `Eager.train`."""
        return self.train_together([self], [Epoch(order, lr, weight, rise)])[0]

    def validate(self, rows: Tensor) -> Tensor:
        """As `Eager.validate`."""
        return self.validate_together([self], [rows])[0]

    @property
    def stacks_with(self) -> Hashable:
        """Equal for trials that may train as one; None where a trial may not, as more trains than linear layers."""
        stacks = KINDS[self._shape.adapter.kind].stacks and not self._shape.gist.token
        return (self._shape, self._classes, self._low) if stacks else None

    @staticmethod
    def train_together(trials: Sequence["Recorded"], epochs: Sequence[Epoch]) -> Tensor:
        """An epoch of trials that stack, of equally many steps and all with distillation or all without: (R, 4)."""
        for trial in trials:
            trial._behind = True
        recording = trials[0]._recording_of(len(trials))
        losses_R4 = recording.train([trial.standing for trial in trials], epochs)
        for trial in trials:
            trial.working = max(trial.working, recording.working)
        return losses_R4

    @staticmethod
    def validate_together(trials: Sequence["Recorded"], rows_RN: Sequence[Tensor]) -> Tensor:
        """As `validate`, of trials that stack on equally many images: (R, models, 2)."""
        return trials[0]._recording_of(len(trials)).validate([trial.standing for trial in trials], rows_RN)

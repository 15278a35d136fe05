"""Training and validation steps on buffers that never move: recorded once for all trials of one shape."""

# R runs, B batch, C classes, P drop-paths, S steps of an epoch, E images of a validation step, M models

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn

from idat_tune import adapters
from idat_tune.config import RunConfig
from idat_tune.distill import distillation, of_class
from idat_tune.engine import padding
from idat_tune.engine.devices import choose_attention, repeating
from idat_tune.engine.eager import EVAL_BATCH, LOSSES, joint, lambdas, rows_of
from idat_tune.engine.optimizer import FlatAdamW, Learnt
from idat_tune.engine.resident import Resident
from idat_tune.engine.stacked import stack
from idat_tune.model import AdaptedModel


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


class Epoch(NamedTuple):
    """What one run does in one epoch."""

    order: Tensor  # (S, B) rows of the resident images, a batch per step
    lr: float
    weight: float  # lambda at the first step
    rise: float = 0.0  # by how much it grows over the epoch, as much with each step

    @property
    def distilled(self) -> bool:
        """Whether distillation is computed."""
        return self.weight + self.rise > 0


@dataclass(frozen=True)
class Standing:
    """Where a run stands: all that a recording needs to go on with it."""

    config: RunConfig
    learnt: Learnt
    generator: torch.Generator  # of drop-path, on the device


class Recording:
    """Models, optimizer and steps of one shape, for so many runs at once; none of them leaves anything in it.

    Several runs are one batch, in which their images lie one behind the other: what is frozen sees no difference, what
    trains has the values of every run, and no number of one run reaches another.
    """

    def __init__(self, shape: RunConfig, resident: Resident, classes: int, low: torch.dtype, runs: int = 1):
        self.resident, self.shape, self.runs, self._low = resident, shape, runs, low
        device = resident.device
        student, teacher = resident.build_pair(shape, classes, low)
        self.models = [student] if teacher is None else [student, teacher]
        for model in self.models:
            choose_attention(model, low is torch.bfloat16, device)
        pairs = zip((shape.student, shape.teacher), self.models, strict=False)
        cuts = [resident.cut(name, model, shape) for name, model in pairs]
        self._suffixes, self.parts = [split.suffix for split, _ in cuts], [parts for _, parts in cuts]
        # After the cut, which is where something random begins.
        self._paths = [path for model in self.models for path in _masked(model)]
        self.optimizer = FlatAdamW(shape.optim, self.models, low, recordable=True, runs=runs)
        for model in self.models if runs > 1 else []:
            stack(model, runs)
        self._make_buffers(device)
        self._steps: dict[str, Callable[[], None]] = {}
        # Bytes that its recordings use while they are replayed: torch counts them as free then.
        self.working = 0

    def _make_buffers(self, device: torch.device) -> None:
        runs, batch = self.runs, self.shape.batch_size
        steps = len(self.resident.labels) // batch
        self._order_RSB = torch.zeros(runs, steps, batch, dtype=torch.int64, device=device)
        self._chance_RSPB = torch.zeros(runs, steps, len(self._paths), batch, device=device)
        self._keep_P1 = torch.tensor([path.keep for path in self._paths], device=device).view(-1, 1)
        self._at = torch.zeros(1, dtype=torch.int64, device=device)
        self._totals_R4 = torch.zeros(runs, LOSSES, device=device)
        self._rows_RE = torch.zeros(runs, EVAL_BATCH, dtype=torch.int64, device=device)
        self._counted_RE = torch.zeros(runs, EVAL_BATCH, device=device)
        self._seen = EVAL_BATCH  # images of a validation step
        self._tallies_RM2 = torch.zeros(runs, len(self.models), 2, device=device)
        self._weight_RS = torch.ones(runs, steps, device=device)
        self._temperature_R, self._scale_R = (torch.ones(runs, device=device) for _ in range(2))
        for model in self.models:
            adapters.set_scale(model.backbone, self._scale_R if runs > 1 else self._scale_R[0])

    def begun(self, fresh: Sequence[AdaptedModel]) -> Learnt:
        """What a run has learnt that begins with the initial values of its own models."""
        learnt = self.optimizer.nothing_learnt()
        for value, place in self._pairs(learnt, fresh):
            padding.write(value, place)
        return learnt

    def give(self, learnt: Learnt, fresh: Sequence[AdaptedModel]) -> None:
        """Write trained values into a run's own models."""
        for value, place in self._pairs(learnt, fresh):
            padding.read(place, value)

    def _pairs(self, learnt: Learnt, fresh: Sequence[AdaptedModel]) -> list[tuple[Tensor, Tensor]]:
        """The values of a run's own models, each with its place in what the run has learnt."""
        places = self.optimizer.places(learnt)
        return [
            (own.trainable()[name].detach(), places[id(parameter)])
            for own, padded in zip(fresh, self.models, strict=True)
            for name, parameter in padded.trainable().items()
        ]

    def train(self, runs: Sequence[Standing], epochs: Sequence[Epoch]) -> Tensor:
        """An epoch of every run, as `Eager.train`: summed losses (R, 4). Where it fails, nothing was learnt."""
        drawn = [standing.generator.get_state() for standing in runs]
        try:
            with repeating(self.resident.device):
                self._train(runs, epochs)
        except BaseException:
            for standing, state in zip(runs, drawn, strict=True):
                standing.generator.set_state(state)
            raise
        for run, standing in enumerate(runs):
            self.optimizer.save(run, standing.learnt)
        return self._totals_R4.clone()

    def _train(self, runs: Sequence[Standing], epochs: Sequence[Epoch]) -> None:
        self._set_mode(training=True)
        step = self._recorded("distilled" if epochs[0].distilled else "apart")
        steps = len(epochs[0].order)
        for run, (standing, epoch) in enumerate(zip(runs, epochs, strict=True)):
            self._load(run, standing)
            self._order_RSB[run, :steps].copy_(epoch.order)
            self._chance_RSPB[run].uniform_(generator=standing.generator)
            self.optimizer.lr_R[run].fill_(epoch.lr)
            self._weight_RS[run, :steps].copy_(lambdas(epoch.weight, epoch.rise, steps, self.resident.device))
        self._at.zero_()
        self._totals_R4.zero_()
        for _ in range(steps):
            step()

    def validate(self, runs: Sequence[Standing], rows_RN: Sequence[Tensor]) -> Tensor:
        """As `Eager.validate`, of every run on as many images of its own: (R, models, 2)."""
        with repeating(self.resident.device):
            return self._validate(runs, rows_RN)

    def _validate(self, runs: Sequence[Standing], rows_RN: Sequence[Tensor]) -> Tensor:
        self._set_mode(training=False)
        evaluate = self._recorded("evaluated")
        for run, standing in enumerate(runs):
            self._load(run, standing)
        self._tallies_RM2.zero_()
        for some_RE in torch.stack(tuple(rows_RN)).split(EVAL_BATCH, dim=1):
            count = some_RE.shape[1]
            self._seen = EVAL_BATCH if self._fixed else count
            self._rows_RE.zero_()
            self._rows_RE[:, :count].copy_(some_RE)
            self._counted_RE.zero_()
            self._counted_RE[:, :count].fill_(1)
            evaluate()
        return self._tallies_RM2.clone()

    @property
    def _fixed(self) -> bool:
        """Whether a step always sees as many images: one that is recorded is so for their number."""
        return self.resident.device.type == "cuda"

    def _load(self, run: int, standing: Standing) -> None:
        """Take up a run where it stands, with its settings."""
        self.optimizer.load(run, standing.learnt)
        self.optimizer.decay_R[run].fill_(standing.config.optim.weight_decay)
        self._temperature_R[run].fill_(standing.config.distill.temperature)
        self._scale_R[run].fill_(standing.config.adapter.scale)

    def _set_mode(self, training: bool) -> None:
        """Not in a step, where it would take longer than some of what is computed."""
        for model in self.models:
            model.train(training)

    def _recorded(self, name: str) -> Callable[[], None]:
        if name not in self._steps:
            function = {"distilled": self._distilled, "apart": self._apart, "evaluated": self._evaluate}[name]
            self._steps[name] = self._measured(lambda: self.resident.recorder.recorded(function, self._undone))
        return self._steps[name]

    def _measured(self, record: Callable[[], Callable[[], None]]) -> Callable[[], None]:
        """What `record` gives; what it takes of a GPU beyond what was allocated before is what its replays take."""
        device = self.resident.device
        if device.type != "cuda":
            return record()
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step = record()
        self.working = max(self.working, torch.cuda.max_memory_allocated(device) - before)
        return step

    @contextmanager
    def _undone(self) -> Iterator[None]:
        changed = [self._at, self._totals_R4, self._tallies_RM2]
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
        index_RB = self._order_RSB.index_select(1, self._at)[:, 0]
        if self._paths:
            kept_RPB = self._chance_RSPB.index_select(1, self._at)[:, 0] < self._keep_P1
            masks_RPB = (kept_RPB / self._keep_P1).to(self._low)
            for path, mask_RB in zip(self._paths, masks_RPB.unbind(1), strict=True):
                path.mask_B = mask_RB.flatten()
        logits = self._logits(index_RB.flatten())
        losses_R4 = self._losses(logits, self.resident.labels[index_RB], distilled)
        self.optimizer.step(losses_R4[:, 0].sum())
        self._totals_R4 += losses_R4.detach()
        # Around, as recording takes more steps than an epoch may have.
        self._at.add_(1).remainder_(self._order_RSB.shape[1])

    def _losses(self, logits: Sequence[Tensor], labels_RB: Tensor, distilled: bool) -> Tensor:
        """(R, 4), as `joint`."""

        def of_one(labels_B: Tensor, weight: Tensor, temperature: Tensor, *logits: Tensor) -> Tensor:
            asked = self.shape.distill.model_copy(update={"temperature": temperature})
            distill = distillation(of_class(logits[0]), of_class(logits[1]), asked) if distilled else None
            return joint(logits, labels_B, self.shape, distill, weight)

        each = (
            labels_RB,
            self._weight_RS.index_select(1, self._at)[:, 0],
            self._temperature_R,
            *(of_all.unflatten(0, labels_RB.shape) for of_all in logits),
        )
        return torch.vmap(of_one)(*each) if self.runs > 1 else of_one(*(of_all[0] for of_all in each))[None]

    def _logits(self, index: Tensor) -> list[Tensor]:
        batches = rows_of(self.parts, index)
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
        rows, counted_RE = self._rows_RE[:, : self._seen].flatten(), self._counted_RE[:, : self._seen]
        labels = self.resident.labels.index_select(0, rows)
        with torch.no_grad():
            for of_model, logits in enumerate(self._logits(rows)):
                losses = F.cross_entropy(logits, labels, reduction="none")
                right = (logits.argmax(dim=-1) == labels).float()
                both_2RE = torch.stack([right, losses]).view(2, *counted_RE.shape)
                self._tallies_RM2[:, of_model] += (both_2RE * counted_RE).sum(dim=-1).T


def _masked(model: AdaptedModel) -> list[MaskedPath]:
    """Replace every DropPath of a model by one whose mask is given; the new ones, first to last."""
    found = []
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, DropPath):
                found.append(MaskedPath(1 - child.drop_prob))
                setattr(parent, name, found[-1])
    return found

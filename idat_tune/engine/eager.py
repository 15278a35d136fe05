"""A run step by step, operation by operation: for every device, kind and backbone."""

# B batch, C classes

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from idat_tune.adapters import noises_of
from idat_tune.config import RunConfig
from idat_tune.distill import Bridge, distillation, of_class, own_loss
from idat_tune.engine.consistency import Consistency
from idat_tune.engine.cut import Parts
from idat_tune.engine.devices import autocast, bf16, choose_attention, default_generator, repeating
from idat_tune.engine.optimizer import FlatAdamW
from idat_tune.engine.resident import Resident
from idat_tune.model import AdaptedModel

EVAL_BATCH = 200
LOSSES = 4  # what a step reports: the loss, the student's cross-entropy, the teacher's, the distillation loss


class Eager:
    """Student, teacher and optimizer of one run, on images that are resident."""

    undoes = False  # whether an epoch that fails leaves no trace
    working = 0  # bytes that its steps use beyond what torch counts

    def __init__(self, config: RunConfig, resident: Resident, classes: int):
        self.config = config
        self.resident = resident
        self.student, self.teacher = resident.build_pair(config, classes)
        self.bridge = self._bridge()
        for model in self.models():
            choose_attention(model, bf16(config, resident.device), resident.device)
        pairs = zip((config.student, config.teacher), self.models(), strict=False)
        cuts = [resident.cut(name, model, config, whole=self.bridge is not None) for name, model in pairs]
        self.splits, self.parts = [split for split, _ in cuts], [parts for _, parts in cuts]
        self.optimizer = FlatAdamW(config.optim, [*self.models(), *([self.bridge] if self.bridge else [])])
        self.consistency = (
            Consistency(config.pace, len(resident.labels), resident.device) if config.pace.weight else None
        )
        # Apart from drop-path, as two passes share its masks and not their noise.
        generator = torch.Generator(resident.device).manual_seed(2**42 + config.seed)
        for model in self.models():
            for noise in noises_of(model.backbone):
                noise.generator = generator
        self._drawn = torch.Generator(resident.device).manual_seed(config.seed).get_state()

    @property
    def stacks_with(self) -> None:
        """Nothing: such a run is by itself."""

    def models(self) -> list[AdaptedModel]:
        """The student, and the teacher if there is one."""
        return [self.student] if self.teacher is None else [self.student, self.teacher]

    def _bridge(self) -> Bridge | None:
        """What compares features, where the config asks for that; it trains along and is left behind."""
        if self.teacher is None or self.config.distill.loss != "feature":
            return None
        # Apart from the seeds of student and teacher, 2 s and 2 s + 1.
        generator = torch.Generator().manual_seed(2**40 + self.config.seed)
        bridge = Bridge(self.student.block_widths(), self.teacher.block_widths(), generator)
        return bridge.to(self.resident.device)

    def train(self, order: Tensor, lr: float, weight: float, rise: float = 0.0) -> Tensor:
        """Updates on rows (steps, B) of the images; their summed losses (4,), on the device: nothing waits for it.

        Lambda is `weight` at the first step and grows by `rise` over all; where both are 0 nothing is distilled.
        """
        for model in self.models():
            model.train()
        self.optimizer.lr_R.fill_(lr)
        totals = torch.zeros(LOSSES, device=self.resident.device)
        with self._own_randomness(), repeating(self.resident.device):
            for index, now in zip(order, lambdas(weight, rise, len(order), self.resident.device), strict=True):
                totals += self._step(index, now, weight + rise > 0)
        return totals

    @contextmanager
    def _own_randomness(self) -> Iterator[None]:
        """Drop-path draws from the device's generator, as may other runs: this one goes on where it stopped."""
        generator = default_generator(self.resident.device)
        before = generator.get_state()
        generator.set_state(self._drawn)
        try:
            yield
        finally:
            self._drawn = generator.get_state()
            generator.set_state(before)

    def _step(self, index: Tensor, weight: Tensor, distilled: bool) -> Tensor:
        labels_B = self.resident.labels[index]
        batches = rows_of(self.parts, index)
        drawn = default_generator(self.resident.device).get_state()
        with autocast(self.config, self.resident.device):
            if distilled:
                logits, distill = self._distilled(batches)
            else:
                logits, distill = self._logits(batches), None
            apart = self.consistency(logits, index, lambda: self._again(batches, drawn)) if self.consistency else []
            losses = joint(logits, labels_B, self.config, distill, weight, apart)
        self.optimizer.step(losses[0])
        return losses.detach()

    def _logits(self, batches: list[Parts]) -> list[Tensor]:
        return [split.suffix(parts).float() for split, parts in zip(self.splits, batches, strict=True)]

    def _again(self, batches: list[Parts], drawn: Tensor) -> list[Tensor]:
        """The logits of a second pass with the same drop-path masks, drawn from that state on."""
        default_generator(self.resident.device).set_state(drawn)
        return self._logits(batches)

    def _distilled(self, batches: list[Parts]) -> tuple[list[Tensor], Tensor]:
        """What student and teacher give, and the distillation loss between them."""
        if self.bridge is None:
            student_BC, teacher_BC = self._logits(batches)
            of_classes = of_class(student_BC), of_class(teacher_BC)
            return [student_BC, teacher_BC], distillation(*of_classes, self.config.distill)
        (pixels,), _ = batches
        assert self.teacher is not None
        student_BC, ours = self.student.with_features(pixels, self.bridge.student_blocks)
        teacher_BC, theirs = self.teacher.with_features(pixels, self.bridge.teacher_blocks)
        distill = self.bridge(ours, theirs, self.config.distill.detach_teacher)
        return [student_BC.float(), teacher_BC.float()], distill

    def validate(self, rows: Tensor) -> Tensor:
        """Right answers and summed cross-entropy on those images, of student and teacher: (models, 2)."""
        for model in self.models():
            model.eval()
        with torch.no_grad(), autocast(self.config, self.resident.device), repeating(self.resident.device):
            pieces = [self._logits(rows_of(self.parts, index)) for index in rows.split(EVAL_BATCH)]
        labels = self.resident.labels[rows]
        return torch.stack([tally(torch.cat(logits), labels) for logits in zip(*pieces, strict=True)])


def rows_of(parts: Sequence[Parts], index: Tensor) -> list[Parts]:
    """Some images of each model's parts."""
    return [tuple(part.index_select(0, index) for part in of_one) for of_one in parts]


def lambdas(weight: float, rise: float, steps: int, device: torch.device) -> Tensor:
    """Lambda of each step of an epoch, (steps,) on the device: from `weight` on, growing by `rise` over all of them."""
    return torch.arange(steps, device=device) * (rise / steps) + weight


def joint(
    logits: Sequence[Tensor],
    labels_B: Tensor,
    config: RunConfig,
    distill: Tensor | None,
    weight: Tensor,
    apart: Sequence[Tensor] = (),
) -> Tensor:
    """(4,): CE(student) + CE(teacher) + weight * distill, and each of the three; 0 for what there is not.

    Label smoothing e (Szegedy et al., CVPR 2016) makes the student's (1 - e) CE + e * (mean of -log p over classes).
    With a gist token, each model's is its `own_loss`; with PACE that plus `pace.weight` * what `apart` has of it.
    """
    # The student's alone: the control asks what smoothing does for it, and the teacher stays as released.
    each = [own_loss(logits[0], labels_B, config.optim.label_smoothing, config.gist)]
    each += [own_loss(of_teacher, labels_B, 0.0, config.gist) for of_teacher in logits[1:]]
    each = [own + config.pace.weight * of_it for own, of_it in zip(each, apart, strict=True)] if apart else each
    if distill is not None:
        each += [distill]
    # One backward for both: the released second backward of the same loss changes nothing but a factor 2 in the
    # teacher's gradient, to which Adam is indifferent.
    loss = sum(each[: len(logits)])
    loss = loss if distill is None else loss + weight * distill
    nothing = torch.zeros_like(each[0])
    return torch.stack([loss, *each, *[nothing] * (LOSSES - 1 - len(each))])  # type: ignore[list-item]


def tally(logits_BC: Tensor, labels_B: Tensor) -> Tensor:
    """Right answers and summed cross-entropy, (2,), on the device."""
    loss = F.cross_entropy(logits_BC, labels_B, reduction="sum")
    return torch.stack([(logits_BC.argmax(dim=-1) == labels_B).sum().float(), loss])

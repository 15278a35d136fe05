"""The distillation losses: how far the student's logits are from the teacher's."""

# B batch, C classes, D width; `...` batch and tokens

from collections.abc import Callable, Sequence
from math import gcd, inf

import torch.nn.functional as F
from torch import Generator, Tensor, nn

from idat_tune.config import DistillConfig, GistConfig
from idat_tune.errors import BadInput

ALIKE = 1e-6  # of the largest logit: a standard deviation below it is rounding


def kl(student_BC: Tensor, teacher_BC: Tensor, config: DistillConfig) -> Tensor:
    """KL(teacher || student) of both softmaxes at temperature T, summed over classes, mean over the batch.

    As in the released code; the paper's equation leaves the student's weight un-tempered. Direction
    `student_teacher` gives KL(student || teacher); `square_temperature` multiplies by T squared, and so does
    `standardise`, as its authors have it. Written on log-probabilities, so that it stays finite for any finite logits.
    """
    student = F.log_softmax(student_BC / config.temperature, dim=-1)
    teacher = F.log_softmax(teacher_BC / config.temperature, dim=-1)
    from_, to = (teacher, student) if config.direction == "teacher_student" else (student, teacher)
    # Not F.kl_div, which torch.vmap computes one run after the other.
    loss = (from_.exp() * (from_ - to)).sum(dim=-1).mean()
    return loss * config.temperature**2 if config.square_temperature or config.standardise else loss


def mse(student_BC: Tensor, teacher_BC: Tensor, config: DistillConfig) -> Tensor:
    """Mean squared difference of the raw logits over batch and classes; no temperature."""
    return F.mse_loss(student_BC, teacher_BC)


def mae(student_BC: Tensor, teacher_BC: Tensor, config: DistillConfig) -> Tensor:
    """Mean absolute difference of the raw logits over batch and classes (Table 4); no temperature."""
    return F.l1_loss(student_BC, teacher_BC)


def cos(student_BC: Tensor, teacher_BC: Tensor, config: DistillConfig) -> Tensor:
    """One minus the cosine of the angle between the logit vectors, mean over the batch (Table 4)."""
    # Normalised twice: a product of two large lengths would overflow.
    student, teacher = (F.normalize(_in_unit(logits_BC), dim=-1) for logits_BC in (student_BC, teacher_BC))
    return 1 - (student * teacher).sum(dim=-1).mean()


def _in_unit(logits_BC: Tensor) -> Tensor:
    """For what does not depend on the length of logits: the same to within -1 and 1, whose squares do not overflow."""
    return logits_BC / logits_BC.detach().abs().amax(dim=-1, keepdim=True).clamp_min(1e-30)


LOSSES: dict[str, Callable[[Tensor, Tensor, DistillConfig], Tensor]] = {"kl": kl, "mse": mse, "mae": mae, "cos": cos}


def standardised(logits_BC: Tensor) -> Tensor:
    """Logit standardisation (Sun et al., CVPR 2024): (y - mean) / std over the classes of each image, (B, C).

    The std is that of a sample (C - 1), as in their released code. An image whose logits are all alike gets zeros, and
    no gradient.
    """
    logits_BC = _in_unit(logits_BC)
    std_B1 = logits_BC.std(dim=-1, keepdim=True)
    return (logits_BC - logits_BC.mean(dim=-1, keepdim=True)) / std_B1.masked_fill(std_B1 < ALIKE, inf)


def distillation(student_BC: Tensor, teacher_BC: Tensor, config: DistillConfig) -> Tensor:
    """The configured loss on logits, a scalar, before the weight lambda.

    With target `teacher` it is loss(student, teacher). Not detached unless asked: in the released code the teacher
    learns from the student too.

    With target `mean`, as in KDCL (Guo et al., CVPR 2020), it is loss(student, m) + loss(teacher, m) with
    m = (student + teacher) / 2, a constant: each learns from where both meet, and no gradient passes through m. With
    `detach_teacher` the second term is left out. The gradients of mae are as with target `teacher`, those of mse half.

    With `standardise` the two that a loss compares are standardised, m after the mean is taken.

    Args:
        student_BC: logits; computed with in fp32, as are the teacher's.
        teacher_BC: likewise.
        config: the loss and all that it depends on.

    Raises:
        BadInput: the two have logits of different shape.
    """
    if student_BC.shape != teacher_BC.shape:
        raise BadInput(
            f"the teacher has {teacher_BC.shape[-1]} classes and the student {student_BC.shape[-1]}; "
            "distillation needs two heads for the same classes"
        )
    student_BC, teacher_BC = student_BC.float(), teacher_BC.float()
    if config.target == "teacher":
        return _loss(student_BC, teacher_BC.detach() if config.detach_teacher else teacher_BC, config)
    mean_BC = (student_BC / 2 + teacher_BC / 2).detach()
    of_student = _loss(student_BC, mean_BC, config)
    return of_student if config.detach_teacher else of_student + _loss(teacher_BC, mean_BC, config)


def _loss(learner_BC: Tensor, target_BC: Tensor, config: DistillConfig) -> Tensor:
    if config.standardise:
        learner_BC, target_BC = standardised(learner_BC), standardised(target_BC)
    return LOSSES[config.loss](learner_BC, target_BC, config)


def of_class(logits: Tensor) -> Tensor:
    """Of what a model gives while training the logits of the class token, (B, C)."""
    return logits if logits.ndim == 2 else logits[:, 0]


def own_loss(logits: Tensor, labels_B: Tensor, label_smoothing: float, config: GistConfig) -> Tensor:
    """What a model learns from the labels alone: cross-entropy, (B, C) given.

    With a gist token (Ruan et al., 2023), (B, 2, C) given: CE(y) + `ce_weight` CE(z) + `kl_weight` (KL(p || q) +
    KL(q || p)), y of the class token and z of the gist, p and q their softmaxes at the temperature; not times T
    squared, and nothing is detached.
    """
    ce = F.cross_entropy(of_class(logits), labels_B, label_smoothing=label_smoothing)
    if logits.ndim == 2:
        return ce
    ce_of_gist = F.cross_entropy(logits[:, 1], labels_B, label_smoothing=label_smoothing)
    ours, theirs = (F.log_softmax(logits / config.temperature, dim=-1)).unbind(1)
    both_ways = ((ours.exp() - theirs.exp()) * (ours - theirs)).sum(dim=-1).mean()
    return ce + config.ce_weight * ce_of_gist + config.kl_weight * both_ways


class Bridge(nn.Module):
    """Feature distillation as in FitNets (Table 5): block outputs of the student against those of the teacher.

    Each of the teacher's is taken to the student's width by a linear map of its own, which trains along and is not
    part of the student. Where depths differ, equally spaced blocks are paired: every second of 24 with each of 12.
    """

    def __init__(
        self, student_widths: Sequence[int], teacher_widths: Sequence[int], generator: Generator | None = None
    ):
        """Widths (D) of all blocks, first to last; initial values are drawn from `generator`."""
        super().__init__()
        pairs = gcd(len(student_widths), len(teacher_widths))
        self.student_blocks = spaced(len(student_widths), pairs)
        self.teacher_blocks = spaced(len(teacher_widths), pairs)
        self.maps = nn.ModuleList(
            nn.Linear(teacher_widths[theirs], student_widths[ours])
            for ours, theirs in zip(self.student_blocks, self.teacher_blocks, strict=True)
        )
        for layer in self.maps:
            assert isinstance(layer, nn.Linear)
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], detach_teacher: bool) -> Tensor:
        """Mean squared difference, averaged over the pairs; features (..., D) in the order of the pairs.

        Raises:
            BadInput: the two cut images into different tokens.
        """
        total = student[0].new_zeros((), dtype=student[0].float().dtype)
        for ours, theirs, layer in zip(student, teacher, self.maps, strict=True):
            if ours.shape[:-1] != theirs.shape[:-1]:
                raise BadInput(
                    f"distill.loss feature compares tokens, but the student has {_tokens(ours)} where the teacher has "
                    f"{_tokens(theirs)}; take a teacher with the same patches, or another loss"
                )
            theirs = theirs.detach() if detach_teacher else theirs
            total = total + F.mse_loss(ours.float(), layer(theirs).float())
        return total / len(self.maps)


def spaced(depth: int, count: int) -> tuple[int, ...]:
    """Equally spaced blocks of `depth`, counted from 0 and ending with the last."""
    return tuple(depth // count * (index + 1) - 1 for index in range(count))


def _tokens(features: Tensor) -> str:
    return "x".join(map(str, features.shape[1:-1]))

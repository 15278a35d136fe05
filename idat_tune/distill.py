"""The distillation losses: how far the student's logits are from the teacher's."""

# B batch, C classes

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from idat_tune.config import DistillConfig


def kl(student_BC: Tensor, teacher_BC: Tensor, temperature: float) -> Tensor:
    """KL(teacher || student) of both softmaxes at `temperature`, summed over classes, mean over the batch.

    As in the released code; the paper's equation leaves the student's weight un-tempered. Written on
    log-probabilities, so that it stays finite for any finite logits.
    """
    student = F.log_softmax(student_BC / temperature, dim=-1)
    teacher = F.log_softmax(teacher_BC / temperature, dim=-1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True)


def mse(student_BC: Tensor, teacher_BC: Tensor, temperature: float) -> Tensor:
    """Mean squared difference of the raw logits over batch and classes; no temperature."""
    return F.mse_loss(student_BC, teacher_BC)


def mae(student_BC: Tensor, teacher_BC: Tensor, temperature: float) -> Tensor:
    """Mean absolute difference of the raw logits over batch and classes (Table 4); no temperature."""
    return F.l1_loss(student_BC, teacher_BC)


def cos(student_BC: Tensor, teacher_BC: Tensor, temperature: float) -> Tensor:
    """One minus the cosine of the angle between the logit vectors, mean over the batch (Table 4)."""
    return 1 - F.cosine_similarity(student_BC, teacher_BC, dim=-1).mean()


LOSSES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {"kl": kl, "mse": mse, "mae": mae, "cos": cos}


def distillation(student_BC: Tensor, teacher_BC: Tensor, config: DistillConfig) -> Tensor:
    """The configured loss, a scalar, before the weight lambda.

    Not detached unless asked: in the released code the teacher learns from the student too.
    """
    teacher = teacher_BC.detach() if config.detach_teacher else teacher_BC
    loss = LOSSES[config.loss](student_BC.float(), teacher.float(), config.temperature)
    if config.square_temperature and config.loss == "kl":
        loss = loss * config.temperature**2
    return loss

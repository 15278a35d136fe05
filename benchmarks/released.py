"""The training loop that the paper's authors released, in our words, as the yardstick of the ladder."""

# Written from what is known of it (FACTS 1.3): one optimizer per model, one loss, two backward passes under autocast,
# master weights in fp32, attention spelled out, and the host asking for the loss in every step.

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from idat_tune.config import RunConfig
from idat_tune.data import Images
from idat_tune.distill import distillation
from idat_tune.engine.optimizer import decay_groups
from idat_tune.model import AdaptedModel, build_pair


class Released:
    """Two optimizers and as many backward passes (`backwards=1` keeps one of these) on images that wait on the host."""

    def __init__(self, config: RunConfig, classes: int, images: Images, device: torch.device, backwards: int = 2):
        self.config, self.device, self.backwards = config, device, backwards
        student, teacher = build_pair(config, classes)
        assert teacher is not None
        self.student, self.teacher = student.to(device), teacher.to(device)
        for module in [*student.modules(), *teacher.modules()]:
            if hasattr(module, "fused_attn"):
                module.fused_attn = False
        # Decoding and resizing are left out here; `whole_trial` of the ladder has them.
        self.pixels, self.labels = torch.tensor(images.pixels), torch.tensor(images.labels)
        lr, each = config.optim.lr, (student, teacher)
        self.optimizers = [torch.optim.AdamW(decay_groups(config.optim, [model]), lr=lr) for model in each]
        # Half precision and its scaler on CUDA, as released; a CPU has bf16, which needs none.
        self.scalers = [torch.amp.GradScaler(device.type, enabled=device.type == "cuda") for _ in each]

    def step(self, index: Tensor) -> float:
        """One update of both models; the loss."""
        pixels, labels = self.pixels[index].to(self.device), self.labels[index].to(self.device)
        dtype = torch.float16 if self.device.type == "cuda" else torch.bfloat16
        with torch.autocast(self.device.type, dtype=dtype):
            ours, theirs = self.student(pixels).float(), self.teacher(pixels).float()
            loss = F.cross_entropy(ours, labels) + F.cross_entropy(theirs, labels)
            loss = loss + self.config.distill.weight * distillation(ours, theirs, self.config.distill)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        if self.backwards == 1:
            self.scalers[0].scale(loss).backward()
            for optimizer in self.optimizers:
                self.scalers[0].step(optimizer)
            self.scalers[0].update()
        else:
            for scaler, optimizer in zip(self.scalers, self.optimizers, strict=True):
                scaler.scale(loss).backward(retain_graph=optimizer is not self.optimizers[-1])
                scaler.step(optimizer)
                scaler.update()
        return loss.item()


class Eager:
    """The plain loop of this package before its engine: one optimizer, one backward pass, one question per epoch."""

    def __init__(self, config: RunConfig, classes: int, images: Images, device: torch.device, resident: bool):
        self.config, self.device = config, device
        student, teacher = build_pair(config, classes)
        models: list[AdaptedModel] = [student] if teacher is None else [student, teacher]
        self.models = [model.to(device) for model in models]
        self.optimizer = torch.optim.AdamW(decay_groups(config.optim, models), lr=config.optim.lr)
        place = device if resident else torch.device("cpu")
        self.pixels, self.labels = torch.tensor(images.pixels, device=place), torch.tensor(images.labels, device=place)

    def step(self, index: Tensor) -> Tensor:
        """One update; the loss, on the device."""
        index = index.to(self.pixels.device)
        pixels, labels = self.pixels[index].to(self.device), self.labels[index].to(self.device)
        low = self.config.precision == "bf16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16) if low else nullcontext():
            logits = [model(pixels).float() for model in self.models]
            loss = torch.stack([F.cross_entropy(one, labels) for one in logits]).sum()
            if len(logits) == 2:
                loss = loss + self.config.distill.weight * distillation(*logits, self.config.distill)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

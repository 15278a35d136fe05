"""A trained student ready to use: bytes of pixels in, logits out; images in, labels out."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from idat_tune import data
from idat_tune.config import RunConfig
from idat_tune.model import AdaptedModel


class Pair(nn.Module):
    """A student and its teacher as one model, whose probabilities are the mean of both."""

    def __init__(self, student: AdaptedModel, teacher: AdaptedModel):
        super().__init__()
        self.student, self.teacher = student, teacher
        self.spec = student.spec

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.student.device

    def forward(self, pixels: Tensor) -> Tensor:
        """Logarithms (B, classes) of the mean of both softmaxes, so that a softmax of them gives it back."""
        return self.mean(self.student(pixels), self.teacher(pixels))

    @staticmethod
    def mean(*logits: Tensor) -> Tensor:
        """What `forward` gives, of the logits (B, classes) of both."""
        return torch.stack([one.log_softmax(dim=-1) for one in logits]).logsumexp(dim=0) - math.log(2)


class Student(nn.Module):
    """A student ready to use, in eval mode: no optimizer, and no teacher unless it was exported with it.

    student.transform(image)        PIL image -> bytes (channels, H, W), as the training images were made
    student(pixels)                 bytes (B, channels, H, W) -> logits (B, classes)
    student.predict([image, ...])   PIL images or files of images -> [(label, probability), ...]

    `intensity` is what became black and white in training images of more than 8 bits; see `data.decode`.
    """

    def __init__(
        self,
        model: AdaptedModel | Pair,
        config: RunConfig,
        labels: Sequence[str],
        metrics: Mapping[str, Any],
        intensity: tuple[float, float] | None = None,
    ):
        super().__init__()
        self.model = model
        self.config = config
        self.labels = list(labels)
        self.metrics = dict(metrics)
        self.transform = partial(_transform, spec=model.spec, intensity=intensity)
        self.intensity = intensity
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (B, classes) of pixels (B, channels, H, W) in 0..255; normalises them itself."""
        return self.model(pixels)

    def predict(self, images: Sequence[Image.Image | str | Path]) -> list[tuple[str, float]]:
        """The most probable label of each image, and its probability.

        Raises:
            BadInput: a file cannot be read, or holds no image.
        """
        device = self.model.device
        opened = [data.read_image(Path(image)) if isinstance(image, str | Path) else image for image in images]
        with torch.no_grad():
            pixels = torch.stack([self.transform(image) for image in opened]).to(device)
            probability, index = self(pixels).softmax(dim=-1).max(dim=-1)
        return [(self.labels[i], p) for i, p in zip(index.tolist(), probability.tolist(), strict=True)]


def _transform(image: Image.Image, spec: Any, intensity: tuple[float, float] | None) -> Tensor:
    return torch.from_numpy(data.decode(image, spec.size, spec.channels, spec.interpolation, intensity))

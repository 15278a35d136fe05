"""Glyph masters into training images: turned, bent, resampled and noisy, a whole batch at a time."""

# B batch, S side of an image, M side of a master

import math

import torch
import torch.nn.functional as F

SIZE = 32  # side of an image, pixels
TURN = 20.0  # degrees to either side
SCALE = (0.5, 1.3)  # of a master, whose ink spans 24 of 32 pixels
STRETCH = 0.25  # log of width against height
SHEAR = 0.3
BEND = 0.09  # standard deviation of the elastic displacement, in half sides
RESAMPLED = {8: 0.2, 10: 0.1, 12: 0.1, 16: 0.1}  # side to go through: share of the batch
LEGIBLE = 0.85  # least scale of a glyph that is resampled: smaller ones cannot be told apart
NOISE = 0.08  # greatest standard deviation, of a range of 0 to 1


class Augmenter:
    """Draws batches of distorted glyphs; the same seed gives the same batches on one machine."""

    def __init__(self, masters_NMM: torch.Tensor, labels_N: torch.Tensor, seed: int):
        self._masters_NMM = masters_NMM
        self._random = torch.Generator().manual_seed(seed)
        classes, counts = torch.unique(labels_N, return_counts=True)
        self._classes = len(classes)
        self._counts_K = counts
        self._starts_K = torch.cumsum(counts, 0) - counts

    def batch(self, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels float32 (size, 1, SIZE, SIZE) in [0, 1] and labels int64 (size,), classes alike in number."""
        labels_B = torch.randint(self._classes, (size,), generator=self._random)
        offset_B = (torch.rand(size, generator=self._random) * self._counts_K[labels_B]).long()
        masters_B1MM = self._masters_NMM[self._starts_K[labels_B] + offset_B].unsqueeze(1).float() / 255
        images_B1SS = F.avg_pool2d(F.grid_sample(masters_B1MM, self._grid(size), align_corners=False), 2)
        return self._noisy(_resampled(images_B1SS)).clamp(0, 1), labels_B

    def _uniform(self, low: float, high: float, *shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=self._random) * (high - low) + low

    def _grid(self, size: int) -> torch.Tensor:
        """Where each of 2S x 2S points of the image lies in its master, in half sides."""
        grid_B2SS = F.affine_grid(self._affine(size), [size, 1, 2 * SIZE, 2 * SIZE], align_corners=False)
        knots = torch.randn(size, 2, 4, 4, generator=self._random) * self._uniform(0, BEND, size, 1, 1, 1)
        bend_B2SS = F.interpolate(knots, size=2 * SIZE, mode="bicubic", align_corners=True)
        return grid_B2SS + bend_B2SS.permute(0, 2, 3, 1)

    def _affine(self, size: int) -> torch.Tensor:
        """Matrices (size, 2, 3) from image to master: they undo shift, turn, shear and scale."""
        turn = self._uniform(-math.radians(TURN), math.radians(TURN), size)
        least = torch.full((size,), SCALE[0])
        least[: sum(_shares(size).values())] = LEGIBLE
        scale = least * (SCALE[1] / least) ** self._uniform(0, 1, size)
        stretch = self._uniform(-STRETCH, STRETCH, size)
        across, down = scale * torch.exp(stretch / 2), scale * torch.exp(-stretch / 2)
        shear = self._uniform(-SHEAR, SHEAR, size)
        cos, sin = torch.cos(turn), torch.sin(turn)
        turned = torch.stack([cos / across, (sin + shear * cos) / across, -sin / down, (cos - shear * sin) / down], 1)
        inverse_B22 = turned.view(size, 2, 2)
        # The ink stays inside: what the frame leaves of a small glyph is room to move in.
        room = (1 - 0.7 * scale).clamp(min=0.06)
        shift_B2 = self._uniform(-1, 1, size, 2) * room[:, None]
        return torch.cat([inverse_B22, -inverse_B22 @ shift_B2[:, :, None]], 2)

    def _noisy(self, images: torch.Tensor) -> torch.Tensor:
        size = len(images)
        gamma = torch.exp(self._uniform(-0.4, 0.4, size, 1, 1, 1))
        gain = self._uniform(0.6, 1.1, size, 1, 1, 1)
        sigma = self._uniform(0, NOISE, size, 1, 1, 1)
        noise = torch.randn(images.shape, generator=self._random)
        return images.clamp(1e-4, 1) ** gamma * gain + noise * sigma


def _resampled(images_B1SS: torch.Tensor) -> torch.Tensor:
    """Fixed shares of the batch by way of fewer pixels, as images of `digits` are; the batch is in random order."""
    parts, start = [], 0
    for side, count in _shares(len(images_B1SS)).items():
        end = start + count
        coarse = F.interpolate(images_B1SS[start:end], size=side, mode="area")
        parts.append(F.interpolate(coarse, size=SIZE, mode="bicubic", align_corners=False))
        start = end
    return torch.cat([*parts, images_B1SS[start:]])


def _shares(size: int) -> dict[int, int]:
    return {side: round(share * size) for side, share in RESAMPLED.items()}

"""Kinds that rescale what the frozen operations compute, channel by channel."""

# O outputs, D inputs of a linear layer, P parts of its outputs; `...` batch and tokens

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from idat_tune.adapters.blocks import blocks_of
from idat_tune.adapters.operations import INIT_STD, Mergeable, any_of, with_values
from idat_tune.config import AdapterConfig


class ScaledShifted(Mergeable):
    """SSF: γ * op(x) + β per channel, γ drawn around 1 and β around 0 with standard deviation 0.02."""

    def __init__(self, operation: nn.Module, generator: Generator | None):
        super().__init__(operation)
        weight: Any = operation.weight
        channels = len(weight)
        self.scale, self.shift = nn.Parameter(torch.empty(channels)), nn.Parameter(torch.empty(channels))
        nn.init.normal_(self.scale, mean=1, std=INIT_STD, generator=generator)
        nn.init.normal_(self.shift, std=INIT_STD, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """The shape of the operation's output."""
        channel = (-1, 1, 1) if isinstance(self.operation, nn.Conv2d) else (-1,)
        return self.operation(x) * self.scale.view(channel) + self.shift.view(channel)

    def merged(self) -> nn.Module:
        """Weight and bias times γ, bias plus β."""
        old: Any = self.operation
        per_row = self.scale.view(-1, *[1] * (old.weight.ndim - 1))
        bias = self.shift if old.bias is None else self.scale * old.bias + self.shift
        return with_values(old, per_row * old.weight, bias)


def ssf(backbone: nn.Module, config: AdapterConfig, generator: Generator | None) -> None:
    """A scale and a shift after every linear layer, norm and patch embedding; the head, which trains, has none."""
    for parent in list(backbone.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, (nn.Linear, nn.LayerNorm, nn.Conv2d)):
                setattr(parent, name, ScaledShifted(child, generator))


class Gained(Mergeable):
    """A gain per output, starting at 1, after a linear layer; its first `spared` outputs get none."""

    def __init__(self, operation: nn.Linear, spared: int = 0):
        super().__init__(operation)
        self.spared = spared
        self.gain = nn.Parameter(torch.ones(operation.out_features - spared))

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., O)."""
        return self.operation(x) * self._gain_of_all()

    def _gain_of_all(self) -> Tensor:
        return torch.cat([self.gain.new_ones(self.spared), self.gain])

    def merged(self) -> nn.Module:
        """Rows of the weight and the bias times the gain."""
        old: Any = self.operation
        gain_O = self._gain_of_all()
        return with_values(old, gain_O[:, None] * old.weight, None if old.bias is None else gain_O * old.bias)


class GainedInputs(Mergeable):
    """A gain per input, starting at 1, before a linear layer."""

    def __init__(self, operation: nn.Linear):
        super().__init__(operation)
        self.gain = nn.Parameter(torch.ones(operation.in_features))

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., O)."""
        return self.operation(x * self.gain)

    def merged(self) -> nn.Module:
        """Columns of the weight times the gain."""
        old: Any = self.operation
        return with_values(old, old.weight * self.gain, old.bias)


def ia3(backbone: nn.Module, config: AdapterConfig, generator: Generator | None) -> None:
    """(IA)^3 (Liu et al., NeurIPS 2022): gains on keys, on values and on what the MLP's second layer takes."""
    for block in any_of(blocks_of(backbone)):
        block.attn.qkv = Gained(block.attn.qkv, spared=block.attn.qkv.out_features // 3)
        block.mlp.fc2 = GainedInputs(block.mlp.fc2)


def difffit(backbone: nn.Module, config: AdapterConfig, generator: Generator | None) -> None:
    """DiffFit (Xie et al., ICCV 2023): all biases, scales of norms, and gains on what attention and MLP add.

    A gain starts at 1 and has a number per channel.
    """
    for module in backbone.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if name == "bias" or isinstance(module, nn.LayerNorm):
                parameter.requires_grad_(True)
    for block in any_of(blocks_of(backbone)):
        block.attn.proj, block.mlp.fc2 = Gained(block.attn.proj), Gained(block.mlp.fc2)


class RankOneScaled(Mergeable):
    """RLRR on a linear layer: W * (1 + a b^T), bias + t; for each of so many parts of its outputs.

    a and b start at Kaiming's uniform law for one input and for D, t at zero, so that it starts away from the identity.
    """

    def __init__(self, operation: nn.Linear, parts: int, generator: Generator | None):
        super().__init__(operation)
        self.parts = parts
        inputs, outputs = operation.in_features, operation.out_features
        # As vectors, which get no weight decay.
        self.a, self.b = nn.Parameter(torch.empty(outputs)), nn.Parameter(torch.empty(parts * inputs))
        self.t = nn.Parameter(torch.zeros(outputs))
        for value, fan_in in ((self.a, 1), (self.b, inputs)):
            bound = math.sqrt(6 / fan_in)
            nn.init.uniform_(value, -bound, bound, generator=generator)

    def _values(self) -> tuple[Tensor, Tensor]:
        old: Any = self.operation
        factor_POD = 1 + self.a.view(self.parts, -1, 1) * self.b.view(self.parts, 1, -1)
        return old.weight * factor_POD.flatten(0, 1), self.t if old.bias is None else old.bias + self.t

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., O)."""
        return F.linear(x, *self._values())

    def merged(self) -> nn.Module:
        """The same weight and bias."""
        return with_values(self.operation, *self._values())


def rlrr(backbone: Any, config: AdapterConfig, generator: Generator | None) -> None:
    """RLRR (Dong et al., CVPR 2024): W * (1 + a b^T) and a shift for q, k, v, the output of attention and the MLP.

    The norms of every block, the last one and the patch embedding get a scale and a shift, as with SSF.
    """
    for block in any_of(blocks_of(backbone)):
        block.attn.qkv = RankOneScaled(block.attn.qkv, 3, generator)
        for parent, name in ((block.attn, "proj"), (block.mlp, "fc1"), (block.mlp, "fc2")):
            setattr(parent, name, RankOneScaled(getattr(parent, name), 1, generator))
        block.norm1, block.norm2 = (ScaledShifted(norm, generator) for norm in (block.norm1, block.norm2))
    backbone.patch_embed.proj = ScaledShifted(backbone.patch_embed.proj, generator)
    for name in ("norm", "fc_norm"):  # a ViT that takes the mean of its tokens has the second instead
        if isinstance(getattr(backbone, name, None), nn.LayerNorm):
            setattr(backbone, name, ScaledShifted(getattr(backbone, name), generator))

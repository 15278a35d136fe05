"""Kinds without a block of their own: they train, or add to, the operations that are there."""

# O outputs, D inputs of a linear layer, H hidden, G groups; `...` batch and tokens

import copy
import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Generator, Tensor, nn

from idat_tune.adapters.blocks import blocks_of, scaled
from idat_tune.config import AdapterConfig

INIT_STD = 0.02  # of the truncated normal that heads and the paper's adapters start from
GROUPS = 2  # of RepAdapter's second matrix


def linear(backbone: nn.Module, config: AdapterConfig, generator: Generator | None) -> None:
    """Nothing: the head trains anyway."""


def full(backbone: nn.Module, config: AdapterConfig, generator: Generator | None) -> None:
    """Everything trains."""
    for parameter in backbone.parameters():
        parameter.requires_grad_(True)


def bitfit(backbone: nn.Module, config: AdapterConfig, generator: Generator | None) -> None:
    """All biases train: those of linear layers, of norms and of the patch embedding."""
    for name, parameter in backbone.named_parameters():
        if name.endswith(".bias"):
            parameter.requires_grad_(True)


class Mergeable(nn.Module, ABC):
    """A frozen operation and what was added to it; `merged` is a plain operation that does the same."""

    def __init__(self, operation: nn.Module):
        super().__init__()
        self.operation = operation

    @abstractmethod
    def merged(self) -> nn.Module:
        """A frozen operation of the same type with the same outputs."""


def merge(backbone: nn.Module) -> None:
    """Replace every Mergeable by its plain operation, in place."""
    for parent in list(backbone.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Mergeable):
                setattr(parent, name, child.merged())


def _with(operation: Any, weight: Tensor, bias: Tensor | None) -> nn.Module:
    """A frozen copy of an operation with other values; a bias is added to one that has none."""
    new = copy.copy(operation)
    new._parameters = dict(operation._parameters)
    new.weight = nn.Parameter(weight.detach().to(operation.weight.dtype), requires_grad=False)
    new.bias = None if bias is None else nn.Parameter(bias.detach().to(operation.weight.dtype), requires_grad=False)
    return new


class LoraQkv(Mergeable):
    """LoRA on the queries and values of a fused qkv: W x + s B A x for each of the two, B starting at zero.

    s is `adapter.scale`, which others write as alpha / rank; `adapter.hidden_dim` is the rank.
    """

    def __init__(self, operation: nn.Linear, config: AdapterConfig, generator: Generator | None):
        super().__init__(operation)
        self.scale: float | Tensor = config.scale
        self.third = operation.out_features // 3
        rank, width = config.hidden_dim, operation.in_features
        self.q_down, self.v_down = (nn.Linear(width, rank, bias=False) for _ in range(2))
        self.q_up, self.v_up = (nn.Linear(rank, self.third, bias=False) for _ in range(2))
        for down, up in ((self.q_down, self.q_up), (self.v_down, self.v_up)):
            nn.init.kaiming_uniform_(down.weight, a=math.sqrt(5), generator=generator)
            nn.init.zeros_(up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., 3 D)."""
        q, k, v = self.operation(x).chunk(3, dim=-1)
        q = q + scaled(self.q_up(self.q_down(x)), self.scale)
        v = v + scaled(self.v_up(self.v_down(x)), self.scale)
        return torch.cat([q, k, v], dim=-1)

    def merged(self) -> nn.Module:
        """W' = W + s B A in the rows of queries and of values."""
        old: Any = self.operation
        weight_OD = old.weight.detach().clone()
        weight_OD[: self.third] += self.scale * self.q_up.weight @ self.q_down.weight
        weight_OD[-self.third :] += self.scale * self.v_up.weight @ self.v_down.weight
        return _with(old, weight_OD, old.bias)


def lora(backbone: nn.Module, config: AdapterConfig, generator: Generator | None) -> None:
    """LoRA on queries and values of every block."""
    for block in _any(blocks_of(backbone)):
        block.attn.qkv = LoraQkv(block.attn.qkv, config, generator)


class RepLinear(Mergeable):
    """A linear RepAdapter in front of a linear layer: W (x + s U(D x)), U in two groups and starting at zero.

    The dropout of 0.1 of its authors' code is left out.
    """

    def __init__(self, operation: nn.Linear, config: AdapterConfig, generator: Generator | None):
        super().__init__(operation)
        self.scale: float | Tensor = config.scale
        width = operation.in_features
        self.down = nn.Linear(width, config.hidden_dim)
        # As of a 1x1 convolution in groups: each half of the outputs sees its half of the hidden numbers.
        self.up_weight = nn.Parameter(torch.zeros(width, config.hidden_dim // GROUPS))
        self.up_bias = nn.Parameter(torch.zeros(width))
        nn.init.xavier_uniform_(self.down.weight, generator=generator)
        nn.init.zeros_(self.down.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., O)."""
        hidden_GH = self.down(x).unflatten(-1, (GROUPS, -1))
        up = torch.einsum("...gh,gdh->...gd", hidden_GH, self.up_weight.unflatten(0, (GROUPS, -1))).flatten(-2)
        return self.operation(x + scaled(up + self.up_bias, self.scale))

    def merged(self) -> nn.Module:
        """W' = W (1 + s U D), b' = b + s W (U d + u), with the biases d of D and u of U."""
        old: Any = self.operation
        up_DH = torch.block_diag(*self.up_weight.unflatten(0, (GROUPS, -1)))
        weight_OD = old.weight + self.scale * old.weight @ up_DH @ self.down.weight
        shift_O = self.scale * old.weight @ (up_DH @ self.down.bias + self.up_bias)
        return _with(old, weight_OD, shift_O if old.bias is None else old.bias + shift_O)


def repadapter(backbone: nn.Module, config: AdapterConfig, generator: Generator | None) -> None:
    """A RepAdapter between norm and attention, and one between norm and MLP, of every block.

    They sit inside the windows of a Swin, so that they merge there too.
    """
    for block in _any(blocks_of(backbone)):
        block.attn.qkv = RepLinear(block.attn.qkv, config, generator)
        block.mlp.fc1 = RepLinear(block.mlp.fc1, config, generator)


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
        return _with(old, per_row * old.weight, bias)


def ssf(backbone: nn.Module, config: AdapterConfig, generator: Generator | None) -> None:
    """A scale and a shift after every linear layer, norm and patch embedding; the head, which trains, has none."""
    for parent in list(backbone.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, (nn.Linear, nn.LayerNorm, nn.Conv2d)):
                setattr(parent, name, ScaledShifted(child, generator))


def _any(modules: list[nn.Module]) -> list[Any]:
    return list(modules)

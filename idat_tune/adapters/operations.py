"""Kinds without a block of their own: they train, or add to, the operations that are there."""

# O outputs, D inputs of a linear layer, H hidden, G groups; `...` batch and tokens

import copy
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


def ln(backbone: nn.Module, config: AdapterConfig, generator: Generator | None) -> None:
    """LN-tuning (Qi et al., 2022): scale and shift of all layer norms train."""
    for module in backbone.modules():
        if isinstance(module, nn.LayerNorm):
            module.requires_grad_(True)


class Mergeable(nn.Module, ABC):
    """A frozen operation and what was added to it; `merged` is a plain operation that does the same."""

    def __init__(self, operation: nn.Module):
        super().__init__()
        self.operation = operation

    @abstractmethod
    def merged(self) -> nn.Module:
        """A frozen operation of the same type with the same outputs."""


class Scaled(Mergeable):
    """A frozen operation and a branch whose factor is `adapter.scale`."""

    def __init__(self, operation: nn.Module, config: AdapterConfig):
        super().__init__(operation)
        self.scale: float | Tensor = config.scale


def merge(backbone: nn.Module) -> None:
    """Replace every Mergeable by its plain operation, in place."""
    for parent in list(backbone.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Mergeable):
                setattr(parent, name, child.merged())


def with_values(operation: Any, weight: Tensor, bias: Tensor | None) -> nn.Module:
    """A frozen copy of an operation with other values; a bias is added to one that has none."""
    new = copy.copy(operation)
    new._parameters = dict(operation._parameters)
    new.weight = nn.Parameter(weight.detach().to(operation.weight.dtype), requires_grad=False)
    new.bias = None if bias is None else nn.Parameter(bias.detach().to(operation.weight.dtype), requires_grad=False)
    return new


class RepLinear(Scaled):
    """A linear RepAdapter in front of a linear layer: W (x + s U(D x)), U in two groups and starting at zero.

    The dropout of 0.1 of its authors' code is left out.
    """

    def __init__(self, operation: nn.Linear, config: AdapterConfig, generator: Generator | None):
        super().__init__(operation, config)
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
        return with_values(old, weight_OD, shift_O if old.bias is None else old.bias + shift_O)


def repadapter(backbone: nn.Module, config: AdapterConfig, generator: Generator | None) -> None:
    """A RepAdapter between norm and attention, and one between norm and MLP, of every block.

    They sit inside the windows of a Swin, so that they merge there too.
    """
    for block in any_of(blocks_of(backbone)):
        block.attn.qkv = RepLinear(block.attn.qkv, config, generator)
        block.mlp.fc1 = RepLinear(block.mlp.fc1, config, generator)


def any_of(modules: list[nn.Module]) -> list[Any]:
    """The same modules, whose parts no type is known of."""
    return list(modules)

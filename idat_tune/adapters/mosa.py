"""MoSA: a bottleneck beside every MLP whose second matrix is cut into parts that learn by turns."""

# D width, H hidden, E ups; `...` batch and tokens

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from idat_tune.adapters.bottleneck import Parallel
from idat_tune.config import AdapterConfig

UPS = 4


class MosaAdapter(nn.Module):
    """A(x) = up(drop(GELU(down(LN x)))), where each training step takes one of four ups at random, and else their mean.

    Each up has a random quarter of the weights, disjoint from the others', and a bias of its own. Its other weights
    start at zero and do not learn, so that all four share one matrix without meeting. LN starts at the identity, down
    as AdaptFormer's, the ups at zero.
    """

    owner: Tensor

    def __init__(self, width: int, config: AdapterConfig, generator: Generator | None = None):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.dropout = config.dropout
        self.down = nn.Linear(width, config.hidden_dim)
        self.up_weight = nn.Parameter(torch.zeros(width, config.hidden_dim))
        self.up_bias = nn.Parameter(torch.zeros(UPS * width))  # as a vector, which gets no weight decay
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5), generator=generator)
        nn.init.zeros_(self.down.bias)
        dealt = torch.randperm(self.up_weight.numel(), generator=generator) % UPS
        self.register_buffer("owner", dealt.view_as(self.up_weight), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The branch alone, (..., D) -> (..., D); the caller adds it."""
        hidden = F.dropout(F.gelu(self.down(self.norm(x))), self.dropout, self.training)
        return F.linear(hidden, *self._up())

    def _up(self) -> tuple[Tensor, Tensor]:
        if not self.training:
            return _mean(self.up_weight, self.up_bias)
        bias_ED = self.up_bias.view(-1, len(self.up_weight))
        turn = torch.randint(len(bias_ED), (1,), device=bias_ED.device)
        return self.up_weight * (self.owner == turn), bias_ED.index_select(0, turn)[0]

    def deploy(self) -> None:
        """Become one with a single up, which gives what the mean of all gives."""
        weight_DH, bias_D = _mean(self.up_weight.detach(), self.up_bias.detach())
        self.up_weight, self.up_bias = nn.Parameter(weight_DH), nn.Parameter(bias_D)
        self.owner.zero_()


def _mean(weight_DH: Tensor, bias_ED: Tensor) -> tuple[Tensor, Tensor]:
    bias_ED = bias_ED.view(-1, len(weight_DH))
    return weight_DH / len(bias_ED), bias_ED.mean(dim=0)


def deployed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What was trained, by name, with the ups of every adapter become one."""
    found = dict(state)
    for bias in (name for name in state if name.endswith("adapter.up_bias")):
        weight = bias.removesuffix("bias") + "weight"
        found[weight], found[bias] = _mean(state[weight], state[bias])
    return found


class Mosa(Parallel):
    """MoSA (Zhang et al., 2023): x <- x + attention(x); x <- x + mlp(x) + s A(x)."""

    bottleneck = MosaAdapter

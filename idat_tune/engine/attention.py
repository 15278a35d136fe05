"""Attention of a timm ViT without copies: queries, keys and values stay side by side, and so do their gradients."""

# B batch, T tokens, D width, N heads

from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Attention
from torch import Tensor, nn


def keep_side_by_side(attention: Any) -> None:
    """Let timm's Attention compute as here; any other module stays as it is.

    timm takes queries, keys and values apart along a new first dimension, so that their gradients are written three
    times: each by itself, joined, and turned around. Values and gradients are those of timm.
    """
    drops = type(attention) is Attention and (attention.attn_drop.p or attention.proj_drop.p)
    if type(attention) is Attention and getattr(attention, "gate", None) is None and not drops:
        attention.forward = MethodType(_forward, attention)


def _forward(self: Any, x_BTD: Tensor, **masks: Any) -> Tensor:
    q, k, v = (part.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2) for part in _qkv(self.qkv, x_BTD))
    out_BNTD = F.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v, **masks)
    return self.proj(self.norm(out_BNTD.transpose(1, 2).flatten(2)))


def _qkv(qkv: nn.Module, x_BTD: Tensor) -> tuple[Tensor, ...]:
    """Queries, keys and values, (B, T, D) each."""
    frozen = type(qkv) is nn.Linear and not any(value.requires_grad for value in qkv.parameters())
    if frozen and not torch.is_autocast_enabled(x_BTD.device.type):
        return _InThree.apply(x_BTD, qkv.weight, qkv.bias)
    return qkv(x_BTD).chunk(3, dim=-1)


class _InThree(torch.autograd.Function):
    """A frozen linear layer whose output is used in three parts.

    The gradient of its input is the sum of three products, each added to the one before: nothing is joined for it.
    """

    @staticmethod
    def forward(ctx: Any, x_BTD: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, ...]:
        ctx.save_for_backward(weight)
        return F.linear(x_BTD, weight, bias).chunk(3, dim=-1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        parts = [(gradient.flatten(0, -2), part) for gradient, part in zip(gradients, weight.chunk(3), strict=True)]
        total = parts[0][0] @ parts[0][1]
        for gradient, part in parts[1:]:
            total.addmm_(gradient, part)
        return total.view(*gradients[0].shape[:-1], -1), None, None

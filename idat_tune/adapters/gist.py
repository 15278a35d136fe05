"""GIST: one more token, which gathers what the adapters learn and has logits of its own while training."""

# B batch, T tokens, D width

from types import MethodType
from typing import Any

import torch
from torch import Generator, Tensor, nn

from idat_tune.errors import BadInput

BOUND = 0.5  # of the uniform law that the token starts from


class GistToken(nn.Module):
    """A trainable token behind the class token, in front of the first block; it has no position.

    Stands where the norm before the blocks was. The dropout of 0.1 on it, which its authors' code has, is left out.
    """

    def __init__(self, norm_pre: nn.Module, width: int):
        super().__init__()
        self.norm_pre = norm_pre
        self.gist = nn.Parameter(torch.zeros(width))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D) -> (B, T + 1, D)."""
        x_BTD = self.norm_pre(x_BTD)
        token_B1D = self.gist.to(x_BTD.dtype).expand(x_BTD.shape[0], 1, -1)
        return torch.cat([x_BTD[:, :1], token_B1D, x_BTD[:, 1:]], dim=1)


def insert_token(backbone: Any) -> None:
    """Give a frozen ViT a gist token, in place, before any adapter goes in.

    Its head then sees both tokens while training, and gives (B, 2, classes): of the class token, of the gist. In eval
    mode it sees the class token alone, as before.

    Raises:
        BadInput: the backbone has no class token that alone feeds the head.
    """
    reads_class_token = getattr(backbone, "cls_token", None) is not None and backbone.global_pool == "token"
    if not reads_class_token or backbone.attn_pool is not None:
        raise BadInput(
            "gist.token stands behind a class token that feeds the head, and this backbone has none; take a ViT with "
            "one, or leave gist.token away"
        )
    backbone.norm_pre = GistToken(backbone.norm_pre, backbone.embed_dim)
    backbone.num_prefix_tokens += 1
    backbone.pool = MethodType(_pool, backbone)


def draw_token(backbone: Any, generator: Generator | None) -> None:
    """The token's initial values; last, so that all else starts as it does without it."""
    nn.init.uniform_(backbone.norm_pre.gist, -BOUND, BOUND, generator=generator)


def has_token(backbone: Any) -> bool:
    """Whether a gist token was inserted."""
    return isinstance(getattr(backbone, "norm_pre", None), GistToken)


def _pool(self: Any, x_BTD: Tensor, pool_type: str | None = None) -> Tensor:
    return x_BTD[:, :2] if self.training else x_BTD[:, 0]

"""Blocks of timm's ViT and Swin: where they are, how wide, and their two branches."""

# B batch, T tokens, D width; Swin's activations have (rows, columns) where ViT's have T

from dataclasses import dataclass
from typing import Any, Self

import torch.nn.functional as F
from torch import Generator, Tensor, nn

from idat_tune.config import AdapterConfig
from idat_tune.errors import BadInput

# Others, such as Swin v2's with their norms behind attention and MLP, would need other equations.
KNOWN = (
    ("timm.models.vision_transformer", "Block"),
    ("timm.models.swin_transformer", "SwinTransformerBlock"),
)


@dataclass(frozen=True)
class Site:
    """What an adapter needs to know of the place it gets."""

    width: int  # D
    prefix: int  # tokens in front of the patches (class, registers); Swin has none
    patch_inputs: int  # numbers in one image patch: channels x rows x columns

    @classmethod
    def of(cls, block: nn.Module, backbone: Any) -> Self:
        """The site of one block."""
        patch_inputs = backbone.patch_embed.proj.weight[0].numel()
        return cls(width_of(block), getattr(backbone, "num_prefix_tokens", 0), patch_inputs)


class AdaptedBlock(nn.Module):
    """A frozen block with something trainable around it; masks are passed through to its attention.

    It computes in two parts, so that the first, which no training changes, can be computed once for a whole search:
    `frozen`, which may be several tensors, then `adapted`. Both take `first`: how many of the first tokens are wanted
    at the end, None for all; the others are computed only as far as these attend to them.
    """

    def __init__(self, block: nn.Module, site: Site, config: AdapterConfig, generator: Generator | None = None):
        super().__init__()
        self.block = block
        self.scale: float | Tensor = config.scale

    def forward(self, x_BTD: Tensor, first: int | None = None, **masks: Any) -> Tensor:
        """Block output of the input's shape, or of its first tokens."""
        return self.adapted(*self.frozen(x_BTD, first, **masks), first=first, **masks)

    def frozen(self, x_BTD: Tensor, first: int | None = None, **masks: Any) -> tuple[Tensor, ...]:
        """What precedes all that trains, one or more tensors (B, T, D) or of the first tokens."""
        return (x_BTD,)

    def adapted(self, *frozen: Tensor, first: int | None = None, **masks: Any) -> Tensor:
        """The block's output, from what `frozen` gave."""
        raise NotImplementedError


def scaled(branch: Tensor, scale: float | Tensor) -> Tensor:
    """s A(x). A scale (R,) is that of R runs, whose images lie one behind the other in the batch."""
    if isinstance(scale, Tensor) and scale.ndim:
        each = scale.to(branch.dtype).view(-1, *[1] * branch.ndim)
        return (branch.unflatten(0, (len(scale), -1)) * each).flatten(0, 1)
    return scale * branch


def block_lists(backbone: Any) -> list[nn.Sequential]:
    """The containers of a timm ViT's or Swin's transformer blocks, first to last."""
    if hasattr(backbone, "blocks"):
        return [backbone.blocks]
    return [layer.blocks for layer in getattr(backbone, "layers", [])]


def blocks_of(backbone: nn.Module) -> list[nn.Module]:
    """All transformer blocks, first to last, adapted or not."""
    return [block for blocks in block_lists(backbone) for block in blocks]


def family(backbone: Any) -> str:
    """`vit` or `swin`."""
    return "vit" if hasattr(backbone, "blocks") else "swin"


def check_blocks(backbone: nn.Module) -> None:
    """Raise BadInput unless all blocks are of a type whose equations are known here."""
    blocks = blocks_of(backbone)
    foreign = [block for block in blocks if (type(block).__module__, type(block).__qualname__) not in KNOWN]
    if foreign or not blocks:
        found = type(foreign[0] if foreign else backbone).__name__
        raise BadInput(f"no adapter fits {type(backbone).__name__} with {found}; take a plain ViT, DeiT or Swin")


def width_of(block: Any) -> int:
    """D of a block."""
    norm = getattr(block, "block", block).norm2
    return getattr(norm, "operation", norm).normalized_shape[-1]


def plain(block: Any, x_BTD: Tensor, first: int | None = None, **masks: Any) -> Tensor:
    """A timm block, or only what its first tokens become."""
    if first is None:
        return block(x_BTD, **masks)
    if isinstance(block, AdaptedBlock):
        return block(x_BTD, first)
    x_BTD = x_BTD[:, :first] + attention_branch(block, x_BTD, first)
    return x_BTD + mlp_branch(block, x_BTD)


def attention_branch(block: Any, x_BTD: Tensor, first: int | None = None, **masks: Any) -> Tensor:
    """What a timm block adds to (the first tokens of) the stream by attention, with norm, layer scale and drop-path."""
    return block.drop_path1(attention(block, block.norm1(x_BTD), first, **masks))


def attention(block: Any, normed_BTD: Tensor, first: int | None = None, **masks: Any) -> Tensor:
    """Attention of a timm block on the normed stream, with its layer scale; of its first tokens to all, if given."""
    if hasattr(block, "_attn"):  # Swin: windows, and masks of its own
        return block._attn(normed_BTD)
    if first is None:
        return block.ls1(block.attn(normed_BTD, **masks))
    return block.ls1(_of_the_first(block.attn, normed_BTD, first))


def _of_the_first(attn: Any, normed_BTD: Tensor, first: int) -> Tensor:
    """timm's Attention for the queries of the first tokens alone."""
    q, k, v = (
        part.unflatten(-1, (attn.num_heads, attn.head_dim)).transpose(1, 2)
        for part in _queries_keys_values(attn, normed_BTD, first)
    )
    q, k = attn.q_norm(q), attn.k_norm(k)
    if attn.fused_attn:
        out = F.scaled_dot_product_attention(q, k, v)
    else:
        out = ((q * attn.scale) @ k.transpose(-2, -1)).softmax(dim=-1) @ v
    return attn.proj(attn.norm(out.transpose(1, 2).flatten(2)))


def _queries_keys_values(attn: Any, normed_BTD: Tensor, first: int) -> tuple[Tensor, Tensor, Tensor]:
    qkv, width = attn.qkv, attn.num_heads * attn.head_dim
    if type(qkv) is not nn.Linear:  # an adapter sits in it, or around it, and wants to see all tokens
        q, k, v = qkv(normed_BTD).split(width, dim=-1)
        return q[:, :first], k, v
    bias = (None, None) if qkv.bias is None else qkv.bias.split([width, 2 * width])
    of_queries, of_others = qkv.weight.split([width, 2 * width])
    q = F.linear(normed_BTD[:, :first], of_queries, bias[0])
    k, v = F.linear(normed_BTD, of_others, bias[1]).split(width, dim=-1)
    return q, k, v


def mlp_branch(block: Any, x_BTD: Tensor) -> Tensor:
    """What a timm block adds to the stream through its MLP."""
    return block.drop_path2(mlp(block, block.norm2(x_BTD)))


def mlp(block: Any, normed_BTD: Tensor) -> Tensor:
    """MLP of a timm block on the normed stream, with its layer scale."""
    branch_BTD = block.mlp(normed_BTD)
    return block.ls2(branch_BTD) if hasattr(block, "ls2") else branch_BTD

"""Blocks of timm's ViT and Swin: where they are, how wide, and their two branches."""

# B batch, T tokens, D width; Swin's activations have (rows, columns) where ViT's have T

from dataclasses import dataclass
from typing import Any, Self

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
    """A frozen block with something trainable around it; masks are passed through to its attention."""

    def __init__(self, block: nn.Module, site: Site, config: AdapterConfig, generator: Generator | None = None):
        super().__init__()
        self.block = block
        self.scale = config.scale


def block_lists(backbone: Any) -> list[nn.Sequential]:
    """The containers of a timm ViT's or Swin's transformer blocks, first to last."""
    if hasattr(backbone, "blocks"):
        return [backbone.blocks]
    return [layer.blocks for layer in getattr(backbone, "layers", [])]


def blocks_of(backbone: nn.Module) -> list[nn.Module]:
    """All transformer blocks, first to last, adapted or not."""
    return [block for blocks in block_lists(backbone) for block in blocks]


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


def attention_branch(block: Any, x_BTD: Tensor, **masks: Any) -> Tensor:
    """What a timm block adds to the stream through attention, with its norm, layer scale and drop-path."""
    return block.drop_path1(attention(block, block.norm1(x_BTD), **masks))


def attention(block: Any, normed_BTD: Tensor, **masks: Any) -> Tensor:
    """Attention of a timm block on the normed stream, with its layer scale."""
    if hasattr(block, "_attn"):  # Swin: windows, and masks of its own
        return block._attn(normed_BTD)
    return block.ls1(block.attn(normed_BTD, **masks))


def mlp_branch(block: Any, x_BTD: Tensor) -> Tensor:
    """What a timm block adds to the stream through its MLP."""
    return block.drop_path2(mlp(block, block.norm2(x_BTD)))


def mlp(block: Any, normed_BTD: Tensor) -> Tensor:
    """MLP of a timm block on the normed stream, with its layer scale."""
    branch_BTD = block.mlp(normed_BTD)
    return block.ls2(branch_BTD) if hasattr(block, "ls2") else branch_BTD

"""The adapter modules and how they sit in a transformer block."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from idat_tune import kinds
from idat_tune.adapters import operations
from idat_tune.adapters.blocks import AdaptedBlock, Site, block_lists, blocks_of, check_blocks, plain, width_of
from idat_tune.adapters.bottleneck import AdaptFormer, Parallel, ParallelShared, Sequential
from idat_tune.adapters.convpass import Convpass
from idat_tune.adapters.operations import INIT_STD, LoraQkv, RepLinear, merge
from idat_tune.adapters.prompts import VptDeep
from idat_tune.config import AdapterConfig
from idat_tune.errors import BadInput

__all__ = [
    "INIT_STD",
    "INSERT",
    "AdaptedBlock",
    "block_lists",
    "blocks_of",
    "insert",
    "merge",
    "plain",
    "set_scale",
    "width_of",
]

Insert = Callable[[nn.Module, AdapterConfig, Generator | None], None]


def _around_every_block(wrapper: type[AdaptedBlock]) -> Insert:
    def wrap(backbone: nn.Module, config: AdapterConfig, generator: Generator | None) -> None:
        for blocks in block_lists(backbone):
            for index, block in enumerate(blocks):
                blocks[index] = wrapper(block, Site.of(block, backbone), config, generator)

    return wrap


# How each of `kinds.KINDS` gets into a frozen backbone.
INSERT: dict[str, Insert] = {
    "sequential": _around_every_block(Sequential),
    "parallel": _around_every_block(Parallel),
    "parallel_shared": _around_every_block(ParallelShared),
    "linear": operations.linear,
    "full": operations.full,
    "bitfit": operations.bitfit,
    "lora": operations.lora,
    "ssf": operations.ssf,
    "vpt_deep": _around_every_block(VptDeep),
    "adaptformer": _around_every_block(AdaptFormer),
    "repadapter": operations.repadapter,
    "convpass": _around_every_block(Convpass),
}


def insert(backbone: nn.Module, config: AdapterConfig, generator: Generator | None = None) -> None:
    """Make a frozen backbone without head trainable in the configured way, in place.

    Initial values are drawn from `generator`, block by block.

    Raises:
        BadInput: the backbone's blocks are not those of timm's ViT or Swin, or the adapter is wider than one of them.
    """
    check_blocks(backbone)
    narrowest = min(width_of(block) for block in blocks_of(backbone))
    kind = kinds.KINDS[config.kind]
    limited = kind.hidden_up_to_width and "adapter.hidden_dim" in kind.uses
    if limited and config.hidden_dim > narrowest:
        raise BadInput(
            f"adapter.hidden_dim {config.hidden_dim} is larger than the narrowest block, which is {narrowest} wide; "
            f"take {narrowest} or less"
        )
    with torch.device(next(backbone.parameters()).device):
        INSERT[config.kind](backbone, config, generator)


def set_scale(backbone: nn.Module, scale: Tensor) -> None:
    """Let all adapters take their scale, if they have one, from a tensor () on their device, which may change."""
    for module in backbone.modules():
        if isinstance(module, AdaptedBlock | LoraQkv | RepLinear):
            module.scale = scale

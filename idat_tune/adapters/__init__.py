"""The adapter modules and how they sit in a transformer block."""

from importlib import import_module

import torch
from torch import Generator, Tensor, nn

from idat_tune import kinds
from idat_tune.adapters.blocks import AdaptedBlock, Site, block_lists, blocks_of, check_blocks, family, plain, width_of
from idat_tune.adapters.gist import draw_token, has_token, insert_token
from idat_tune.adapters.mosa import MosaAdapter, deployed
from idat_tune.adapters.operations import INIT_STD, Scaled, merge
from idat_tune.adapters.pace import Noise, add_noise, noises_of
from idat_tune.config import AdapterConfig
from idat_tune.errors import BadInput

__all__ = [
    "INIT_STD",
    "AdaptedBlock",
    "Noise",
    "add_noise",
    "block_lists",
    "blocks_of",
    "deploy",
    "deployed",
    "draw_token",
    "family",
    "has_token",
    "insert",
    "insert_token",
    "merge",
    "noises_of",
    "plain",
    "set_scale",
    "width_of",
]


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
        module, name = kind.code.split(".")
        code = getattr(import_module(f"{__name__}.{module}"), name)
        if isinstance(code, type):
            _around_every_block(code, backbone, config, generator)
        else:
            code(backbone, config, generator)


def _around_every_block(
    wrapper: type[AdaptedBlock], backbone: nn.Module, config: AdapterConfig, generator: Generator | None
) -> None:
    for blocks in block_lists(backbone):
        for index, block in enumerate(blocks):
            blocks[index] = wrapper(block, Site.of(block, backbone), config, generator)


def deploy(backbone: nn.Module) -> None:
    """Let go of what only training needs, in place; what is computed in eval mode stays the same."""
    for module in list(backbone.modules()):
        if isinstance(module, MosaAdapter):
            module.deploy()


def set_scale(backbone: nn.Module, scale: Tensor) -> None:
    """Let all adapters take their scale, if they have one, from a tensor () on their device, which may change."""
    for module in backbone.modules():
        if isinstance(module, AdaptedBlock | Scaled):
            module.scale = scale

"""A model cut in two: what no training changes, computed once per image, and the rest, computed every step."""

# B images of a batch, N images in all, T tokens, D width, C classes

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from timm.layers import DropPath
from timm.models.vision_transformer import Attention, VisionTransformer
from torch import Tensor, nn

from idat_tune.adapters import AdaptedBlock, has_token, plain
from idat_tune.model import AdaptedModel

CHUNK = 100  # images at a time, where a prefix is computed

Parts = tuple[Tensor, ...]  # what a prefix gives: tensors whose first dimension counts images


class Cut:
    """`suffix(prefix(pixels))` equals `model(pixels)`: the prefix is all that precedes what trains or is random.

    Inputs never change, as nothing is augmented; so a prefix is computed once per image, and shared by all models whose
    `key` is the same. In the suffix the last block is computed only as far as the class token, which alone feeds the
    head, needs it. Neither applies to a Swin, nor where features of blocks are compared (`whole`): there the prefix is
    the pixels themselves. So it is without `cache`, for images so many that their prefixes find no room.
    """

    def __init__(self, model: AdaptedModel, whole: bool = False, cache: bool = True):
        self.model = model
        self._cut = not whole and _understood(model.backbone)
        self._blocks: list[Any] = list(model.backbone.blocks) if self._cut else []  # type: ignore[arg-type]
        self._read = 2 if has_token(model.backbone) else 1  # tokens that the head may see
        self._embeds = self._cut and cache and not _trains(_embedding(model.backbone))
        # Blocks that belong to the prefix as a whole; without an embedding there are none.
        self._depth = self._frozen_blocks() if self._embeds else 0
        self._inside = self._embeds and self._depth < len(self._blocks) and _begins_frozen(self._blocks[self._depth])

    def _frozen_blocks(self) -> int:
        changing = [_trains([block]) or _random(block) for block in self._blocks]
        return [*changing, True].index(True)

    @property
    def key(self) -> tuple[int, str]:
        """Where the cut is; for one backbone, the prefix depends on this alone."""
        if not self._embeds:
            return -1, ""
        return self._depth, type(self._blocks[self._depth]).frozen.__qualname__ if self._inside else ""

    @property
    def cuts(self) -> bool:
        """Whether the prefix computes anything."""
        return self._embeds

    def prefix(self, pixels: Tensor) -> Parts:
        """What never changes, of pixels (N, channels, H, W): tensors (N, ...), or the pixels themselves."""
        if not self._embeds:
            return (pixels,)
        whole: list[Tensor] = []
        with torch.no_grad(), _evaluating(self.model):
            for begin, chunk in zip(range(0, len(pixels), CHUNK), pixels.split(CHUNK), strict=True):
                parts = self._prefix(chunk)
                # Written where they stay: to join them in the end would take their memory twice.
                whole = whole or [part.new_empty(len(pixels), *part.shape[1:]) for part in parts]
                for place, part in zip(whole, parts, strict=True):
                    place[begin : begin + len(chunk)] = part
        return tuple(whole)

    def _prefix(self, pixels: Tensor) -> Parts:
        x_BTD = self._embedded(pixels)
        for index in range(self._depth):
            x_BTD = plain(self._blocks[index], x_BTD, self._wanted(index))
        return self._blocks[self._depth].frozen(x_BTD, self._wanted(self._depth)) if self._inside else (x_BTD,)

    def _embedded(self, pixels: Tensor) -> Tensor:
        backbone: Any = self.model.backbone
        return backbone.norm_pre(backbone._pos_embed(backbone.patch_embed(self.model.normalised(pixels))))

    def _wanted(self, index: int) -> int | None:
        """How many tokens of a block's output anyone looks at."""
        return self._read if index == len(self._blocks) - 1 else None

    def suffix(self, parts: Parts) -> Tensor:
        """What the model gives for B images, of what `prefix` gave for them."""
        if not self._cut:
            return self.model(*parts)
        start = self._depth
        if self._inside:
            x_BTD = self._blocks[start].adapted(*parts, first=self._wanted(start))
            start += 1
        else:
            x_BTD = parts[0] if self._embeds else self._embedded(parts[0])
        for index in range(start, len(self._blocks)):
            x_BTD = plain(self._blocks[index], x_BTD, self._wanted(index))
        backbone: Any = self.model.backbone
        return backbone.forward_head(backbone.norm(x_BTD))


def _understood(backbone: Any) -> bool:
    """Whether a backbone is computed as here: a plain ViT whose head sees the class token alone."""
    if type(backbone) is not VisionTransformer:
        return False
    attentions = [_inner(block).attn for block in backbone.blocks]
    return (
        backbone.global_pool == "token"
        and backbone.cls_token is not None
        and backbone.attn_pool is None
        and isinstance(backbone.patch_drop, nn.Identity)
        and all(type(attn) is Attention and getattr(attn, "gate", None) is None for attn in attentions)
    )


def _inner(block: Any) -> Any:
    return block.block if isinstance(block, AdaptedBlock) else block


def _embedding(backbone: Any) -> list[nn.Module | nn.Parameter]:
    parts = (backbone.patch_embed, backbone.norm_pre, backbone.cls_token, backbone.pos_embed, backbone.reg_token)
    return [part for part in parts if part is not None]


def _trains(parts: list[Any]) -> bool:
    parameters = [p for part in parts for p in ([part] if isinstance(part, nn.Parameter) else part.parameters())]
    return any(parameter.requires_grad for parameter in parameters)


def _random(block: nn.Module) -> bool:
    """Whether two passes in training mode may differ."""
    return any(isinstance(module, DropPath) or getattr(module, "p", 0.0) for module in block.modules())


def _begins_frozen(block: nn.Module) -> bool:
    return isinstance(block, AdaptedBlock) and not _random(block.block)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)

"""What a model makes of images inside: what its head is given, and where its class token looks in the last block."""

# B batch, N images, T tokens, D features, H W patches

from typing import Any

import torch
from timm.models.vision_transformer import Attention
from torch import Tensor, nn

from idat_tune.adapters import blocks_of
from idat_tune.config import RunConfig
from idat_tune.engine.devices import autocast
from idat_tune.engine.eager import EVAL_BATCH
from idat_tune.model import AdaptedModel


def looked_inside(model: AdaptedModel, pixels: Tensor, config: RunConfig) -> tuple[Tensor, Tensor | None]:
    """Features (N, D) that the head is given, and attention (N, H, W) of the class token; float32, on the CPU.

    Attention is of the last block, the mean of its heads, over the patches alone: what goes to the class token, to
    prompts and to a gist is left out, so it sums to less than 1. None for what has no class token, as a Swin.
    Leaves the model in eval mode.

    Args:
        model: a student, or a teacher.
        pixels: (N, channels, H, W) in 0..255, on the model's device.
        config: what the model was trained with.
    """
    model.eval()
    found = _Found(model)
    try:
        with torch.no_grad():
            for pixels_B in pixels.split(EVAL_BATCH):
                with autocast(config, pixels.device):
                    model(pixels_B)
                found.next()  # in full precision
    finally:
        found.close()
    return torch.cat(found.features), torch.cat(found.attention) if found.attention else None


class _Found:
    """What passes by in a model's forwards."""

    def __init__(self, model: AdaptedModel):
        self.features: list[Tensor] = []
        self.attention: list[Tensor] = []
        self._seen: dict[str, Tensor] = {}
        backbone: Any = model.backbone
        self._hooks = [backbone.get_classifier().register_forward_pre_hook(self._head)]
        self._last = _attention(blocks_of(backbone)[-1])
        self._grid = getattr(getattr(backbone, "patch_embed", None), "grid_size", None)
        if self._last is not None and self._grid and getattr(backbone, "cls_token", None) is not None:
            for name in ("q_norm", "k_norm"):  # which queries and keys pass, however they came about
                self._hooks.append(getattr(self._last, name).register_forward_hook(self._kept(name)))

    def _head(self, head: nn.Module, given: tuple[Tensor, ...]) -> None:
        self._seen["features"] = given[0]

    def _kept(self, name: str) -> Any:
        def hook(norm: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
            self._seen[name] = output

        return hook

    def next(self) -> None:
        """Take what passed by since the last time."""
        seen, self._seen = self._seen, {}
        self.features.append(seen["features"].float().cpu())
        if "q_norm" not in seen:
            return
        first, keys = seen["q_norm"][..., :1, :].float(), seen["k_norm"].float()
        attention_BT = (first * keys.shape[-1] ** -0.5 @ keys.transpose(-2, -1)).softmax(-1).mean(1)[:, 0]
        assert self._grid is not None
        height, width = self._grid
        of_patches = attention_BT[:, -height * width :]  # which stand last
        self.attention.append(of_patches.unflatten(1, (height, width)).cpu())

    def close(self) -> None:
        """Look no more."""
        for hook in self._hooks:
            hook.remove()


def _attention(block: nn.Module) -> Attention | None:
    return next((module for module in block.modules() if type(module) is Attention), None)

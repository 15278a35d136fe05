"""Frozen backbones on a device: read once per name, shared by all models that are built on them."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from idat_tune.model import AdaptedModel, frozen_backbone


class Frozen:
    """Backbones by name; their values are held once per type, however many models compute with them."""

    def __init__(self, device: torch.device):
        self.device = device
        self._backbones: dict[tuple[str, int | None], nn.Module] = {}  # by name and image size
        # By address, which stays one tensor's own as long as `_backbones` keeps it, and type.
        self._placed: dict[tuple[int, torch.dtype], Tensor] = {}

    def backbone(self, name: str, image_size: int | None) -> nn.Module:
        """A backbone on the CPU with modules of its own, but the values of all others of its name and size."""
        key = name, image_size
        if key not in self._backbones:
            self._backbones[key] = frozen_backbone(name, image_size)
        kept = self._backbones[key]
        own = {id(value): nn.Parameter(value.detach(), requires_grad=False) for value in kept.parameters()}
        shared: dict[int, Any] = {**own, **{id(buffer): buffer for buffer in kept.buffers()}}
        return copy.deepcopy(kept, shared)

    def place(self, model: AdaptedModel, dtype: torch.dtype) -> None:
        """Move a model whose backbone came from here to the device; what is frozen in it computes in that type.

        Buffers follow the type as weights do, or attention would meet masks of another; indices stay integers, and the
        model's own buffers as they are, as they take bytes to what the backbone wants. What trains stays in fp32, and
        is the model's own from then on.
        """
        model.dtype = dtype
        kept = {value.data_ptr() for of_one in self._backbones.values() for value in _values(of_one)}
        for parameter in model.parameters():
            if parameter.data_ptr() in kept:
                value = parameter.detach()
                parameter.data = value.clone() if parameter.requires_grad else self._shared(value, dtype)
        for module in model.backbone.modules():
            for name, buffer in module._buffers.items():
                if buffer is None:
                    continue
                asked = dtype if buffer.is_floating_point() else buffer.dtype
                in_kept = buffer.data_ptr() in kept  # else an adapter's own
                module._buffers[name] = self._shared(buffer, asked) if in_kept else buffer.to(asked)
        model.to(self.device)

    def _shared(self, value: Tensor, dtype: torch.dtype) -> Tensor:
        address = value.data_ptr(), dtype
        if address not in self._placed:
            self._placed[address] = value.to(self.device, dtype)
        return self._placed[address]


def _values(backbone: nn.Module) -> list[Tensor]:
    return [*backbone.parameters(), *backbone.buffers()]

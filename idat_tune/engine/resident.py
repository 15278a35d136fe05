"""What a worker keeps from one trial to the next: images, frozen backbones, prefixes."""

# N images in all

import copy
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from idat_tune.config import RunConfig
from idat_tune.data import Images
from idat_tune.engine.devices import autocast
from idat_tune.engine.split import Parts, Split
from idat_tune.model import AdaptedModel, build_pair, frozen_backbone

CPU_ROOM = 2 * 2**30  # bytes that prefixes may take of a CPU's memory, per worker
GPU_SHARE = 8  # and the part of a GPU's memory: one in so many


class Resident:
    """Images on a device, with all that can be computed from them and the frozen backbones once and for all.

    Trials name the images they use by row, so that every split of them (explore's, a fold's, all of them) shares one
    copy and one prefix. Nothing that a trial changes is kept here.
    """

    def __init__(self, images: Images, device: torch.device):
        """Take the images, whose bytes are copied to the device once."""
        self.device = device
        # The arrays may be read-only views of memory that other processes share.
        self.pixels = torch.tensor(images.pixels, device=device)
        self.labels = torch.tensor(images.labels, device=device)
        self._backbones: dict[str, nn.Module] = {}
        self._placed: dict[int, Tensor] = {}  # by the address of what was placed, which `_backbones` keeps alive
        self._prefixes: OrderedDict[tuple, Parts] = OrderedDict()

    def build_pair(self, config: RunConfig, classes: int) -> tuple[AdaptedModel, AdaptedModel | None]:
        """As `model.build_pair`, on the device; what is frozen is shared with every other pair built here.

        Raises:
            BadInput: as `model.build_pair`.
        """
        student, teacher = build_pair(config, classes, self._backbone)
        for model in (student, teacher):
            if model is not None:
                self._place(model)
        return student, teacher

    def _backbone(self, name: str) -> nn.Module:
        """A backbone on the CPU with modules of its own, but the values of all others of its name."""
        if name not in self._backbones:
            self._backbones[name] = frozen_backbone(name)
        kept = self._backbones[name]
        own = {id(value): nn.Parameter(value.detach(), requires_grad=False) for value in kept.parameters()}
        shared: dict[int, Any] = {**own, **{id(buffer): buffer for buffer in kept.buffers()}}
        return copy.deepcopy(kept, shared)

    def _place(self, model: AdaptedModel) -> None:
        if self.device.type != "cpu":
            known = {p.data_ptr() for backbone in self._backbones.values() for p in backbone.parameters()}
            for parameter in model.parameters():
                address = parameter.data_ptr()
                if address in known:
                    if address not in self._placed:
                        self._placed[address] = parameter.detach().to(self.device)
                    parameter.data = self._placed[address]
            model.to(self.device)

    def split(self, model: AdaptedModel, config: RunConfig, whole: bool) -> Split:
        """A model cut where its prefix ends; without a prefix where that of all images would find no room."""
        split = Split(model, whole)
        if not split.cuts:
            return split
        with autocast(config, self.device):
            one = split.prefix(self.pixels[:1])
        size = sum(part.nbytes for part in one) * len(self.labels)
        return split if size <= self._room() // 2 else Split(model, whole, cache=False)

    def prefix(self, name: str, split: Split, config: RunConfig) -> Parts:
        """The prefix of all images through a backbone of that name: computed once for all cuts in the same place."""
        if not split.cuts:
            return split.prefix(self.pixels)
        with autocast(config, self.device):
            key = (name, split.key, torch.is_autocast_enabled(self.device.type))
            if key not in self._prefixes:
                self._prefixes[key] = split.prefix(self.pixels)
        self._prefixes.move_to_end(key)
        while len(self._prefixes) > 1 and self.prefix_bytes() > self._room():
            self._prefixes.popitem(last=False)
        return self._prefixes[key]

    def prefix_bytes(self) -> int:
        """What all prefixes take of the device's memory."""
        return sum(part.nbytes for parts in self._prefixes.values() for part in parts)

    def _room(self) -> int:
        if self.device.type != "cuda":
            return CPU_ROOM
        return torch.cuda.get_device_properties(self.device).total_memory // GPU_SHARE

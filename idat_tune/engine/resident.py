"""What a worker keeps from one trial to the next: images, frozen backbones, prefixes."""

# N images in all

import copy
import gc
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from idat_tune.config import RunConfig
from idat_tune.data import Images
from idat_tune.engine.devices import autocast, bf16
from idat_tune.engine.split import Parts, Split
from idat_tune.model import AdaptedModel, build_pair, frozen_backbone

CPU_ROOM = 2 * 2**30  # bytes that prefixes may take of a CPU's memory, per worker
GPU_SHARE = 8  # and the part of a GPU's memory: one in so many
STAGES = 96  # that stay recorded; three kinds, four buckets of hidden dimensions and four teachers are 48 shapes


class Resident:
    """Images on a device, with all that can be computed from them and the frozen backbones once and for all.

    Trials name the images they use by row, so that every split of them (explore's, a fold's, all of them) shares one
    copy and one prefix. Nothing that a trial changes is kept here.
    """

    def __init__(
        self,
        images: Images,
        device: torch.device,
        staged: bool | None = None,
        compiled: bool = False,
        two_streams: bool = False,
    ):
        """Take the images, whose bytes are copied to the device once.

        Args:
            images: all that trials may see.
            device: where they compute.
            staged: whether trials run on stages; unless given, where that pays: on CUDA, where their steps are
                recorded, and in bf16 on a CPU, as they hold what is frozen in it.
            compiled: whether stages compile the blocks of their models; `compiling.pays` says when to.
            two_streams: whether stages compute the teacher beside the student on CUDA. Not yet measured, so off.
        """
        self.device = device
        self._staged = staged
        self.compiled = compiled
        self.side = torch.cuda.Stream(device) if two_streams and device.type == "cuda" else None
        # The arrays may be read-only views of memory that other processes share.
        self.pixels = torch.tensor(images.pixels, device=device)
        self.labels = torch.tensor(images.labels, device=device)
        self._backbones: dict[tuple[str, int | None], nn.Module] = {}  # by name and image size
        # By address, which stays one tensor's own as long as `_backbones` keeps it, and type.
        self._placed: dict[tuple[int, torch.dtype], Tensor] = {}
        self._prefixes: OrderedDict[Hashable, Parts] = OrderedDict()
        self._stages: OrderedDict[Hashable, Any] = OrderedDict()
        self.graph_pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None

    def stages(self, config: RunConfig) -> bool:
        """Whether that run takes a stage; never where features are compared, as a stage knows logits alone."""
        if config.distill.loss == "feature" and not config.alone:
            return False
        if self._staged is not None:
            return self._staged
        return self.device.type == "cuda" or (self.device.type == "cpu" and bf16(config, self.device))

    def build_pair(
        self, config: RunConfig, classes: int, dtype: torch.dtype = torch.float32
    ) -> tuple[AdaptedModel, AdaptedModel | None]:
        """As `model.build_pair`, on the device; what is frozen is of that type and shared by all pairs built here.

        Raises:
            BadInput: as `model.build_pair`.
        """
        student, teacher = build_pair(config, classes, self._backbone)
        for model in (student, teacher):
            if model is not None:
                self._place(model, dtype)
        return student, teacher

    def _backbone(self, name: str, image_size: int | None) -> nn.Module:
        """A backbone on the CPU with modules of its own, but the values of all others of its name."""
        key = name, image_size
        if key not in self._backbones:
            self._backbones[key] = frozen_backbone(name, image_size)
        kept = self._backbones[key]
        own = {id(value): nn.Parameter(value.detach(), requires_grad=False) for value in kept.parameters()}
        shared: dict[int, Any] = {**own, **{id(buffer): buffer for buffer in kept.buffers()}}
        return copy.deepcopy(kept, shared)

    def _place(self, model: AdaptedModel, dtype: torch.dtype) -> None:
        model.dtype = dtype
        if self.device.type != "cpu" or dtype is not torch.float32:
            kept = {p.data_ptr() for backbone in self._backbones.values() for p in backbone.parameters()}
            for parameter in model.parameters():
                address = parameter.data_ptr(), dtype
                if address[0] in kept and not parameter.requires_grad:
                    if address not in self._placed:
                        self._placed[address] = parameter.detach().to(self.device, dtype)
                    parameter.data = self._placed[address]
            model.to(self.device)

    def stage(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The stage of that key, made if it is the first time; the least recently used of too many is let go."""
        if key not in self._stages:
            self._stages[key] = make()
        self._stages.move_to_end(key)
        while len(self._stages) > STAGES:
            self._stages.popitem(last=False)
        return self._stages[key]

    def release(self) -> None:
        """Let go of all that can be made again; the images and the backbones stay."""
        self._stages.clear()
        self._prefixes.clear()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def split(self, model: AdaptedModel, config: RunConfig, whole: bool) -> Split:
        """A model cut where its prefix ends; without a prefix where that of all images would find no room."""
        split = Split(model, whole)
        if not split.cuts:
            return split
        with _precision(split, config):
            one = split.prefix(self.pixels[:1])
        size = sum(part.nbytes for part in one) * len(self.labels)
        return split if size <= self._room() // 2 else Split(model, whole, cache=False)

    def prefix(self, name: str, split: Split, config: RunConfig) -> Parts:
        """The prefix of all images through a backbone of that name: computed once for all cuts in the same place."""
        if not split.cuts:
            return split.prefix(self.pixels)
        with _precision(split, config):
            key = (name, split.key, split.model.dtype, torch.is_autocast_enabled(self.device.type))
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


def _precision(split: Split, config: RunConfig) -> AbstractContextManager:
    """A model whose frozen part is of lower precision computes in it as it is; another is cast as it goes."""
    model = split.model
    return nullcontext() if model.dtype is not torch.float32 else autocast(config, model.device)

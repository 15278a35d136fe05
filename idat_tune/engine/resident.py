"""What a worker keeps from one trial to the next: images, frozen backbones, prefixes."""

# N images in all

import gc
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from idat_tune.config import RunConfig
from idat_tune.data import Images
from idat_tune.engine.cut import Cut, Parts
from idat_tune.engine.devices import autocast, bf16
from idat_tune.engine.frozen import Frozen
from idat_tune.engine.graphs import Recorder
from idat_tune.engine.room import counted, held, room
from idat_tune.kinds import KINDS
from idat_tune.model import AdaptedModel, build, build_pair

RECORDINGS = 96  # that stay recorded; three kinds, four buckets of hidden dimensions and four teachers are 48 shapes


class Resident:
    """Images on a device, with all that can be computed from them and the frozen backbones once and for all.

    Trials name the images they use by row, so that every split of them (explore's, a fold's, all of them) shares one
    copy and one prefix. Nothing that a trial changes is kept here.
    """

    def __init__(
        self,
        images: Images,
        device: torch.device,
        recorded: bool | None = None,
        two_streams: bool = True,
        share: float = 1.0,
    ):
        """Take the images, whose bytes are copied to the device once.

        Args:
            images: all that trials may see.
            device: where they compute.
            recorded: whether trials run on recordings; unless given, where that pays: on CUDA, where their steps are
                recorded, and in bf16 on a CPU, as they hold what is frozen in it.
            two_streams: whether these compute the teacher beside the student on CUDA: 1.13 times as fast on an H100.
            share: the part of a GPU that is this process's.
        """
        # The arrays may be read-only views of memory that other processes share.
        self.pixels = torch.tensor(images.pixels, device=device)
        self.labels = torch.tensor(images.labels, device=device)
        self.device = device
        self._recorded = recorded
        self._share = share
        self.side = torch.cuda.Stream(device) if two_streams and device.type == "cuda" else None
        self.recorder = Recorder(device)
        self._frozen = Frozen(device)
        self._prefixes: OrderedDict[Hashable, Parts] = OrderedDict()
        self._recordings: OrderedDict[Hashable, Any] = OrderedDict()

    def records(self, config: RunConfig) -> bool:
        """Whether that run takes a recording.

        Never where features are compared, as a recording knows logits alone, nor with other randomness than drop-path.
        """
        if (config.distill.loss == "feature" and not config.alone) or config.pace.weight:
            return False
        kind = KINDS[config.adapter.kind]
        if not kind.records or (config.adapter.dropout and "adapter.dropout" in kind.uses):
            return False
        if self._recorded is not None:
            return self._recorded
        return self.device.type == "cuda" or (self.device.type == "cpu" and bf16(config, self.device))

    def build_pair(
        self, config: RunConfig, classes: int, dtype: torch.dtype = torch.float32
    ) -> tuple[AdaptedModel, AdaptedModel | None]:
        """As `model.build_pair`, on the device; what is frozen is of that type and shared by all pairs built here.

        Raises:
            BadInput: as `model.build_pair`.
        """
        student, teacher = build_pair(config, classes, self._frozen.backbone)
        for model in (student, teacher):
            if model is not None:
                self._frozen.place(model, dtype)
        return student, teacher

    def build_student(self, config: RunConfig, classes: int) -> AdaptedModel:
        """A student alone, as of `build_pair`, in fp32.

        Raises:
            BadInput: as `model.build`.
        """
        student = build(config.student, classes, config, 2 * config.seed, self._frozen.backbone)
        self._frozen.place(student, torch.float32)
        return student

    def recording(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The recording of that key, made if it is the first time; the least recently used of too many is let go."""
        if key not in self._recordings:
            self._recordings[key] = make()
        self._recordings.move_to_end(key)
        while len(self._recordings) > RECORDINGS:
            self._recordings.popitem(last=False)
        return self._recordings[key]

    def release(self) -> None:
        """Let go of all that can be made again; the images and the backbones stay."""
        self._recordings.clear()
        self._prefixes.clear()
        self._collect()

    def _collect(self) -> None:
        gc.collect()  # a recording and its steps know each other
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def cut(self, name: str, model: AdaptedModel, config: RunConfig, whole: bool = False) -> tuple[Cut, Parts]:
        """A model cut where its prefix ends, and the prefix of all images through a backbone of that name.

        A prefix is computed once for all cuts in the same place. Where there is no room for it, the cut is that of a
        model without one, whose prefix are the images.
        """
        split = Cut(model, whole)
        if split.cuts:
            with _precision(split, config):
                key = (name, split.key, model.dtype, torch.is_autocast_enabled(self.device.type))
                if key in self._prefixes or self._find_room(split):
                    if key not in self._prefixes:
                        self._prefixes[key] = counted(split.prefix(self.pixels))
                    self._prefixes.move_to_end(key)
                    return split, self._prefixes[key]
            split = Cut(model, whole, cache=False)
        return split, split.prefix(self.pixels)

    def _find_room(self, split: Cut) -> bool:
        """Whether a prefix may be computed; to make room the least recently used ones go, each with its recordings."""
        size = sum(part.nbytes for part in split.prefix(self.pixels[:1])) * len(self.labels)
        most = room(self.pixels.device, self._share)
        if size > most // 2:  # as the other model of a pair has one too
            return False
        while self._prefixes and self.prefix_bytes() + size > most:
            self._let_go()
        return self.prefix_bytes() + size <= most

    def _let_go(self) -> None:
        _, parts = self._prefixes.popitem(last=False)
        self._recordings = OrderedDict(
            (key, recording)
            for key, recording in self._recordings.items()
            if all(of_one is not parts for of_one in recording.parts)
        )
        del parts
        self._collect()

    def prefix_bytes(self) -> int:
        """What all prefixes of this process take of the device's memory, whoever holds them."""
        return held(self.pixels.device)


def _precision(split: Cut, config: RunConfig) -> AbstractContextManager:
    """A model whose frozen part is of lower precision computes in it as it is; another is cast as it goes."""
    model = split.model
    return nullcontext() if model.dtype is not torch.float32 else autocast(config, model.device)

"""A few real epochs on a Ray worker: how fast a config trains there, and what memory it takes."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from idat_tune.config import RunConfig
from idat_tune.data import Images
from idat_tune.metrics import Speed
from idat_tune.run import run
from idat_tune.trial import settle

FEW_STEPS = 2  # of the first look at a config, which says whether whole epochs can be afforded
AFFORDED = 2.0  # seconds that an epoch may take to be measured as a whole


@dataclass(frozen=True)
class Probed:
    """What a config takes on a worker."""

    speed: Speed
    memory_gb: float | None  # peak that PyTorch held on the GPU, 1e9 bytes; None without CUDA


class Prober:
    """The work of a Ray actor that stands where a trial would."""

    def __init__(self, images: Mapping[str, Images]):
        settle()
        self.train, self.val = images["train"], images["val"]

    def ready(self) -> dict[str, Any]:
        """What the worker is; answers once all imports are through."""
        cuda = torch.cuda.is_available()
        return {
            "pid": os.getpid(),
            "device": torch.cuda.get_device_name() if cuda else "cpu",
            "gpu_gb": torch.cuda.mem_get_info()[1] / 1e9 if cuda else None,  # of a whole GPU
        }

    def probe(self, configs: Sequence[RunConfig]) -> list[Probed]:
        """Each of the configs, one after the other."""
        return [probe(config, self.train, self.val) for config in configs]


def probe(config: RunConfig, train: Images, val: Images) -> Probed:
    """Train a config for a few steps, or for whole epochs where that takes no time."""
    few = FEW_STEPS * config.batch_size
    quick = _timed(config, _first(train, few), _first(val, few), 1)
    slow = quick.speed.run(1, len(train), len(val)) > AFFORDED
    return quick if slow else _timed(config, train, val, 2)


def _first(images: Images, count: int) -> Images:
    return Images(images.pixels[:count], images.labels[:count])


def _timed(config: RunConfig, train: Images, val: Images, epochs: int) -> Probed:
    """So many epochs after a first one, in which caches are filled."""
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    training = run(config.updated({"epochs": max(config.epochs, epochs + 1)}), train, val)
    set_up = time.perf_counter() - began
    shown = [*islice(training, epochs + 1)]
    memory = torch.cuda.max_memory_reserved() / 1e9 if cuda else None
    return Probed(Speed.shown(shown, len(train), len(val), set_up), memory)

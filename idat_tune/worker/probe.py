"""A few real epochs on a Ray worker: how fast a config trains there, and what memory it takes."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from idat_tune.config import RunConfig
from idat_tune.data import Images, joined
from idat_tune.engine.devices import choose_device
from idat_tune.engine.resident import Resident
from idat_tune.metrics import Speed
from idat_tune.run import run_on
from idat_tune.worker.supply import Wanted, supply
from idat_tune.worker.trial import gpu_share, settle

FEW_STEPS = 2  # of the first look at a config, which says whether whole epochs can be afforded
AFFORDED = 2.0  # seconds that an epoch may take to be measured as a whole


@dataclass(frozen=True)
class Probed:
    """What a config takes on a worker."""

    speed: Speed
    memory_gb: float | None  # peak that PyTorch held on the GPU, 1e9 bytes; None without CUDA


class Prober:
    """The work of a Ray actor that stands where a trial would."""

    def __init__(self, images: Mapping[str, Images], wanted: Wanted | None = None):
        supply(wanted)
        settle()
        self.images = images
        self.resident: Resident | None = None

    def ready(self) -> dict[str, Any]:
        """What the worker is; answers once all imports are through."""
        cuda = torch.cuda.is_available()
        return {
            "device": torch.cuda.get_device_name() if cuda else "cpu",
            "gpu_gb": torch.cuda.mem_get_info()[1] / 1e9 if cuda else None,  # of a whole GPU
        }

    def probe(self, configs: Sequence[RunConfig]) -> list[Probed]:
        """Each of the configs, one after the other, on images that stay where they are."""
        train, val = self.images["train"], self.images["val"]
        rows = torch.arange(len(train) + len(val)).tensor_split([len(train)])
        found = []
        for config in configs:
            if self.resident is None:
                self.resident = Resident(joined(train, val), choose_device(config.device), share=gpu_share())
            found.append(probe(self.resident, config, *rows))
        return found


def probe(resident: Resident, config: RunConfig, train: Tensor, val: Tensor) -> Probed:
    """Train a config twice: for a few steps, then for as many or, where that takes no time, for whole epochs.

    The first time, what the worker keeps from trial to trial is made; it is not counted.
    """
    few = FEW_STEPS * config.batch_size
    quick = _timed(resident, config, train[:few], val[:few], 1)
    if quick.speed.run(1, len(train), len(val)) > AFFORDED:
        return _timed(resident, config, train[:few], val[:few], 1)
    return _timed(resident, config, train, val, 2)


def _timed(resident: Resident, config: RunConfig, train: Tensor, val: Tensor, epochs: int) -> Probed:
    """So many epochs after a first one, in which steps are captured."""
    cuda = resident.device.type == "cuda"
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(resident.device)
    began = time.perf_counter()
    training = run_on(resident, config.updated({"epochs": max(config.epochs, epochs + 1)}), train, val)
    set_up = time.perf_counter() - began
    shown = [*islice(training, epochs + 1)]
    memory = torch.cuda.max_memory_reserved(resident.device) / 1e9 if cuda else None
    return Probed(Speed.shown(shown, len(train), len(val), set_up), memory)

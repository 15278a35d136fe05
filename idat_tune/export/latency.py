"""How long a student takes for one image on this device, before there is one."""

import statistics
import time

import torch

from idat_tune.backbones import RANDOM
from idat_tune.config import RunConfig
from idat_tune.engine.devices import choose_device
from idat_tune.export.student import Pair
from idat_tune.export.whole import merges
from idat_tune.model import build

WARM, TIMED = 5, 21  # forward passes before and while it is measured


def milliseconds(config: RunConfig, merged: bool, pair: bool, device: str = "auto") -> float:
    """Median time of a warm forward pass of one image, in ms, in fp32 as an export computes.

    Of a model with random values, which takes the time of any other; so nothing must be trained for it.

    Args:
        config: the run that trains the student.
        merged: with its adapters merged into its backbone, where their kind can.
        pair: with its teacher.
        device: that it is measured on.
    """
    where = choose_device(device)
    built = []
    for name in (config.student, config.teacher) if pair else (config.student,):
        model = build(RANDOM + name.removeprefix(RANDOM), config.classes, config, seed=0).eval()
        if merged and merges(config, pair):
            model.merge(config.adapter.kind)
        built.append(model)
    whole = Pair(*built) if pair else built[0]
    whole.to(where)
    spec = whole.spec
    pixels = torch.zeros(1, spec.channels, spec.size, spec.size, dtype=torch.uint8, device=where)
    times = []
    with torch.no_grad():
        for _ in range(WARM + TIMED):
            began = time.perf_counter()
            whole(pixels).cpu()  # which waits for the device
            times.append(time.perf_counter() - began)
    return 1e3 * statistics.median(times[WARM:])

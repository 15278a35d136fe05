"""Running out of memory as an error that names the run, after which the worker lives on."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from idat_tune.config import RunConfig
from idat_tune.engine.resident import Resident
from idat_tune.errors import OutOfMemory

_OF_THE_CPU = "can't allocate memory"  # what torch's allocator says there, in a plain RuntimeError


@contextmanager
def watched(config: RunConfig, resident: Resident) -> Iterator[None]:
    """Within, running out of memory frees what the run and the worker hold and can make again.

    Raises:
        OutOfMemory: instead of torch's own error; names the config and the peak.
    """
    try:
        yield
    except RuntimeError as failure:
        if not isinstance(failure, torch.OutOfMemoryError) and _OF_THE_CPU not in str(failure):
            raise
        sentence = _sentence(config, resident)
        # Else its frames would hold the run's tensors for as long as anyone holds the error.
        traceback.clear_frames(failure.__traceback__)
        failure.__traceback__ = None
        resident.release()
        raise OutOfMemory(sentence) from None


def _sentence(config: RunConfig, resident: Resident) -> str:
    device = resident.device
    held = ""
    if device.type == "cuda":
        peak, whole = torch.cuda.max_memory_allocated(device), torch.cuda.get_device_properties(device).total_memory
        held = f" of {whole / 1e9:.1f} GB, {peak / 1e9:.1f} GB of them at the peak of this run"
    return (
        f"{device} ran out of memory{held}: student {config.student}, teacher {config.teacher}, adapter.kind "
        f"{config.adapter.kind}, adapter.hidden_dim {config.adapter.hidden_dim}, batch_size {config.batch_size}; "
        "take a smaller batch_size or teacher, or fewer trials at once on the device"
    )

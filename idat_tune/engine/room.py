"""How much memory prefixes may take: one budget for a process, told by what is alive of all that it computed."""

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

CPU_ROOM = 2 * 2**30  # bytes of a CPU's memory, per process
GPU_SHARE = 8  # and of a GPU's memory one part in so many, which all processes that share the GPU divide

_ALIVE = WeakTensorKeyDictionary()  # whoever holds them: a worker's cache, a recording, a run


def counted(parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The same tensors, which take room from now on until they are gone."""
    for part in parts:
        _ALIVE[part] = None
    return parts


def held(device: torch.device) -> int:
    """Bytes that prefixes take of a device's memory."""
    return sum(part.nbytes for part in _ALIVE if part.device == device)


def room(device: torch.device, share: float) -> int:
    """Bytes that they may take, where a process has that share of the device."""
    if device.type != "cuda":
        return CPU_ROOM
    return int(torch.cuda.get_device_properties(device).total_memory * share) // GPU_SHARE

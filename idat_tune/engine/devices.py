"""Where a run computes, in what precision, and with which attention."""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from idat_tune.backbones import EMBEDDED, RANDOM
from idat_tune.config import RunConfig
from idat_tune.engine.attention import keep_side_by_side
from idat_tune.errors import BadInput

log = logging.getLogger(__name__)

AMPERE = (8, 0)  # the first CUDA devices that multiply bf16 matrices
# What CUDA's products need to give the same bytes every time; read when they are first used.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
FASTER = 1.4  # times that a CPU must be in bf16, as the rest of a step does not gain


def choose_device(name: str) -> torch.device:
    """The device of a name; `auto` takes CUDA, then Apple's MPS, then the CPU.

    A device that is there but cannot compute is passed over by `auto`, with one line in the log.

    Raises:
        BadInput: the device asked for is not there.
    """
    if name == "auto":
        there = [kind for kind in ("cuda", "mps", "cpu") if _there(kind)]
        with_next = zip(there, [*there[1:], ""], strict=True)
        return torch.device(next(kind for kind, instead in with_next if _computes(kind, instead)))
    device = torch.device(name)
    if not _there(device.type) or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        raise BadInput(f"device '{name}' is not on this machine; known: auto, cpu; `idat-tune doctor` tells more")
    return device


def gpus() -> int:
    """How many GPUs this machine has for trials; nothing is started on them."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _there(kind: str) -> bool:
    return {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}[kind]


def _computes(kind: str, instead: str) -> bool:
    """Whether a small computation succeeds; it does not where this build of torch has no kernels for the device."""
    if kind == "cpu":
        return True
    try:
        return torch.ones(2, device=kind).sum().item() == 2
    except torch.OutOfMemoryError:
        return True  # for others at the moment; a worker would go on to the CPU with all its later trials
    except RuntimeError as failure:
        log.warning("%s cannot be used, falling back to %s: %s", kind, instead, str(failure).split("\n")[0])
        return False


def broken(device: torch.device) -> bool:
    """Whether a device that computed before does so no more: after some errors CUDA fails until the process ends."""
    if device.type != "cuda":
        return False
    try:
        torch.cuda.synchronize(device)
        return torch.ones(2, device=device).sum().item() != 2
    except torch.OutOfMemoryError:
        return False
    except RuntimeError:
        return True


def bf16(config: RunConfig, device: torch.device) -> bool:
    """Whether a run multiplies in bf16: if that is asked for, and by `auto` where it is faster.

    That is on GPUs that have instructions for it, and on CPUs where it is measured, but for the embedded backbones,
    whose matrices are too small to gain anything. A search asks once and holds all its trials to the answer.
    """
    if config.precision != "auto":
        return config.precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= AMPERE
    return device.type == "cpu" and config.student.removeprefix(RANDOM) not in EMBEDDED and faster_in_bf16()


@cache
def faster_in_bf16() -> bool:
    """Whether this CPU multiplies bf16 matrices so much faster that runs are; measured once in a process.

    CPUs with instructions for it are 2 to 7 times as fast, without them slower: nothing is near the limit.
    """
    return _seconds_of_a_product(torch.float32) > FASTER * _seconds_of_a_product(torch.bfloat16)


def _seconds_of_a_product(dtype: torch.dtype) -> float:
    """Of an MLP's first layer in ViT-S, for 2 images; the best of a few, in time of the CPU, which others may share."""
    x, weight = torch.ones(394, 384, dtype=dtype), torch.ones(1536, 384, dtype=dtype)
    seconds = []
    for _ in range(8):
        began = time.thread_time()
        F.linear(x, weight)
        seconds.append(time.thread_time() - began)
    return min(seconds)


def autocast(config: RunConfig, device: torch.device) -> AbstractContextManager:
    """The mixed-precision context of a config."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if bf16(config, device) else nullcontext()


def fused(low_precision: bool, device: torch.device) -> bool:
    """Whether attention is one kernel: everywhere but in bf16 on a CPU, where plain products were measured faster."""
    return not (low_precision and device.type == "cpu")


def choose_attention(model: nn.Module, low_precision: bool, device: torch.device) -> None:
    """Let all attention of a model be computed as is best there."""
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            attention: Any = module
            attention.fused_attn = fused(low_precision, device)
            if device.type == "cuda":
                keep_side_by_side(attention)


@contextmanager
def repeating(device: torch.device) -> Iterator[None]:
    """Within, CUDA takes kernels that give the same bytes every time; of attention's backward pass it has others.

    Measured on an H100: they cost 5 % of a step. What is recorded within stays so.
    """
    if device.type != "cuda":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn: Any = torch.backends.cudnn
    memory: Any = torch.utils.deterministic
    of_cudnn, filled = cudnn.deterministic, memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, memory.fill_uninitialized_memory = True, False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        cudnn.deterministic, memory.fill_uninitialized_memory = of_cudnn, filled


def default_generator(device: torch.device) -> torch.Generator:
    """What operations draw from that are given no generator."""
    if device.type == "cuda":
        return torch.cuda.default_generators[device.index or 0]
    return torch.mps._get_default_mps_generator() if device.type == "mps" else torch.default_generator

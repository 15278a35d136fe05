"""What a run costs, before it starts: trainable parameters, FLOPs and memory, from shapes alone."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from idat_tune.backbones import RANDOM
from idat_tune.config import RunConfig
from idat_tune.model import AdaptedModel, build, check_alike

OPTIMIZER_COPIES = 4  # of what trains: the value, its gradient and Adam's two moments


def describe(config: RunConfig, classes: int | None = None) -> dict[str, Any]:
    """Parameters, FLOPs and memory of a config, from models without weights.

    Args:
        config: the run.
        classes: outputs of the heads; those of the config's task unless given.

    Returns:
        What `parameters` returns, and `gflop_per_image` with `forward` and `backward` (1e9 floating-point
        operations, a multiplication and an addition counting two) and `memory_gb` (1e9 bytes: weights, optimizer,
        and activations saved for one batch, in fp32). Both count the second passes of PACE.

    Raises:
        BadInput: a model cannot be built.
    """
    models = _models(config, classes or config.classes)
    there = [model for model in models.values() if model is not None]
    flops = [_flops(model) for model in there]
    return {
        **_counted(config, models),
        "gflop_per_image": {
            "forward": config.pace.passes * sum(forward for forward, _ in flops) / 1e9,
            "backward": config.pace.passes * sum(backward for _, backward in flops) / 1e9,
        },
        "memory_gb": _memory_gb(config, there),
    }


def parameters(config: RunConfig, classes: int | None = None) -> dict[str, Any]:
    """What trains, as the paper's Tables 6 to 8 count it; from models without weights.

    Returns:
        `student` and `teacher` (None where there is none), each with `backbone`, `trainable_params`,
        `adapter_params`, `head_params`; `trainable_params` of both together.

    Raises:
        BadInput: a model cannot be built.
    """
    return _counted(config, _models(config, classes or config.classes))


def memory_gb(config: RunConfig) -> float:
    """The memory that `describe` predicts of a config, 1e9 bytes.

    Raises:
        BadInput: a model cannot be built.
    """
    return _memory_gb(config, [model for model in _models(config, config.classes).values() if model is not None])


def _memory_gb(config: RunConfig, models: Iterable[AdaptedModel]) -> float:
    passes = math.ceil(config.pace.passes)
    return sum(_memory(model, config.batch_size, passes) for model in models) / 1e9


def _models(config: RunConfig, classes: int) -> dict[str, AdaptedModel | None]:
    check_alike(config)
    return {
        "student": shapes(config.student, classes, config),
        "teacher": None if config.alone else shapes(config.teacher, classes, config),
    }


def _counted(config: RunConfig, models: dict[str, AdaptedModel | None]) -> dict[str, Any]:
    names = {"student": config.student, "teacher": config.teacher}
    found = {role: model and _parameters(names[role], model) for role, model in models.items()}
    return {**found, "trainable_params": sum(one["trainable_params"] for one in found.values() if one)}


def shapes(name: str, classes: int, config: RunConfig) -> AdaptedModel:
    """A student or teacher without its values: nothing is loaded and nothing computed."""
    plain = name.removeprefix(RANDOM)
    with torch.device("meta"):
        model = build(RANDOM + plain, classes, config, seed=None)
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            setattr(module, "fused_attn", False)  # noqa: B010 - spelled out, its products are counted on any device
    return model


def _parameters(name: str, model: AdaptedModel) -> dict[str, Any]:
    head = sum(value.numel() for key, value in model.trainable().items() if key.startswith("head."))
    total = model.trainable_params()
    return {"backbone": name, "trainable_params": total, "adapter_params": total - head, "head_params": head}


def _image(model: AdaptedModel, count: int) -> torch.Tensor:
    return torch.zeros(count, model.spec.channels, model.spec.size, model.spec.size, device="meta")


def _flops(model: AdaptedModel) -> tuple[int, int]:
    """Operations of the forward and of the backward pass of one image."""
    with FlopCounterMode(display=False) as forward:
        logits_BC = model(_image(model, 1))
    with FlopCounterMode(display=False) as backward:
        logits_BC.sum().backward()
    return forward.get_total_flops(), backward.get_total_flops()


def _memory(model: AdaptedModel, batch: int, passes: int) -> int:
    """Bytes of weights, optimizer state and what so many forward passes save for the backward pass."""
    weights = {value.untyped_storage()._cdata: value.nbytes for value in model.parameters()}
    saved: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage._cdata] = storage
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        logits_BC = model(_image(model, batch))
    activations = sum(storage.nbytes() for key, storage in saved.items() if key not in weights)
    del logits_BC
    trained = sum(value.nbytes for value in model.trainable().values())
    return sum(weights.values()) + passes * activations + (OPTIMIZER_COPIES - 1) * trained

"""Fits the tensors of a file into a timm model: all of its values, each of its shape, each of them finite."""

import importlib
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from idat_tune.errors import BadInput
from idat_tune.weights.layouts import TIMM, as_timm
from idat_tune.weights.reading import NPZ, check_packed, first_line, read

# Of a checkpoint: heads, and what only its pretraining used.
NOT_OURS = ("head.", "head_dist.", "pre_logits.", "fc.", "classifier.", "pooler.", "decoder_", "mask_token")
# What timm's filters and readers raise for tensors that they did not expect.
UNEXPECTED = (AttributeError, RuntimeError, ValueError, KeyError, TypeError, IndexError, AssertionError, OSError)


def load(model: nn.Module, path: Path, name: str) -> None:
    """Set all values of a timm model without head from a file.

    Raises:
        BadInput: the file is damaged; a tensor is missing, left over, of another shape, or holds NaN; names it.
    """
    if path.suffix == NPZ:
        _check_npz(model, path, name)
        _read_npz(model, path, name)
    else:
        model.load_state_dict(_fitted(read(path), model, path, name))
    check_finite(model.state_dict(), path)


def check(model: nn.Module, path: Path, name: str) -> None:
    """Raise BadInput where a file would not fit, from names and shapes alone; `model` is on the meta device."""
    if path.suffix == NPZ:
        _check_npz(model, path, name)
    else:
        _fitted(read(path, shapes=True), model, path, name)


def check_finite(state: Mapping[str, Tensor], path: object) -> None:
    """Raise BadInput, naming the first, where a tensor holds NaN or an infinite value."""
    for key, value in state.items():
        if not value.isfinite().all():
            count = int((~value.isfinite()).sum())
            raise BadInput(
                f"{path} cannot be used: tensor '{key}' holds {count:,} values that are NaN or infinite; fetch or make "
                "it again"
            )


def _fitted(state: dict[str, Tensor], model: nn.Module, path: Path, name: str) -> dict[str, Tensor]:
    """What the model takes, by its own names."""
    own = model.state_dict()
    # timm's own filter for the model: renames of older checkpoints, position embeddings of another grid.
    timms_filter = importlib.import_module(type(model).__module__).checkpoint_filter_fn
    try:
        state = as_timm(state, path)
        _check_kind(own, state, path, name)
        # In fp32, as the filter would round positions that it resamples to the precision of the file.
        filtered = timms_filter({key: _single(value) for key, value in state.items()}, model)
    except UNEXPECTED as failure:
        raise BadInput(f"{path} does not fit {name}: {first_line(failure)}") from failure
    taken = {key: value for key, value in filtered.items() if key in own or not key.startswith(NOT_OURS)}
    _check_shapes(own, taken, path, name)
    return taken


def _single(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value


def _check_kind(own: Mapping[str, Tensor], given: Mapping[str, Tensor], path: Path, name: str) -> None:
    """What timm's filter would hide, or what deserves a better reason than a missing tensor."""
    for key, value in given.items():
        if value.layout is not torch.strided:
            raise BadInput(f"{path} does not fit {name}: tensor '{key}' is sparse; save it dense")
        if key in own and own[key].is_floating_point() and not value.is_floating_point():
            raise BadInput(f"{path} does not fit {name}: tensor '{key}' is of type {value.dtype}; floats are wanted")
    if TIMM in given and TIMM in own and given[TIMM].shape[-2:] != own[TIMM].shape[-2:] and given[TIMM].ndim == 4:
        found, wanted = ("x".join(map(str, each[TIMM].shape[-2:])) for each in (given, own))
        raise BadInput(f"{path} does not fit {name}: its patches are {found}, but {wanted} are wanted")
    pooled = {True: "pools the average of all patches", False: "looks at the class token"}
    of_file = "fc_norm.weight" in given and "norm.weight" not in given
    of_model = "fc_norm.weight" in own
    if of_file != of_model and (of_file or "norm.weight" in given):
        norm = "fc_norm" if of_file else "norm"
        raise BadInput(
            f"{path} does not fit {name}: its last norm is '{norm}', of a model that {pooled[of_file]}, where {name} "
            f"{pooled[of_model]}; take weights from before such fine-tuning, or a backbone that does the same"
        )


def _check_shapes(own: Mapping[str, Tensor], given: Mapping[str, Tensor], path: Path, name: str) -> None:
    for key in sorted(own.keys() | given.keys(), key=_natural):
        if key not in given:
            raise BadInput(f"{path} does not fit {name}: tensor '{key}' is missing")
        if key not in own:
            raise BadInput(f"{path} does not fit {name}: it has no place for tensor '{key}'")
        if given[key].shape != own[key].shape:
            found, wanted = tuple(given[key].shape), tuple(own[key].shape)
            raise BadInput(f"{path} does not fit {name}: tensor '{key}' has shape {found}, but {wanted} is wanted")


def _natural(key: str) -> list[Any]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", key)]


def _check_npz(model: Any, path: Path, name: str) -> None:
    """Whether a checkpoint of the original ViT code has this model's width, patches and depth."""
    import numpy as np

    if not hasattr(model, "load_pretrained"):
        raise BadInput(f"{path} cannot be read: timm has no .npz reader for {name}; give it as .safetensors")
    if not zipfile.is_zipfile(path):
        raise BadInput(f"{path} is damaged: it is no .npz archive; fetch it again")
    first = "embedding/kernel"
    try:
        check_packed(path)
        with np.load(path, allow_pickle=False) as tensors:
            inside = set(tensors.files)
            prefix = next((p for p in ("", "params/", "opt/target/") if p + first in inside), None)
            shape = None if prefix is None else tensors[prefix + first].shape
    except BadInput:
        raise
    except Exception as failure:  # of numpy and its zip reader, which has a class of its own for every damage
        raise BadInput(f"{path} is damaged: {first_line(failure)}; fetch it again") from None
    if shape is None:
        raise BadInput(f"{path} does not fit {name}: tensor '{first}' is missing")
    wanted = tuple(model.patch_embed.proj.weight.shape)
    if shape[-1] != wanted[0]:
        raise BadInput(f"{path} does not fit {name}: tensor '{first}' has shape {shape}, but {wanted[0]} must be last")
    if tuple(shape[:2]) != wanted[-2:]:
        found, patches = f"{shape[0]}x{shape[1]}", f"{wanted[-2]}x{wanted[-1]}"
        raise BadInput(f"{path} does not fit {name}: its patches are {found}, but {patches} are wanted")
    depth = len({key.split("/encoderblock_")[1].split("/")[0] for key in inside if "/encoderblock_" in key})
    if depth and depth != len(model.blocks):
        raise BadInput(f"{path} does not fit {name}: it has {depth} blocks, but {len(model.blocks)} are wanted")


def _read_npz(model: Any, path: Path, name: str) -> None:
    try:
        model.load_pretrained(str(path))
    except UNEXPECTED as failure:
        raise BadInput(f"{path} does not fit {name}: {first_line(failure)}") from failure
    except Exception as failure:  # as above
        raise BadInput(f"{path} is damaged: {first_line(failure)}; fetch it again") from None

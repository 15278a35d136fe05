"""Where pretrained weights are found: a folder of the user's own, the Hugging Face cache, the hub."""

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from idat_tune.backbones import BACKBONES
from idat_tune.errors import BadInput

FOLDER = "IDAT_TUNE_WEIGHTS"  # environment variable, which `--weights` sets; Ray's workers inherit it
HUB_FILE = "model.safetensors"
PATIENCE = 5.0  # seconds to wait for the hub's first answer
NOT_OURS = ("head.", "head_dist.", "pre_logits.", "fc.")  # of a checkpoint: what a backbone without head has not


def find(full: str) -> Path:
    """The file with the weights of a timm model, named with its tag; fetched from the hub if it is nowhere else.

    Raises:
        BadInput: it cannot be had.
    """
    return in_folder(full) or in_cache(full) or _from_hub(full)


def in_folder(full: str) -> Path | None:
    """The file in the folder that IDAT_TUNE_WEIGHTS names, if it is set and has one.

    It is named like the model with its tag, like our short name for it, or, `.npz`, like the published one.

    Raises:
        BadInput: there is no such folder.
    """
    named = os.environ.get(FOLDER)
    if not named:
        return None
    folder = Path(named)
    if not folder.is_dir():
        raise BadInput(f"weights folder {folder} does not exist; --weights or {FOLDER} must name one")
    return next((path for name in file_names(full) if (path := folder / name).is_file()), None)


def file_names(full: str) -> list[str]:
    """What the file of a model's weights may be called in a folder, in the order of looking."""
    import timm

    names = [full, *(short for short, known in BACKBONES.items() if known.timm == full)]
    files = [f"{name}.{end}" for name in names for end in ("safetensors", "npz")]
    published = Path(timm.get_pretrained_cfg(full).url or "").name
    return [*files, *([published] if published.endswith(".npz") else [])]


def in_cache(full: str) -> Path | None:
    """The file in the Hugging Face cache; None if it was never fetched."""
    from huggingface_hub import try_to_load_from_cache

    repository = _repository(full)
    path = try_to_load_from_cache(repository, HUB_FILE) if repository else None
    return Path(path) if isinstance(path, str) else None


def _repository(full: str) -> str | None:
    import timm

    return timm.get_pretrained_cfg(full).hf_hub_id


def _from_hub(full: str) -> Path:
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url

    repository = _repository(full)
    if not repository:
        raise BadInput(f"no pretrained weights are published for {full}; train on random:{full}, or name another tag")
    if constants.HF_HUB_OFFLINE:
        raise _missing(full, "the hub is switched off by HF_HUB_OFFLINE")
    try:
        # Asked once before, because a download without network tries again for half a minute.
        get_hf_file_metadata(hf_hub_url(repository, HUB_FILE), timeout=PATIENCE)
        return Path(hf_hub_download(repository, HUB_FILE))
    except Exception as failure:  # of the hub's client and of its HTTP library, which changes with its version
        raise _missing(full, f"the hub gave {type(failure).__name__}: {_first_line(failure)}") from failure


def _missing(full: str, why: str) -> BadInput:
    return BadInput(
        f"the weights of {full} are not here and {why}; connect once so that they reach the Hugging Face cache, or "
        f"put {full}.safetensors into a folder and name it with --weights or {FOLDER}"
    )


def load(model: nn.Module, path: Path, name: str) -> None:
    """Set all values of a timm model without head from a file, `.safetensors` or `.npz`.

    Raises:
        BadInput: the file is damaged, or a tensor is missing, left over or of another shape; names it.
    """
    if path.suffix == ".npz":
        _load_npz(model, path, name)
        return
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as failure:
        raise BadInput(f"{path} is damaged: {_first_line(failure)}; fetch it again") from None
    # timm's own filter for the model: renames of older checkpoints, position embeddings of another grid.
    timms_filter = importlib.import_module(type(model).__module__).checkpoint_filter_fn
    try:
        filtered = timms_filter(state, model)
    except (AttributeError, RuntimeError, ValueError) as failure:
        raise BadInput(f"{path} does not fit {name}: {_first_line(failure)}") from failure
    own = model.state_dict()
    taken = {key: value for key, value in filtered.items() if key in own or not key.startswith(NOT_OURS)}
    _check(own, taken, path, name)
    model.load_state_dict(taken)


def _check(own: Mapping[str, Tensor], given: Mapping[str, Tensor], path: Path, name: str) -> None:
    for key in sorted(own.keys() | given.keys()):
        if key not in given:
            raise BadInput(f"{path} does not fit {name}: tensor '{key}' is missing")
        if key not in own:
            raise BadInput(f"{path} does not fit {name}: it has no place for tensor '{key}'")
        if given[key].shape != own[key].shape:
            found, wanted = tuple(given[key].shape), tuple(own[key].shape)
            raise BadInput(f"{path} does not fit {name}: tensor '{key}' has shape {found}, but {wanted} is wanted")


def _load_npz(model: Any, path: Path, name: str) -> None:
    """A checkpoint of the original ViT code, which timm knows how to read."""
    import numpy as np

    if not hasattr(model, "load_pretrained"):
        raise BadInput(f"{path} cannot be read: timm has no .npz reader for {name}; give it as .safetensors")
    first = "embedding/kernel"
    try:
        with np.load(path, allow_pickle=False) as tensors:
            shape = tensors[first].shape if first in tensors else None
        width = model.patch_embed.proj.weight.shape[0]
        if shape is not None and shape[-1] != width:
            raise BadInput(f"{path} does not fit {name}: tensor '{first}' has shape {shape}, but {width} must be last")
        model.load_pretrained(str(path))
    except (OSError, ValueError, KeyError, RuntimeError, AssertionError) as failure:
        raise BadInput(f"{path} does not fit {name}: {_first_line(failure)}") from failure


def _first_line(failure: Exception) -> str:
    return str(failure).strip().split("\n")[0][:160]

"""Reads the tensors of a file, or their names and shapes alone; what could run code is never loaded."""

import argparse
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from idat_tune.errors import BadInput

# Where training scripts keep a model's state beside other things; of a self-distilled pair the teacher is used.
WRAPPERS = ("state_dict", "model", "model_state_dict", "teacher", "target_encoder", "encoder", "module", "backbone")
SAFETENSORS, NPZ = ".safetensors", ".npz"
DEEPEST = 10  # wrappers in wrappers; a pickle can hold a mapping that holds itself
MOST_PACKED = 10  # times that an archive may be larger unpacked; numbers of weights hardly pack at all


def read(path: Path, shapes: bool = False) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU, or with `shapes` on the meta device: then no values are read.

    An `.npz` is not read here, as timm has a reader for it.

    Raises:
        BadInput: the file is damaged, or holds more than tensors.
    """
    try:
        return _safetensors(path, shapes) if path.suffix == SAFETENSORS else _torch(path, shapes)
    except (SafetensorError, OSError, EOFError, RuntimeError, ValueError, KeyError, zipfile.BadZipFile) as failure:
        raise BadInput(f"{path} is damaged: {first_line(failure)}; fetch it again") from None


def _safetensors(path: Path, shapes: bool) -> dict[str, Tensor]:
    if not shapes:
        return load_file(path)
    with safe_open(path, framework="pt") as file:
        return {name: _empty(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no mapping


def _empty(shape: list[int]) -> Tensor:
    return torch.empty(shape, device="meta")


def _torch(path: Path, shapes: bool) -> dict[str, Tensor]:
    with path.open("rb") as file:
        if not file.read(4).startswith((b"PK\x03\x04", b"\x80")):  # an archive, or as torch wrote before 1.6
            raise BadInput(f"{path} is damaged: torch.save has not written it; fetch it again")
    if zipfile.is_zipfile(path):
        check_packed(path)
    try:
        # The arguments of the training script, which many keep beside the weights, are plain values in a Namespace.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings(action="ignore"):
            content = torch.load(path, map_location="meta" if shapes else "cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as failure:
        if not any(word in str(failure) for word in ("GLOBAL", "TorchScript")):
            raise BadInput(f"{path} is damaged: torch cannot read it; fetch it again") from None
        raise BadInput(
            f"{path} holds more than tensors and plain values, which could run code and is never loaded; where you "
            "trust it, save its state_dict alone, best as .safetensors"
        ) from None
    except (AttributeError, TypeError, IndexError) as failure:  # of a pickle that is cut
        raise BadInput(f"{path} is damaged: {first_line(failure)}; fetch it again") from None
    return _unwrapped(content, path)


def _unwrapped(content: Any, path: Path) -> dict[str, Tensor]:
    found = content if isinstance(content, Mapping) else {}
    for _ in range(DEEPEST):
        found = next((found[name] for name in WRAPPERS if isinstance(found.get(name), Mapping)), found)
    tensors = {name: value for name, value in found.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if not tensors:
        keys = f" ({', '.join(map(str, list(found)[:5]))})" if found else ""
        raise BadInput(f"{path} holds no state_dict{keys}; save the model's state_dict, best as .safetensors")
    return tensors


def check_packed(path: Path) -> None:
    """Raise BadInput where a zip archive would take many times its size in memory, as no weights do."""
    with zipfile.ZipFile(path) as file:
        unpacked = sum(entry.file_size for entry in file.infolist())
    if unpacked > MOST_PACKED * path.stat().st_size:
        raise BadInput(
            f"{path} is damaged: it would unpack to {unpacked / 1e9:.3g} GB, more than {MOST_PACKED} times its size; "
            "fetch it again"
        )


def holds_original_vit(path: Path) -> bool | None:
    """Whether an `.npz` has the original ViT's weights (True) or AugReg's (False); None where it does not say.

    Only the former keep the layer before the classifier.
    """
    try:
        with zipfile.ZipFile(path) as file:
            inside = file.namelist()
    except (OSError, zipfile.BadZipFile):
        return None  # reading it will say so
    if any("pre_logits/" in name for name in inside):
        return True
    return False if any(name.removeprefix("params/").startswith("head/") for name in inside) else None


def first_line(failure: Exception) -> str:
    """The first line of what a library says, cut."""
    return (str(failure).strip().split("\n")[0] or type(failure).__name__)[:160]

"""A model with all its tensors in one file, which needs no backbone from elsewhere."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from idat_tune import adapters
from idat_tune.backbones import RANDOM, family
from idat_tune.config import RunConfig
from idat_tune.kinds import KINDS
from idat_tune.model import AdaptedModel, build, fill

ADAPTERS = "adapters"  # in a file's metadata: whether they are
MERGED, BESIDE = "merged", "beside"  # in the backbone's weights or tensors of their own


def merges(config: RunConfig, with_teacher: bool) -> bool:
    """Whether what the adapters of a student, and of its teacher, learnt can be folded into their backbones."""
    kind, names = KINDS[config.adapter.kind], [config.student, *([config.teacher] if with_teacher else [])]
    return not kind.uses or all(family(name) in kind.merges for name in names)


def write(path: Path, model: AdaptedModel, merged: bool) -> None:
    """Write all tensors of a model, under timm's names where its adapters are merged."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in _tensors_of(model).items()}
    save_file(tensors, path, metadata={ADAPTERS: MERGED if merged else BESIDE})


def read(path: Path, backbone: str, config: RunConfig, classes: int) -> tuple[AdaptedModel, bool]:
    """A model from its file, and whether its adapters are merged.

    Raises:
        BadInput: the tensors do not fit the config.
        SafetensorError, OSError: the file is damaged.
    """
    with safe_open(path, "numpy") as file:
        merged = (file.metadata() or {}).get(ADAPTERS) == MERGED
    state = load_file(path)
    plain = {"adapter.kind": "linear", "pace.weight": 0.0} if merged else {}
    # Its values come from the file: no pretrained weights are needed.
    model = build(RANDOM + backbone.removeprefix(RANDOM), classes, config.updated(plain), seed=0)
    adapters.deploy(model.backbone)
    _give_biases(model.backbone, state)
    fill(_tensors_of(model), state)
    return model, merged


def _tensors_of(model: AdaptedModel) -> dict[str, Tensor]:
    """All that a model computes with, each tensor once, whatever shares it."""
    known = {**dict(model.backbone.named_parameters()), **dict(model.backbone.named_buffers())}
    kept = model.backbone.state_dict().keys()
    return {name: value for name, value in known.items() if name in kept}


def _give_biases(backbone: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Biases that merging gave to operations which had none."""
    for name, module in backbone.named_modules():
        operation: Any = module
        value = state.get(f"{name}.bias")
        if value is not None and getattr(operation, "bias", value) is None:
            operation.bias = nn.Parameter(value.clone(), requires_grad=False)

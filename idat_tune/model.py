"""A frozen timm backbone with trainable adapters and a trainable head."""

# B batch, H W pixels, C classes

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call

from idat_tune import adapters, embedded, weights
from idat_tune.backbones import EMBEDDED, RANDOM
from idat_tune.config import RunConfig
from idat_tune.errors import BadInput
from idat_tune.kinds import KINDS
from idat_tune.weights import timm_name


@dataclass(frozen=True)
class InputSpec:
    """What images a backbone was pretrained on."""

    size: int  # pixels, both ways
    channels: int
    mean: tuple[float, ...]  # per channel, for pixels in [0, 1]
    std: tuple[float, ...]
    interpolation: str = "bicubic"


class AdaptedModel(nn.Module):
    """A student or a teacher: everything frozen but its adapters and its head."""

    shift: Tensor
    factor: Tensor

    def __init__(self, backbone: nn.Module, spec: InputSpec):
        super().__init__()
        self.backbone = backbone
        self.spec = spec
        self.dtype = torch.float32  # of what is frozen
        # Pixels arrive as bytes: (x / 255 - mean) / std, folded into one factor and one shift.
        shape = (1, spec.channels, 1, 1)
        self.register_buffer("shift", torch.tensor(spec.mean).view(shape) * 255, persistent=False)
        self.register_buffer("factor", 1 / (torch.tensor(spec.std).view(shape) * 255), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (B, C) of pixels (B, channels, H, W) in 0..255, as bytes or floats; normalises them itself.

        With a gist token, in training mode, (B, 2, C): of the class token and of the gist.
        Where what is frozen is of lower precision than what trains, all is computed in the lower, as while training.
        """
        values = self._lowered()
        x = self.normalised(pixels)
        return functional_call(self.backbone, values, (x,)).float() if values else self.backbone(x)

    def _lowered(self) -> dict[str, Tensor]:
        """What trains, in the precision of what is frozen, where that is another."""
        if self.dtype is torch.float32:
            return {}
        return {name: value.to(self.dtype) for name, value in self.trainable().items() if value.dtype is not self.dtype}

    def normalised(self, pixels: Tensor) -> Tensor:
        """What the backbone takes, of pixels in 0..255."""
        return ((pixels.float() - self.shift) * self.factor).to(self.dtype)

    def with_features(self, pixels: Tensor, blocks: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        """Logits as of `forward`, and the outputs of some blocks, counted from 0: (B, T, D), of a Swin (B, R, C, D)."""
        all_blocks, kept = adapters.blocks_of(self.backbone), {}

        def keep(block: nn.Module, _: Any, output: Tensor) -> None:
            kept[block] = output

        hooks = [all_blocks[index].register_forward_hook(keep) for index in blocks]
        try:
            logits_BC = self(pixels)
        finally:
            for hook in hooks:
                hook.remove()
        return logits_BC, [kept[all_blocks[index]] for index in blocks]

    def block_widths(self) -> list[int]:
        """D of every block, first to last."""
        return [adapters.width_of(block) for block in adapters.blocks_of(self.backbone)]

    def merge(self, kind: str) -> None:
        """Fold what adapters of this kind learnt into the backbone's weights: the same logits at the backbone's cost.

        Afterwards the model cannot be trained on. Kinds that add nothing to the backbone stay as they are.

        Raises:
            BadInput: adapters of this kind compute what no frozen weights can.
        """
        family = adapters.family(self.backbone)
        can = [name for name, known in KINDS.items() if family in known.merges or not known.uses]
        if kind not in can:
            raise BadInput(f"adapter.kind {kind} cannot be merged into a {family}; what can: {', '.join(can)}")
        adapters.merge(self.backbone)

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.shift.device

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that train, by name: `blocks.0.adapter.down.weight`, ..., `head.weight`."""
        return {name: value for name, value in self.backbone.named_parameters() if value.requires_grad}

    def trainable_params(self) -> int:
        """How many numbers train: adapters and head."""
        return sum(value.numel() for value in self.trainable().values())

    def trained_state(self) -> dict[str, Tensor]:
        """Copies of the trainable parameters on the CPU, under the names of `trainable`."""
        return {name: value.detach().cpu().clone() for name, value in self.trainable().items()}

    def load_trained_state(self, state: Mapping[str, Tensor]) -> None:
        """Set the trainable parameters.

        Raises:
            BadInput: a tensor is missing, is not known, has another shape, or holds NaN; names it.
        """
        fill(self.trainable(), state)


def fill(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Set some tensors of a model, by name, in place.

    Raises:
        BadInput: a tensor is missing, is not known, has another shape, or holds NaN; names it.
    """
    for name in own.keys() | state.keys():
        if name not in state:
            raise BadInput(f"tensor '{name}' is missing; it must have shape {tuple(own[name].shape)}")
        if name not in own:
            raise BadInput(f"tensor '{name}' does not belong to this student; check student and adapter.kind")
        if state[name].shape != own[name].shape:
            raise BadInput(
                f"tensor '{name}' has shape {tuple(state[name].shape)}, but this student wants "
                f"{tuple(own[name].shape)}; check student, adapter.hidden_dim and the number of classes"
            )
    weights.check_finite(state, "this student")
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(state[name])


def input_spec(name: str, image_size: int | None = None) -> InputSpec:
    """What a backbone takes, without building it; images of its own size unless another is given.

    Raises:
        BadInput: timm knows no such model, or its patches do not fill images of that size.
    """
    plain = name.removeprefix(RANDOM)
    own = _own_spec(plain)
    if image_size in (None, own.size):
        return own
    assert image_size is not None
    patch = _patch(plain)
    if image_size % patch:
        near = max(patch, round(image_size / patch) * patch)
        raise BadInput(
            f"image_size {image_size} cannot be: {plain} cuts images into patches of {patch} pixels; take a multiple "
            f"of {patch}, such as {near}"
        )
    return replace(own, size=image_size)


@cache
def _own_spec(plain: str) -> InputSpec:
    if plain in EMBEDDED:
        return InputSpec(embedded.SIZE, embedded.CHANNELS, embedded.MEAN, embedded.STD)
    import timm

    full = timm_name(plain)
    cfg = timm.get_pretrained_cfg(full)
    if cfg is None:
        raise BadInput(f"timm does not say what images {full} takes, so it cannot be used; take another backbone")
    channels, size, _ = cfg.input_size
    return InputSpec(size, channels, tuple(cfg.mean), tuple(cfg.std), cfg.interpolation)


@cache
def _patch(plain: str) -> int:
    """Pixels, both ways, that become one token of the first block."""
    with torch.device("meta"):
        return _untrained(plain, None).patch_embed.feat_ratio()  # type: ignore[operator, union-attr]


Frozen = Callable[[str, int | None], nn.Module]  # a frozen backbone of a name, for images of a size (None: its own)


def build(name: str, classes: int, config: RunConfig, seed: int | None, frozen: Frozen | None = None) -> AdaptedModel:
    """A student or teacher in training mode, its adapters and head drawn from `seed`.

    Args:
        name: a backbone, by a name of `backbones` or timm's; with `random:` in front, without its weights.
        classes: outputs of the head.
        config: what adapter to insert, the drop-path rate, and the size of the images.
        seed: of the initial values; the frozen part does not depend on it. None draws from torch's own generator.
        frozen: gives the frozen backbone of a name, on the CPU, to be changed at will; it is loaded unless given.

    Raises:
        BadInput: the backbone is unknown, its weights cannot be had, or the adapter does not fit in it.
    """
    spec = input_spec(name, config.image_size)
    backbone = (frozen or frozen_backbone)(name, config.image_size)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    try:
        if config.gist.token:
            adapters.insert_token(backbone)
        adapters.insert(backbone, config.adapter, generator)
    except BadInput as failure:
        raise BadInput(f"backbone {name.removeprefix(RANDOM)}: {failure}") from None
    _set_drop_path(backbone, config.model.drop_path)
    _new_head(backbone, classes, generator)
    if config.gist.token:
        adapters.draw_token(backbone, generator)
    if config.pace.weight:
        adapters.add_noise(backbone, config.pace.sigma)
    return AdaptedModel(backbone, spec).train()


def build_pair(
    config: RunConfig, classes: int, frozen: Frozen | None = None
) -> tuple[AdaptedModel, AdaptedModel | None]:
    """Student and teacher of a config; no teacher where it trains alone. `frozen` is as for `build`.

    The student's initial values do not depend on the teacher, so that runs with and without one compare.

    Raises:
        BadInput: as `build`, or the two take images of different shape.
    """
    check_alike(config)
    student = build(config.student, classes, config, 2 * config.seed, frozen)
    if config.alone:
        return student, None
    return student, build(config.teacher, classes, config, 2 * config.seed + 1, frozen)


def check(config: RunConfig, fetch: bool = True) -> None:
    """Make sure that a run can start, before anything is decoded: backbones, sizes, adapters, and files of weights.

    Of the files only names and shapes are read; what is on the hub alone is fetched, or without `fetch` believed.

    Raises:
        BadInput: as `build_pair`, or weights cannot be had or do not fit.
    """
    check_alike(config)
    for name in (config.student,) if config.alone else (config.student, config.teacher):
        with torch.device("meta"):
            build(RANDOM + name.removeprefix(RANDOM), config.classes, config, seed=None)
        if not name.startswith(RANDOM) and name not in EMBEDDED:
            full = timm_name(name)
            if not fetch and weights.here(full) is None and weights.available(name):
                continue
            path = weights.find(full)
            _check_fits(full, config.image_size, path, path.stat().st_mtime_ns)


@cache
def _check_fits(full: str, image_size: int | None, path: Path, changed: int) -> None:
    with torch.device("meta"):
        weights.check(_untrained(full, image_size), path, full)


def check_alike(config: RunConfig) -> None:
    """Raise BadInput unless student and teacher, if there is one, take images of the same shape."""
    if config.alone:
        return
    ours, theirs = (input_spec(name, config.image_size) for name in (config.student, config.teacher))
    if (ours.size, ours.channels) != (theirs.size, theirs.channels):
        way_out = "choose alike"
        if ours.channels == theirs.channels:
            patches = [_patch(name.removeprefix(RANDOM)) for name in (config.student, config.teacher)]
            fits = [size for size in sorted((ours.size, theirs.size)) if not any(size % patch for patch in patches)]
            way_out += f", or set one size for both, such as image_size={fits[0] if fits else math.lcm(*patches)}"
        raise BadInput(
            f"teacher {config.teacher} takes {theirs.channels}x{theirs.size}x{theirs.size} images but student "
            f"{config.student} {ours.channels}x{ours.size}x{ours.size}; both see the same, so {way_out}"
        )


def frozen_backbone(name: str, image_size: int | None = None) -> nn.Module:
    """A backbone without head, on the CPU, in which nothing trains; its positions resampled for another image size.

    Raises:
        BadInput: it is unknown, or its weights cannot be had.
    """
    backbone = _create(name, image_size)
    for parameter in backbone.parameters():
        parameter.requires_grad_(False)
    return backbone


def _create(name: str, image_size: int | None) -> nn.Module:
    plain = name.removeprefix(RANDOM)
    if plain != name:
        # Drawn from one fixed seed: an export names its backbone and must find the same one again.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return _untrained(plain, image_size)
    if plain in EMBEDDED:
        return embedded.create_backbone(plain, size=image_size or embedded.SIZE)
    return _pretrained(plain, image_size)


def _untrained(name: str, image_size: int | None) -> nn.Module:
    if name in EMBEDDED:
        return embedded.create_backbone(name, pretrained=False, size=image_size or embedded.SIZE)
    import timm

    size = {} if image_size is None else {"img_size": image_size}
    backbone = timm.create_model(timm_name(name), pretrained=False, num_classes=0, **size)
    _check_architecture(backbone, name)
    return backbone


def _check_architecture(backbone: nn.Module, name: str) -> None:
    """Refuse what would not stay as it is, or has more than one head; blocks are looked at where adapters go in."""
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in backbone.modules()):
        raise BadInput(
            f"backbone {name} cannot be used: its batch norms would go on changing while it is frozen; take a ViT "
            "without a convolutional stem, a DeiT or a Swin"
        )
    if hasattr(backbone, "dist_token"):
        raise BadInput(
            f"backbone {name} cannot be used: it is distilled, with two heads; take the DeiT without '_distilled'"
        )


def _pretrained(name: str, image_size: int | None) -> nn.Module:
    full = timm_name(name)
    path = weights.find(full)
    backbone = _untrained(full, image_size)
    weights.load(backbone, path, full)
    return backbone


def _set_drop_path(backbone: nn.Module, rate: float) -> None:
    """Stochastic depth that rises linearly from 0 at the first block to `rate` at the last, as timm lays it out.

    An adapter with a path of its own drops it at the whole rate in every block.
    """
    blocks: list[Any] = adapters.blocks_of(backbone)
    for depth, block in enumerate(blocks):
        probability = rate * depth / max(len(blocks) - 1, 1)
        for branch in ("drop_path1", "drop_path2"):
            setattr(getattr(block, "block", block), branch, _path(probability))
        if hasattr(block, "own_path"):
            block.own_path = _path(rate)


def _path(probability: float) -> nn.Module:
    from timm.layers import DropPath

    return DropPath(probability) if probability > 0 else nn.Identity()


def _new_head(backbone: Any, classes: int, generator: Generator | None) -> None:
    backbone.reset_classifier(classes)
    head = backbone.get_classifier()
    if not isinstance(head, nn.Linear):
        raise BadInput(f"{type(backbone).__name__} has no single linear head; take a ViT, DeiT or Swin that has one")
    nn.init.trunc_normal_(head.weight, std=adapters.INIT_STD, generator=generator)
    nn.init.zeros_(head.bias)


def cached_weights(name: str) -> Path | None:
    """The file of a backbone's weights, from the user's folder or the Hugging Face cache; None if it is in neither."""
    return weights.here(timm_name(name))

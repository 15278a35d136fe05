"""What a backbone's weights are called: by timm, by those who published them, in folders and on the hub."""

import re
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from idat_tune.backbones import BACKBONES, RANDOM
from idat_tune.errors import unknown

ENDS = (".safetensors", ".npz", ".pth", ".pt", ".bin", ".pth.tar", ".ckpt")  # of files that can be read
HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # what a folder of the hub calls them

# The same weights on the hub under another roof than timm's, with Hugging Face's own names of the tensors.
ELSEWHERE = {
    "vit_base_patch16_224.orig_in21k": "google/vit-base-patch16-224-in21k",
    "vit_large_patch16_224.orig_in21k": "google/vit-large-patch16-224-in21k",
    "vit_small_patch14_dinov2.lvd142m": "facebook/dinov2-small",
    "vit_base_patch14_dinov2.lvd142m": "facebook/dinov2-base",
    "vit_large_patch14_dinov2.lvd142m": "facebook/dinov2-large",
    "vit_giant_patch14_dinov2.lvd142m": "facebook/dinov2-giant",
    "vit_small_patch14_reg4_dinov2.lvd142m": "facebook/dinov2-with-registers-small",
    "vit_base_patch14_reg4_dinov2.lvd142m": "facebook/dinov2-with-registers-base",
    "vit_large_patch14_reg4_dinov2.lvd142m": "facebook/dinov2-with-registers-large",
}
_GOOGLE = re.compile(r"vit_(tiny|small|base|large|huge)_patch(\d+)_224\.(orig|augreg)_in21k")
_LETTERS = {"tiny": "Ti", "small": "S", "base": "B", "large": "L", "huge": "H"}


@cache
def timm_name(name: str) -> str:
    """The timm name, with its tag if it has one, of a backbone that is not embedded; an old name is brought up to date.

    Raises:
        BadInput: timm knows no such model, or no such tag of it; offers the nearest.
    """
    import timm

    plain = name.removeprefix(RANDOM)
    known = BACKBONES.get(plain)
    if known is not None:
        return known.timm
    plain = _deprecated().get(plain) or plain
    architecture, _, tag = plain.partition(".")
    if not timm.is_model(architecture):
        near = get_close_matches(architecture, timm.list_models(["vit_*", "deit*", "swin_*", "flexivit*"]), n=1)
        raise unknown("backbone", name, [*BACKBONES, *near])
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise unknown(f"pretraining tag of {architecture}", tag, tags)
    return plain


@cache
def _deprecated() -> dict[str, str]:
    """Names that timm had once, such as `vit_base_patch16_224_in21k`, and what it calls those models now."""
    from timm.models import get_deprecated_models

    return {old: new for old, new in get_deprecated_models().items() if new}


@cache
def called(full: str) -> tuple[str, ...]:
    """What a model's weights may be called, without an ending, in the order of looking: `full` is its timm name."""
    import timm

    cfg = timm.get_pretrained_cfg(full)
    short = [name for name, backbone in BACKBONES.items() if backbone.timm == full]
    old = [name for name, new in _deprecated().items() if new == full]
    resolved = [f"{cfg.architecture}.{cfg.tag}"] if cfg is not None and cfg.tag else []
    return tuple(dict.fromkeys([full, *resolved, *short, *old]))


@cache
def repositories(full: str) -> tuple[str, ...]:
    """The repositories of the hub that have them, timm's own first."""
    import timm

    cfg = timm.get_pretrained_cfg(full)
    own = getattr(cfg, "hf_hub_id", None)
    return tuple(name for name in (own, ELSEWHERE.get(full)) if name)


@cache
def file_names(full: str) -> tuple[str, ...]:
    """What the file may be called in a folder, in the order of looking."""
    ours = [f"{name}{end}" for name in called(full) for end in ENDS]
    return tuple(dict.fromkeys([*ours, *published(full)]))


def published(full: str) -> list[str]:
    """What those who published the file call it."""
    import timm

    name = Path(getattr(timm.get_pretrained_cfg(full), "url", None) or "").name
    return [*([name] if name.endswith(ENDS) else []), *google_files(full)]


def google_files(full: str) -> list[str]:
    """What papers call the files of the original ViT and of AugReg, which go by one name: `ViT-B_16.npz`."""
    found = _GOOGLE.fullmatch(full)
    if not found:
        return []
    size, patch, _ = found.groups()
    plain = f"ViT-{_LETTERS[size]}_{patch}.npz"
    return [plain, f"imagenet21k_{plain}"]


@cache
def folder_names(full: str) -> tuple[str, ...]:
    """What a folder may be called that holds the file under a name of the hub's, in the order of looking."""
    names = called(full)
    of_timm = [f"{roof}{name}" for name in names for roof in ("", "timm/", "timm__", "timm--", "timm_")]
    of_hub = []
    for repository in repositories(full):
        owner, _, name = repository.partition("/")
        of_hub += [repository, f"{owner}__{name}", f"{owner}--{name}", f"{owner}_{name}", name]
    return tuple(dict.fromkeys([*of_timm, *of_hub]))


@cache
def cache_names(full: str) -> tuple[str, ...]:
    """What the Hugging Face cache calls its folders of them."""
    return tuple(f"models--{repository.replace('/', '--')}" for repository in repositories(full))

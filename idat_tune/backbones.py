"""Backbones by short name: which timm model, with its tag, each name means."""

import re
from dataclasses import dataclass

from idat_tune.errors import BadInput, unknown

NO_TEACHER = "none"
RANDOM = "random:"  # prefix that asks for random weights instead of pretrained ones


@dataclass(frozen=True)
class Backbone:
    """A frozen vision transformer, named as timm names it."""

    timm: str  # model name with its pretraining tag; empty for an embedded one
    teacher: str  # short name of the teacher that goes with it by default: small, as the paper found best
    note: str


# A bare timm name is a trap: without its tag `vit_base_patch16_224` means weights that were
# fine-tuned on ImageNet-1k. So every short name pins the tag that the paper used.
BACKBONES = {
    "vit_small": Backbone("vit_small_patch16_224.augreg_in21k", "vit_small", "the paper's teacher"),
    "vit_base": Backbone("vit_base_patch16_224.augreg_in21k", "vit_small", "the paper's student"),
    "vit_large": Backbone("vit_large_patch16_224.augreg_in21k", "vit_small", "Tables 2 and 7"),
    "vit_base_orig": Backbone(
        "vit_base_patch16_224.orig_in21k", "vit_small", "original weights, used by VPT, NOAH, FacT"
    ),
    "vit_large_orig": Backbone("vit_large_patch16_224.orig_in21k", "vit_small", "original weights"),
    "swin_small": Backbone("swin_small_patch4_window7_224.ms_in22k", "swin_small", "Table 8, teacher"),
    "swin_base": Backbone("swin_base_patch4_window7_224.ms_in22k", "swin_small", "Table 8, student"),
    "glyph_small": Backbone("", "glyph_small", "embedded teacher, 41 k parameters"),
    "glyph_base": Backbone("", "glyph_small", "embedded student, 89 k parameters"),
}
EMBEDDED = tuple(name for name, backbone in BACKBONES.items() if not backbone.timm)
# Names of timm's ViTs, DeiTs and Swins. All but a few hold a number, which our own names, misspelt, do not.
_TIMM_NAME = re.compile(r"((vit|deit3?|swin|beit3)_\w*\d\w*|flexivit_(small|base|large)|test_vit\d?)(\.\w+)?", re.ASCII)
# Other transformers of timm's that people ask for, by the beginning of their names, and why none can be had.
_FOREIGN = {
    "beit": "its attention has a bias by relative position",
    "eva": "its attention turns queries and keys by position",
    "swinv2": "its norms come behind attention and MLP",
    "vit_relpos": "its attention has a bias by relative position",
    "vit_srelpos": "its attention has a bias by relative position",
    "samvit": "it attends within windows and has no class token",
    "naflexvit": "it takes images of any shape",
    "cait": "its last blocks look at the class token alone",
    "xcit": "it attends across channels",
    "tiny_vit": "it mixes in convolutions",
}


def check(name: str) -> str:
    """`name` itself if it can name a backbone: a short name, a timm ViT or Swin name, either after `random:`.

    Whether timm knows a long name, and whether adapters fit in its blocks, is found out where the model is built.

    Raises:
        BadInput: no backbone goes by that name, or one in which no adapter fits; says why.
    """
    plain = name.removeprefix(RANDOM)
    foreign = next((start for start in _FOREIGN if re.match(rf"{start}(v2|02)?_", plain)), None)
    if foreign:
        raise BadInput(
            f"backbone {name} cannot be used: adapters know the blocks of plain ViTs, DeiTs and Swins, and "
            f"{_FOREIGN[foreign]}; take one of {', '.join(BACKBONES)}, or another ViT, DeiT or Swin of timm"
        )
    for roof in ("timm/", "hf_hub:timm/", "hf-hub:timm/"):
        if plain.startswith(roof):
            raise BadInput(f"backbone {name} is named as on the hub; leave {roof} away: {plain.removeprefix(roof)}")
    if plain not in BACKBONES and not _TIMM_NAME.fullmatch(plain):
        raise unknown("backbone", name, [*BACKBONES, "any ViT, DeiT or Swin of timm"])
    return name


def family(name: str) -> str:
    """`swin` for a Swin transformer, else `vit`."""
    plain = name.removeprefix(RANDOM)
    return "swin" if plain.startswith("swin") else "vit"


def default_teacher(student: str) -> str:
    """The teacher that goes with a student unless another is named; a timm name that we do not list teaches itself."""
    known = BACKBONES.get(student)
    return known.teacher if known else student

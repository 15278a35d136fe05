"""Names of tensors as other libraries and training scripts have them, brought to timm's."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from idat_tune.errors import BadInput

# The patch embedding tells where the backbone begins, under whatever prefixes, and whose names it has.
TIMM, HUGGING_FACE = "patch_embed.proj.weight", "embeddings.patch_embeddings.projection.weight"
PARTS = ("query", "key", "value")

# Hugging Face's names in timm's; ViT and DeiT, then DINOv2, then Swin.
_OUTSIDE = {
    "embeddings.cls_token": "cls_token",
    "embeddings.mask_token": "mask_token",
    "embeddings.register_tokens": "register_tokens",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection.": "patch_embed.proj.",
    "embeddings.norm.": "patch_embed.norm.",
    "layernorm.": "norm.",
}
_INSIDE = {
    "layernorm_before.": "norm1.",
    "layernorm_after.": "norm2.",
    "attention.output.dense.": "attn.proj.",
    "intermediate.dense.": "mlp.fc1.",
    "output.dense.": "mlp.fc2.",
    "mlp.weights_in.": "mlp.fc1.",
    "mlp.weights_out.": "mlp.fc2.",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    "attention.self.relative_position_bias_table": "attn.relative_position_bias_table",
    "attention.self.relative_position_index": "attn.relative_position_index",
}
_OF_A_LAYER = re.compile(r"encoder\.layer\.(\d+)\.(.+)")
_OF_A_STAGE = re.compile(r"encoder\.layers\.(\d+)\.(?:blocks\.(\d+)\.)?(.+)")
_QKV = re.compile(r"(?:attention\.attention|attention\.self)\.(query|key|value)\.(weight|bias)")
_GAMMA = re.compile(r"\.gamma_([12])$")


def as_timm(state: Mapping[str, Tensor], path: object) -> dict[str, Tensor]:
    """The tensors of a backbone under timm's names, as far as it is told by its patch embedding; others stay.

    Prefixes such as `module.`, `model.`, `backbone.` and `encoder.` go, and what stands outside of them.

    Raises:
        BadInput: there are several backbones in the file.
    """
    anchor = next((name for name in (TIMM, HUGGING_FACE) if any(key.endswith(name) for key in state)), None)
    if anchor is None:
        return dict(state)
    inside = _without_prefix(state, anchor, path)
    if anchor == HUGGING_FACE:
        inside = _from_hugging_face(inside)
    elif "relative_position_bias_table" not in " ".join(inside):  # BEiT and Swin have no such layer scale
        inside = {_GAMMA.sub(r".ls\1.gamma", key): value for key, value in inside.items()}  # DeiT III
    if "register_tokens" in inside:  # timm knows DINOv2's own layout, which has registers, by this one
        inside.setdefault("mask_token", torch.zeros_like(inside["register_tokens"][:, 0]))
    return inside


def _without_prefix(state: Mapping[str, Tensor], anchor: str, path: object) -> dict[str, Tensor]:
    prefixes = [key.removesuffix(anchor) for key in state if key.endswith(anchor)]
    taught = [prefix for prefix in prefixes if "teacher." in prefix]
    if len(taught) == 1:
        prefixes = taught
    if len(prefixes) > 1:
        raise BadInput(
            f"{path} holds several backbones, under {' and '.join(repr(prefix) for prefix in sorted(prefixes))}; save "
            "the one that is meant alone"
        )
    (prefix,) = prefixes
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _from_hugging_face(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}  # of queries, keys and values, which timm has in one
    for key, value in state.items():
        where, rest = _place(key)
        found = _QKV.fullmatch(rest) if where else None
        if found:
            parts.setdefault(f"{where}attn.qkv.{found[2]}", {})[found[1]] = value
        else:
            renamed[where + _renamed(rest, _INSIDE if where else _OUTSIDE)] = value
    for key, of_one in parts.items():
        if set(of_one) == set(PARTS):
            renamed[key] = torch.cat([of_one[part] for part in PARTS])
    return renamed


def _place(key: str) -> tuple[str, str]:
    """Which block a tensor belongs to, in timm's words (empty: none), and its name there."""
    if found := _OF_A_LAYER.fullmatch(key):
        return f"blocks.{found[1]}.", found[2]
    if found := _OF_A_STAGE.fullmatch(key):
        block = f"blocks.{found[2]}." if found[2] else ""
        return f"layers.{found[1]}.{block}", found[3]
    return "", key


def _renamed(name: str, known: Mapping[str, str]) -> str:
    for theirs, ours in known.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name

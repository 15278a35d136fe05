"""The two tiny vision transformers that ship with the package, and their weights."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idat_tune.backbones import EMBEDDED
from idat_tune.errors import BadInput, unknown

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

SIZE = 32  # side of an image, pixels
CHANNELS = 1
MEAN, STD = (0.5,), (0.5,)  # of pixels in [0, 1], per channel
WEIGHTS = Path(__file__).with_name("weights")
RECIPE = "recipe.json"

_COMMON = {
    "img_size": SIZE,
    "patch_size": 8,
    "in_chans": CHANNELS,
    "depth": 3,
    "mlp_ratio": 4.0,
    "qkv_bias": True,
    "class_token": True,
    "global_pool": "token",
}
# Arguments of timm's VisionTransformer: 16 patches and a class token make 17 tokens.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "glyph_base": {**_COMMON, "embed_dim": 48, "num_heads": 3},
    "glyph_small": {**_COMMON, "embed_dim": 32, "num_heads": 2},
}
assert set(ARCHITECTURES) == set(EMBEDDED)


def create_backbone(
    name: str, pretrained: bool = True, *, size: int = SIZE, folder: Path = WEIGHTS
) -> "VisionTransformer":
    """One of the embedded backbones as a float32 timm model without head, in training mode, on the CPU.

    It maps pixels (B, 1, size, size), normalised by MEAN and STD, to features (B, 48) or (B, 32) of the
    class token; at another size than its own its position embeddings are resampled. Without `pretrained` its weights
    are random, from torch's global generator.

    Raises:
        BadInput: no such backbone, or its weights in `folder` are missing or not those of the recipe.
    """
    if name not in ARCHITECTURES:
        raise unknown("embedded backbone", name, ARCHITECTURES)
    state = _weights(name, folder) if pretrained else None
    model = new_model(name, classes=0)
    if state is not None:
        model.load_state_dict(state)
    if size != SIZE:
        model.set_input_size(img_size=(size, size))
    return model


def new_model(name: str, classes: int) -> "VisionTransformer":
    """The architecture with random weights and a linear head for that many classes (0: none)."""
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(**ARCHITECTURES[name], num_classes=classes)


def weights_file(name: str, folder: Path = WEIGHTS) -> Path:
    """Where the shipped weights of an embedded backbone lie."""
    return folder / f"{name}.safetensors"


def read_recipe(folder: Path = WEIGHTS) -> dict[str, Any]:
    """How the weights in `folder` were made, per backbone, with their checksums.

    Raises:
        BadInput: the recipe is missing or is not JSON.
    """
    path = folder / RECIPE
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as failure:
        raise BadInput(f"cannot read the recipe of the embedded backbones, {path}: {failure}; {_WAY_OUT}") from None


_WAY_OUT = "reinstall idat-tune or make the weights again with `python -m idat_tune.embedded.pretrain`"


def _weights(name: str, folder: Path) -> dict[str, Any]:
    """The shipped weights as float32, read only if they are the bytes that the recipe names."""
    import safetensors.torch

    path = weights_file(name, folder)
    expected = read_recipe(folder)["backbones"].get(name, {}).get("sha256")
    try:
        content = path.read_bytes()
    except OSError:
        raise BadInput(f"the weights of '{name}' are missing: no {path}; {_WAY_OUT}") from None
    if hashlib.sha256(content).hexdigest() != expected:
        raise BadInput(
            f"the weights of '{name}' are damaged: {path} does not match the checksum in {RECIPE}; {_WAY_OUT}"
        )
    return {key: tensor.float() for key, tensor in safetensors.torch.load(content).items()}

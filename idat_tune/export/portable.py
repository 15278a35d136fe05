"""A student as a graph that runs without this package: ONNX, or a program of torch.export; checked as it is written."""

import json
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from idat_tune.data.pixels import INTERPOLATIONS
from idat_tune.errors import BadInput, IdatError
from idat_tune.export.examples import ONNX_EXAMPLE, PROGRAM_EXAMPLE
from idat_tune.export.student import Student

BATCHES = (1, 3, 8)  # that are compared, none of which it was traced with
TRACED = 2
MOST = 1e-4  # difference of a logit, or of its share where logits are larger than 1
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
PREPROCESSING = "preprocessing.json"


def check_packages() -> None:
    """Raise BadInput unless what writes and runs ONNX is installed."""
    absent = [name for name in PACKAGES if find_spec(name) is None]
    if absent:
        raise BadInput(f"--format onnx needs {', '.join(absent)}; install the extra: pip install 'idat-tune[onnx]'")


def write_onnx(path: Path, ready: Student, student: Student) -> float:
    """Write `ready` as ONNX: bytes (B, channels, H, W) in, logits (B, classes) out, any B, normalisation inside.

    Args:
        path: of the file.
        ready: the student as it is to be written, adapters merged where they can be.
        student: the student that was tested.

    Returns:
        The largest difference between its logits and those of `student`.

    Raises:
        IdatError: it is more than 1e-4.
    """
    import onnxruntime

    with torch.no_grad(), redirect_stdout(StringIO()):  # it tells of its steps
        program = torch.onnx.export(
            ready.model,
            (_pixels(ready, TRACED),),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=["pixels"],
            output_names=["logits"],
            verbose=False,
        )
        assert program is not None
        program.save(path, external_data=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return _difference(lambda pixels: torch.from_numpy(session.run(None, {"pixels": pixels.numpy()})[0]), student)


def write_program(path: Path, ready: Student, student: Student) -> float:
    """As `write_onnx`, as a program of torch.export.

    Its tensors lie in it as bytes, and nothing of it is pickled but the example of its input. We never read such a
    file: `torch.export.load` unpickles whatever a file says is pickled.
    """
    with torch.no_grad():
        batch = torch.export.Dim("batch")
        program = torch.export.export(ready.model, (_pixels(ready, TRACED),), dynamic_shapes=({0: batch},))
    torch.export.save(program, path)
    return _difference(program.module(), student)


def _difference(run: Callable[[Tensor], Tensor], student: Student) -> float:
    largest = 0.0
    with torch.no_grad():
        for batch in BATCHES:
            pixels = _pixels(student, batch)
            ours, theirs = student(pixels), run(pixels)
            if ours.shape != theirs.shape or not torch.allclose(theirs, ours, rtol=MOST, atol=MOST):
                raise IdatError(
                    f"what was written gives other logits than the student at a batch of {batch}; nothing is exported: "
                    "take --format folder or merged"
                )
            largest = max(largest, float((theirs - ours).abs().max()))
    return largest


def _pixels(student: Student, batch: int) -> Tensor:
    spec = student.model.spec
    shape = (batch, spec.channels, spec.size, spec.size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(batch))


def write_preprocessing(place: Path, student: Student, form: str) -> None:
    """Describe beside it how an image becomes bytes, and write the example that does so."""
    spec, low_high = student.model.spec, student.intensity
    said: dict[str, Any] = {
        "input": {"name": "pixels", "type": "uint8", "shape": ["batch", spec.channels, spec.size, spec.size]},
        "steps": [
            "turn the image upright, as its EXIF orientation says",
            "show what is transparent on white",
            "convert it to mode (ITU-R 601 luma for L)",
            "resize it to size x size with Pillow, both sides, whatever its aspect; resample is Pillow's number",
        ],
        "size": spec.size,
        "mode": "L" if spec.channels == 1 else "RGB",
        "interpolation": spec.interpolation,
        "resample": INTERPOLATIONS.index(spec.interpolation),
        "intensity": low_high,
        "intensity_note": "of images with more than 8 bits: the values that become black and white, before all else",
        "normalisation": "inside the model",
    }
    (place / PREPROCESSING).write_text(json.dumps(said, indent=2) + "\n")
    (place / "example.py").write_text(ONNX_EXAMPLE if form == "onnx" else PROGRAM_EXAMPLE)

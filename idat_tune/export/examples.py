"""The programs that lie beside a portable student, and show how to use it without this package."""

_EXAMPLE = '''"""Prints the label of each image and its probability: python example.py image.png ... (needs {needs})."""

import json
import sys
from pathlib import Path

import numpy as np
import {library}
from PIL import Image, ImageOps

here = Path(__file__).parent
how, labels = (json.loads((here / name).read_text()) for name in ("preprocessing.json", "labels.json"))
{opened}
for path in sys.argv[1:]:
    image = ImageOps.exif_transpose(Image.open(path))
    if how["intensity"] and image.mode[0] in "IF":  # more than 8 bits
        low, high = how["intensity"]
        values = np.clip((np.asarray(image, np.float64) - low) * (255 / (high - low)), 0, 255)
        image = Image.fromarray(np.nan_to_num(np.rint(values)).astype(np.uint8))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    image = image.convert("RGB").convert(how["mode"]).resize((how["size"], how["size"]), how["resample"])
    pixels = np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)[None]
    logits = {run}
    shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    print(path, labels[int(shares.argmax())], f"{{shares.max():.4f}}", sep="\\t")
'''

ONNX_EXAMPLE = _EXAMPLE.format(
    needs="onnxruntime, numpy, pillow",
    library="onnxruntime",
    opened='session = onnxruntime.InferenceSession(here / "student.onnx", providers=["CPUExecutionProvider"])',
    run='session.run(None, {"pixels": pixels})[0][0]',
)
PROGRAM_EXAMPLE = _EXAMPLE.format(
    needs="torch, numpy, pillow",
    library="torch",
    opened='model = torch.export.load(here / "student.pt2").module()',
    run="model(torch.tensor(pixels))[0].detach().numpy()",
)

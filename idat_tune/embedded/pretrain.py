"""Makes the weights of the embedded backbones: `python -m idat_tune.embedded.pretrain`."""

import argparse
import hashlib
import json
import math
import sys
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F

from idat_tune.embedded import glyphs
from idat_tune.embedded.augment import Augmenter
from idat_tune.embedded.backbones import ARCHITECTURES, MEAN, RECIPE, STD, WEIGHTS, new_model, read_recipe


@dataclass(frozen=True)
class Settings:
    """One pretraining; the defaults made the shipped weights."""

    steps: int
    seed: int = 0
    batch_size: int = 128
    lr: float = 3e-3
    warmup_steps: int = 200
    weight_decay: float = 0.05
    label_smoothing: float = 0.05
    clip_norm: float = 1.0


STEPS = {"glyph_base": 6000, "glyph_small": 7000}
HELD_OUT = 8192  # fresh images for the accuracy in the recipe
NOTE = (
    "Classification of rendered letters, symbols and plain shapes, from fonts that matplotlib ships. Left out: digits "
    "and whatever looks like one, the shapes that the sprites are made of (L among them), and arrows. "
    "No glyph is turned by more than 20 degrees, so upright and lying ones can be told apart, and position is noise."
)


def pretrain(name: str, settings: Settings, out: Path) -> dict[str, Any]:
    """Train one backbone on glyphs; writes its weights (float16) and its part of the recipe into `out`.

    On one machine and one thread the same settings give the same bytes.

    Returns:
        The backbone's part of the recipe; accuracy is a fraction of fresh images of the same classes.
    """
    masters, labels = (torch.from_numpy(array) for array in glyphs.atlas())
    classes = len(glyphs.class_names())
    torch.manual_seed(settings.seed)
    model = new_model(name, classes)
    started = time.perf_counter()
    _train(model, Augmenter(masters, labels, settings.seed), settings)
    seconds = time.perf_counter() - started

    for parameter in model.parameters():  # what is measured is what ships
        parameter.data = parameter.data.half().float()
    accuracy = _accuracy(model, Augmenter(masters, labels, settings.seed + 1_000_000))
    entry = {"architecture": ARCHITECTURES[name], "settings": asdict(settings), "held_out_accuracy": round(accuracy, 4)}
    entry |= {"held_out_images": HELD_OUT, "seconds": round(seconds, 1), "versions": _versions()}
    entry |= _save(model, out / f"{name}.safetensors")
    _write_recipe(name, entry, out)
    return entry


def _normalised(pixels: torch.Tensor) -> torch.Tensor:
    return (pixels - MEAN[0]) / STD[0]


def _train(model: torch.nn.Module, augmenter: Augmenter, settings: Settings) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
    for step in range(settings.steps):
        optimizer.param_groups[0]["lr"] = settings.lr * _lr_factor(step, settings)
        pixels, labels = augmenter.batch(settings.batch_size)
        logits = model(_normalised(pixels))
        loss = F.cross_entropy(logits, labels, label_smoothing=settings.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
        optimizer.step()
        if step % 500 == 0 or step == settings.steps - 1:
            hits = (logits.argmax(1) == labels).float().mean().item()
            _say(f"step {step:5d} of {settings.steps}: loss {loss.item():.3f}, accuracy of this batch {hits:.1%}")


def _lr_factor(step: int, settings: Settings) -> float:
    """Linear warm-up, then half a cosine down to zero."""
    warmup = min(settings.warmup_steps, settings.steps // 10)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (settings.steps - warmup)))


@torch.no_grad()
def _accuracy(model: torch.nn.Module, augmenter: Augmenter) -> float:
    model.eval()
    hits = 0
    for _ in range(HELD_OUT // 256):
        pixels, labels = augmenter.batch(256)
        hits += int((model(_normalised(pixels)).argmax(1) == labels).sum())
    return hits / HELD_OUT


def _save(model: torch.nn.Module, path: Path) -> dict[str, Any]:
    state = {key: value.half().contiguous() for key, value in model.state_dict().items() if not key.startswith("head.")}
    content = safetensors.torch.save(state)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    parameters = sum(value.numel() for value in state.values())
    return {"parameters": parameters, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _versions() -> dict[str, str]:
    return {package: version(package) for package in ("torch", "timm", "matplotlib", "pillow")}


def _write_recipe(name: str, entry: dict[str, Any], out: Path) -> None:
    backbones = read_recipe(out)["backbones"] if (out / RECIPE).exists() else {}
    recipe = {
        "made_by": "python -m idat_tune.embedded.pretrain",
        "note": NOTE,
        "mean": MEAN,
        "std": STD,
        "classes": glyphs.class_names(),
        "backbones": dict(sorted({**backbones, name: entry}.items())),
    }
    (out / RECIPE).write_text(json.dumps(recipe, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def main() -> None:
    """Command line: which backbone, for how many steps, into which folder."""
    parser = argparse.ArgumentParser(prog="python -m idat_tune.embedded.pretrain", description=__doc__)
    parser.add_argument("--backbone", choices=[*ARCHITECTURES, "all"], default="all")
    parser.add_argument("--steps", type=int, help="default: those of the shipped weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder for the weights and recipe.json")
    arguments = parser.parse_args()
    if arguments.steps is not None and arguments.steps < 1:
        parser.error(f"--steps {arguments.steps} trains nothing; give at least 1")
    torch.set_num_threads(1)  # sums in the same order every time
    torch.use_deterministic_algorithms(True)
    for name in ARCHITECTURES if arguments.backbone == "all" else [arguments.backbone]:
        entry = pretrain(name, Settings(steps=arguments.steps or STEPS[name], seed=arguments.seed), arguments.out)
        _say(f"{name}: {entry['held_out_accuracy']:.1%} of fresh glyphs in {entry['seconds']:.0f} s")


if __name__ == "__main__":
    main()

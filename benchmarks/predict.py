"""How near `predict` comes to its backbone's own forward passes, from files to labels: `python -m benchmarks.predict`.

Both are of one process and take turns, so that whatever else the machine does meets both. Where it does much else, the
CPU time that they take, of all threads together, is the better measure.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import idat_tune
from idat_tune import export, predict
from idat_tune.config import RunConfig
from idat_tune.model import build

CASES = (("random:vit_small", "lora"), ("random:vit_small", "parallel"))


def photos(place: Path, count: int) -> list[Path]:
    """JPEGs of the size and the detail that photos of data sets have."""
    random = np.random.default_rng(0)
    files = []
    for number in range(count):
        small = Image.fromarray(random.integers(0, 256, (60, 80, 3), dtype=np.uint8))
        files.append(place / f"{number:03}.jpg")
        small.resize((500, 375), Image.Resampling.BICUBIC).save(files[-1], quality=90)
    return files


def seconds(call: Callable[[], object]) -> tuple[float, float]:
    """Wall time and CPU time of a call."""
    began = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - began[0], time.process_time() - began[1]


def measured(student: str, kind: str, images: int, rounds: int) -> dict[str, object]:
    """Images per second of both, and the median of their ratios."""
    config = RunConfig.for_task("digits", {"student": student, "teacher": "none", "adapter.kind": kind})
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        files = photos(place, images)
        state = build(config.student, config.classes, config, seed=0).trained_state()
        export.save(place / "student", config, state, {})
        loaded = idat_tune.load(place / "student", merge=None)  # as the command does
        plain = build(config.student, config.classes, config.updated({"adapter.kind": "linear"}), seed=0).eval()
        spec = plain.spec
        pixels = torch.randint(0, 256, (images, spec.channels, spec.size, spec.size), dtype=torch.uint8)

        def forward() -> None:
            with torch.no_grad():
                for batch in pixels.split(predict.BATCH):
                    plain(batch)

        def predicted() -> None:
            assert all(answer.top for answer in predict.answers(loaded, files))

        forward(), predicted()
        pairs = [(seconds(forward), seconds(predicted)) for _ in range(rounds)]
    wall, cpu = ([alone[place] / whole[place] for alone, whole in pairs] for place in (0, 1))
    return {
        "student": student,
        "kind": kind,
        "backbone_images_per_second": images / statistics.median(alone for (alone, _), _ in pairs),
        "predict_images_per_second": images / statistics.median(whole for _, (whole, _) in pairs),
        "ratio": statistics.median(wall),
        "ratio_of_cpu_time": statistics.median(cpu),
        "cpu_ratios": [min(cpu), max(cpu)],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    print(json.dumps({"threads": torch.get_num_threads(), "cores": os.cpu_count(), "load": os.getloadavg()}))
    for case in CASES:
        print(json.dumps(measured(*case, given.images, given.rounds)), flush=True)

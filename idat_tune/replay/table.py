"""The recorded table: learning curves of many configs, several runs of each, in one Parquet file."""

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from idat_tune.errors import BadInput, unknown
from idat_tune.metrics import WORST, score

SHIPPED = Path(__file__).parent / "curves.parquet"
VAL_IMAGES = 200  # of every recorded run: a fifth of the 1,000
ARMS = ("default", "alone", "no_distill")  # names of configs, as `search.plan` has them


@dataclass(frozen=True)
class RecordedRun:
    """One recorded run of a config: on split `fold` of the 1,000 images, with that number as seed."""

    task: str
    config: str  # an arm's name, or random-000 and so on
    fold: int  # from 0
    point: Mapping[str, Any]  # dotted keys of the space that are active
    trainable_params: int  # of the student
    seconds: float  # process time of the training, validation included
    val_accuracy: tuple[float, ...]  # per epoch, a fraction; short where the run diverged
    val_loss: tuple[float, ...]
    test_accuracy: float | None  # after the last epoch; None where the run diverged
    test_loss: float | None

    def scores(self, epochs: int) -> tuple[float, ...]:
        """What ranks the run after each of its epochs; the worst there is from where it diverged."""
        known = [score(a, b, VAL_IMAGES) for a, b in zip(self.val_accuracy, self.val_loss, strict=True)]
        return tuple(known + [WORST] * (epochs - len(known)))


@dataclass(frozen=True)
class Curves:
    """The recorded runs of a config of a task, by fold."""

    task: str
    config: str
    point: Mapping[str, Any]
    trainable_params: int
    runs: Mapping[int, RecordedRun]

    @property
    def truth(self) -> float:
        """Mean test accuracy over its runs; a run that diverged counts as 0."""
        return statistics.fmean(self._tested())

    @property
    def standard_error(self) -> float:
        """Of `truth`, over its runs."""
        tested = self._tested()
        return statistics.stdev(tested) / math.sqrt(len(tested))

    def _tested(self) -> list[float]:
        return [run.test_accuracy or 0.0 for run in self.runs.values()]


def write(path: Path, recordings: Iterable[RecordedRun], story: Mapping[str, str]) -> None:
    """Write the table, a row per run, replacing the file at once; `story` says how it was made."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    recordings = sorted(recordings, key=lambda run: (run.task, run.config, run.fold))
    keys = list(dict.fromkeys(key for run in recordings for key in run.point))
    plain = {
        "task": pa.string(),
        "config": pa.string(),
        "fold": pa.int8(),
        "trainable_params": pa.int32(),
        "seconds": pa.float32(),
        "val_accuracy": pa.list_(pa.float32()),
        "val_loss": pa.list_(pa.float32()),
        "test_accuracy": pa.float32(),
        "test_loss": pa.float32(),
    }
    columns = {name: pa.array([getattr(run, name) for run in recordings], kind) for name, kind in plain.items()}
    columns |= {key: pa.array([run.point.get(key) for run in recordings]) for key in keys}
    table = pa.table(columns).replace_schema_metadata(dict(story))
    partial = path.with_name(f".{path.name}.partial")
    pq.write_table(table, partial, compression="zstd", compression_level=19)
    partial.replace(path)


def read(path: Path = SHIPPED) -> list[RecordedRun]:
    """The runs of a table written by `write`, sorted by task, config and fold.

    Raises:
        BadInput: the file is not there, or is no such table.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path).to_pylist()
        return [_recording(row) for row in rows]
    except OSError as failure:
        raise BadInput(f"table {path} cannot be read: {failure.strerror or failure}") from None
    except (pa.ArrowInvalid, KeyError) as failure:
        raise BadInput(
            f"table {path} is not one of recorded curves ({failure}); python -m benchmarks.record makes one"
        ) from None


def story(path: Path = SHIPPED) -> dict[str, str]:
    """How a table was made: date, machine, versions."""
    import pyarrow.parquet as pq

    metadata = pq.read_schema(path).metadata or {}
    return {key.decode(): value.decode() for key, value in metadata.items() if not key.startswith(b"ARROW")}


def _recording(row: Mapping[str, Any]) -> RecordedRun:
    names = [field.name for field in fields(RecordedRun) if field.name != "point"]
    point = {key: value for key, value in row.items() if key not in names and value is not None}
    return from_row({**{name: row[name] for name in names}, "point": point})


def from_row(row: Mapping[str, Any]) -> RecordedRun:
    """A run from plain values, as JSON gives them back."""
    curves = {name: tuple(row[name]) for name in ("val_accuracy", "val_loss")}
    return RecordedRun(**{**row, **curves})


def tasks_of(recordings: Iterable[RecordedRun]) -> tuple[str, ...]:
    """The recorded tasks."""
    return tuple(dict.fromkeys(run.task for run in recordings))


def curves_of(recordings: Iterable[RecordedRun], task: str) -> dict[str, Curves]:
    """The configs of a task by name, arms first; only those that every fold was recorded for.

    Raises:
        BadInput: the task is not in the table.
    """
    recordings = list(recordings)
    by_config: dict[str, dict[int, RecordedRun]] = {}
    for run in recordings:
        if run.task == task:
            by_config.setdefault(run.config, {})[run.fold] = run
    if not by_config:
        raise unknown("recorded task", task, tasks_of(recordings))
    folds = max(len(runs) for runs in by_config.values())
    names = sorted((name for name, runs in by_config.items() if len(runs) == folds), key=_arms_first)
    return {name: _curves(by_config[name]) for name in names}


def _arms_first(name: str) -> tuple[int, str]:
    return (ARMS.index(name) if name in ARMS else len(ARMS), name)


def _curves(runs: dict[int, RecordedRun]) -> Curves:
    first = next(iter(runs.values()))
    return Curves(first.task, first.config, first.point, first.trainable_params, runs)

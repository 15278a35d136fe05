"""A student by any of its names: an export folder, a search, a model or run of MLflow, a repository of the hub."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from idat_tune import export
from idat_tune.engine.frozen import Frozen
from idat_tune.errors import BadInput, shown
from idat_tune.export import Student, hub

RUNS = Path("runs")  # where searches are looked for
BEST = "best"  # folder of a search with its export
MODEL, RUN = "models:/", "runs:/"  # what a URI of MLflow begins with
# Where below what MLflow gives an export lies: a model's artifact, or the artifacts of a search's run.
_BELOW = (Path(), Path("artifacts/student"), Path("student"), Path(BEST))


def load(source: str | Path, device: str = "cpu", merge: bool | None = False) -> Student:
    """The student of a source, in eval mode, with its transform, labels, config and metrics.

    Args:
        source: an export folder; the folder of a search, or its name under `runs`; `models:/NAME@ALIAS`,
            `models:/NAME/VERSION` or `runs:/ID/best` of MLflow (where MLFLOW_TRACKING_URI says, else in `runs`); or
            `owner/name` on the hub. What exists as a folder is one.
        device: where the student goes.
        merge: fold the adapters into the backbone's weights; see `export.load`.

    Raises:
        BadInput: there is no such thing, or it is damaged; see `export.load`.
    """
    with _folder(source) as folder:
        return export.load(folder, device, merge)


def load_many(sources: Iterable[str | Path], device: str = "cpu", merge: bool | None = False) -> list[Student]:
    """Several students, as `load` gives each of them, that hold what their backbones have in common once.

    Only what is frozen in all of them is shared: what a kind trains or merges is each student's own.
    """
    frozen, found = Frozen(torch.device(device)), []
    for source in sources:
        with _folder(source) as folder:
            found.append(export.load(folder, device, merge, frozen))
    return found


@contextmanager
def _folder(source: str | Path) -> Iterator[Path]:
    """The export folder that a source means, for as long as it is read."""
    name = str(source)
    if name.startswith((MODEL, RUN)):
        with TemporaryDirectory() as place:
            yield _below(_from_mlflow(name, Path(place)), name)
        return
    path = Path(source).expanduser()
    searched = [path / BEST, *([RUNS / name / BEST] if path.parts == (name,) else [])]
    if not path.is_dir() or not export.is_export(path):
        path = next((place for place in searched if export.is_export(place)), path)
    # A folder that is misspelt is none of the hub's.
    of_hub = not isinstance(source, Path) and hub.is_repository(name) and not path.parent.is_dir()
    yield hub.fetched(name) if of_hub and not path.exists() else path


def _from_mlflow(source: str, place: Path) -> Path:
    import mlflow

    from idat_tune import tracking  # here, as a student in a folder needs nothing of it

    where = tracking.uri(RUNS)
    if tracking.embedded(RUNS) and not tracking.store(RUNS).exists():
        raise BadInput(
            f"{shown(source)} cannot be looked up: there is no tracking store at {tracking.store(RUNS)}; set "
            "MLFLOW_TRACKING_URI, or go to the folder that holds runs"
        )
    try:
        with tracking.patient():
            client = mlflow.MlflowClient(where, where)
            artifacts = _artifacts(client, source)
            return Path(mlflow.artifacts.download_artifacts(artifacts, dst_path=str(place), tracking_uri=where))
    except Exception as failure:  # MLflow raises those of its stores and of their clients, too
        raise BadInput(
            f"{shown(source)} cannot be had from {tracking.shown(where)} ({tracking.plainly(failure)}); name another"
        ) from None


def _artifacts(client: Any, uri: str) -> str:
    """Where the artifacts of a model are; by that client, as MLflow itself asks the registry of the process."""
    from mlflow.store.artifact.utils.models import get_model_name_and_version

    while uri.startswith(MODEL):  # the source of a version may be a logged model
        found = get_model_name_and_version(client, uri)
        if len(found) == 1:
            return client.get_logged_model(*found).artifact_location
        uri = client.get_model_version_download_uri(*found)
    return uri


def _below(folder: Path, source: str) -> Path:
    found = next((folder / below for below in _BELOW if export.is_export(folder / below)), None)
    if found is None:
        raise BadInput(f"{shown(source)} holds no export of idat-tune; name the folder of one in it, as runs:/ID/best")
    return found

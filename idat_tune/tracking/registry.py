"""The winner's student in MLflow's registry: loadable by MLflow alone, champion only where it is the better one."""

import hashlib
import json
import logging
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

from idat_tune.differences import Design, Noise, Outcome, difference
from idat_tune.journal import Journal
from idat_tune.journal.hits import unpacked
from idat_tune.tracking.runs import BEST, Search, description

CHAMPION, CHALLENGER = "champion", "challenger"  # aliases
MODEL = "student"  # folder among the artifacts of the search's run, with one for each version
ADAPTER = "adapter.safetensors"  # in the export; to ask the room would load torch, for seconds without a sign of life
EVIDENCE = "evidence.json"  # in it: what its final runs came to on the test
DIGEST, PLACED, WHY = "idat_tune.sha256", "idat_tune.placed", "idat_tune.reason"  # tags of a version
PACKAGES = (
    *("mlflow", "torch", "torchvision", "timm", "safetensors", "numpy", "scipy", "scikit-learn", "pillow", "pyarrow"),
    *("pydantic", "pyyaml", "huggingface_hub"),
)
# Of the package, what no student needs that predicts.
LEFT_OUT = ("cli", "clusters", "journal", "replay", "report", "search", "tracking", "worker", "__pycache__")
# Of a server that says no for good, where another attempt helps nothing; others may be away.
REFUSED = ("FEATURE_DISABLED", "ENDPOINT_NOT_FOUND", "PERMISSION_DENIED", "NOT_IMPLEMENTED", "INVALID_PARAMETER_VALUE")

log = logging.getLogger("mlflow.idat_tune")


def name_of(task: str) -> str:
    """What the model of a task is called in the registry, where names have neither `/` nor `:`."""
    return "idat-" + re.sub(r"[^\w.-]+", "-", task)


def put_model(client: Any, search: Search, run: str, journal: Journal, alive: Callable[[], None]) -> None:
    """Register the student of a search that is finished, once, and say whether it is the champion of its task.

    Nothing where there is none, as where nothing was tested, or where the store keeps no models.

    Args:
        client: of MLflow.
        search: which one.
        run: the id of its run.
        journal: of it.
        alive: called after everything that the store has taken.
    """
    from mlflow.exceptions import MlflowException

    result, best = journal.state.result, search.folder / BEST
    if not result or not result["winner"] or not result["winner"]["test_accuracy"] or not (best / ADAPTER).exists():
        return
    try:
        _put(_Heard(client, alive), search, run, _evidence(search, journal, result["winner"]), result)
    except MlflowException as failure:
        if failure.error_code not in REFUSED:
            raise
        log.warning("the store keeps no models", exc_info=True)


class _Heard:
    """A client after each of whose answers somebody is told that there was one: silence means that it is away."""

    def __init__(self, client: Any, alive: Callable[[], None]):
        self._client, self.alive = client, alive

    def __getattr__(self, name: str) -> Any:
        def call(*about: Any, **more: Any) -> Any:
            answer = getattr(self._client, name)(*about, **more)
            self.alive()
            return answer

        return call


def _put(client: _Heard, search: Search, run: str, evidence: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    name, best = name_of(search.task), search.folder / BEST
    digest = hashlib.sha256((best / ADAPTER).read_bytes() + json.dumps(evidence).encode()).hexdigest()
    known = [one for one in client.search_model_versions(f"run_id = '{run}'") if one.tags.get(DIGEST) == digest]
    if not known:
        with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as beside:
            saved = beside.submit(save, best, Path(folder) / "model")
            while not saved.done():  # seconds in which no store has a say
                client.alive()
                wait([saved], timeout=0.2)
            model = saved.result()
            (model / EVIDENCE).write_text(json.dumps(evidence))
            for file in sorted(path for path in model.rglob("*") if path.is_file()):
                client.log_artifact(run, str(file), str(_folder(digest) / file.relative_to(model).parent))
        _make(client, name)
        source = f"{client.get_run(run).info.artifact_uri}/{_folder(digest)}"
        known = [client.create_model_version(name, source, run, {DIGEST: digest}, None, description(result), 0)]
    if PLACED not in known[0].tags:
        _place(client, name, known[0], evidence, description(result))


def _folder(digest: str) -> PurePosixPath:
    """Where a version lies: of a search that goes on another comes, and the one before stays as it was."""
    return PurePosixPath(MODEL, digest[:12])


def _make(client: Any, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, description="The best students that idat-tune found for this task.")
    except MlflowException as failure:
        if failure.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _evidence(search: Search, journal: Journal, winner: Mapping[str, Any]) -> dict[str, Any]:
    """What the winner's students of all seeds came to on the test, image by image, and what makes it comparable."""
    tested, hits = journal.tested(), journal.state.test_hits
    finals = {run.config["seed"]: run.id for run in journal.finals(winner["config"]) if run.id in tested}
    return {
        "data_hash": search.data_hash,
        "protocol": winner["config"].get("protocol", "ours"),
        # Accuracy, loss, and which images were named rightly.
        "test": {str(seed): [*tested[trial], hits.get(trial)] for seed, trial in finals.items()},
    }


def _place(client: Any, name: str, ours: Any, evidence: Mapping[str, Any], text: str) -> None:
    """Give a version its alias, and say before that why it has that one, which then still is known after a crash."""
    before = client.get_registered_model(name).aliases.get(CHAMPION)
    if before is None:
        alias, why = CHAMPION, "the first of this task"
    elif str(before) == str(ours.version):
        alias, why = CHAMPION, ours.tags[WHY]
    else:
        champion = client.get_model_version(name, str(before))
        alias, why = judged(evidence, _evidence_of(client, champion), f"version {before}")
    client.set_model_version_tag(name, ours.version, WHY, why)
    client.update_model_version(name, ours.version, f"{text}\n\n{alias.capitalize()}: {why}.")
    client.set_registered_model_alias(name, alias, ours.version)
    client.set_model_version_tag(name, ours.version, PLACED, alias)


def _evidence_of(client: Any, champion: Any) -> dict[str, Any] | None:
    """What the champion came to; None where its run is gone, or it was registered by somebody else."""
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory() as folder:
        try:
            path = client.download_artifacts(champion.run_id, str(_folder(champion.tags[DIGEST]) / EVIDENCE), folder)
            found: dict[str, Any] = json.loads(Path(path).read_text())
        except (MlflowException, OSError, ValueError, TypeError, KeyError):
            return None
    return found


def judged(ours: Mapping[str, Any], theirs: Mapping[str, Any] | None, them: str) -> tuple[str, str]:
    """The alias that ours earns against the champion, and why: `champion` for a gain on the test beyond the noise.

    Args:
        ours: as `_evidence` has it.
        theirs: likewise; None where it is not known.
        them: what to call the champion.
    """
    unknown = CHALLENGER, f"what it or {them}, the champion, came to image by image is not known"
    if theirs is None:
        return unknown
    for what, called in (("data_hash", "images"), ("protocol", "protocol")):
        if ours[what] != theirs[what]:
            return CHALLENGER, f"{them}, the champion, has another {called}, so the two cannot be compared"
    us, champion = _outcomes(ours), _outcomes(theirs)
    images = {len(one.hits) for side in (us, champion) for one in side.values() if one.hits is not None}
    if len(images) != 1:
        return unknown
    count = images.pop()
    found = difference(us, champion, Design(count, crossed=True), Noise(), least=count**-2)
    if found is None:
        return CHALLENGER, f"it has no seed in common with {them}, the champion"
    points = f"{100 * found.mean:+.2f} points on test against {them}"
    if found.pairs < 2:
        return CHALLENGER, f"{points}, of one seed, which says nothing of the noise"
    low, high = (100 * bound for bound in found.interval)
    measured = f"{points} (95 % interval {low:+.2f} to {high:+.2f}, {found.pairs} seeds)"
    if found.reliable and found.mean > 0:
        return CHAMPION, f"{measured}, the champion before"
    return CHALLENGER, f"{measured}, the champion: no gain beyond the noise"


def _outcomes(evidence: Mapping[str, Any]) -> dict[int, Outcome]:
    return {
        int(seed): Outcome(accuracy, loss, unpacked(hits) if hits else None)
        for seed, (accuracy, loss, hits) in evidence["test"].items()
    }


def save(best: Path, folder: Path) -> Path:
    """Write an exported student as an MLflow model, which needs neither this package nor any pickle; the folder."""
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array, Object, Property

    import idat_tune

    label, probability = (Property(name, kind) for name, kind in (("label", "string"), ("probability", "double")))
    signature = ModelSignature(
        Schema([ColSpec(DataType.binary, "image")]),
        Schema(
            [
                ColSpec(DataType.string, "label"),
                ColSpec(DataType.double, "probability"),
                ColSpec(Array(Object([label, probability])), "top"),
            ]
        ),
        ParamSchema([ParamSpec("top", DataType.long, 1)]),
    )
    package = Path(idat_tune.__file__).parent
    code, student = folder.parent / package.name, folder.parent / "student"  # as they are called in the model
    shutil.copytree(package, code, ignore=shutil.ignore_patterns(*LEFT_OUT))
    shutil.copytree(best, student)
    with warnings.catch_warnings(action="ignore"):  # that there is no example of an image
        mlflow.pyfunc.save_model(
            str(folder),
            python_model=str(package / "tracking" / "student_model.py"),
            artifacts={"student": str(student)},
            code_paths=[str(code)],
            signature=signature,
            pip_requirements=[f"{one}=={version(one)}" for one in PACKAGES],
        )
    return folder

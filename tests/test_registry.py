"""The model registry: a student that MLflow loads and serves by itself, and who becomes the champion of a task."""

import base64
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import FEATURE_DISABLED
from PIL import Image
from test_searcher import no_linear_arm  # noqa: F401
from test_tracked import RESULT, finished, laid_out, out  # noqa: F401

import idat_tune
from idat_tune import predict, tracking
from idat_tune.config import RunConfig
from idat_tune.export import save
from idat_tune.journal.hits import packed
from idat_tune.model import build
from idat_tune.tracking import registry
from idat_tune.tracking.registry import CHALLENGER, CHAMPION, PLACED, WHY, judged, name_of
from idat_tune.tracking.sender import Sender, send_all

CONFIG = RunConfig.for_task("digits", {"student": "glyph_base", "teacher": "none", "epochs": 1})
# Loads a model with nothing but MLflow: wherever idat_tune lies, it cannot be found.
ALONE = """
import json, sys
from pathlib import Path
from importlib.util import find_spec
sys.path = [place for place in sys.path if not (Path(place or ".") / "idat_tune" / "__init__.py").exists()]
assert not getattr(find_spec("idat_tune"), "origin", None)  # an empty folder of that name may be there
import mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
import idat_tune
assert "/code/" in idat_tune.__file__, idat_tune.__file__
import pandas as pd
images = [Path(path).read_bytes() for path in sys.argv[2:]]
found = model.predict(pd.DataFrame({"image": images}), params={"top": 3})
print(json.dumps(found.to_dict("records")))
"""


@pytest.fixture
def pictures(tmp_path):
    """Files with images of noise."""
    random_ = np.random.default_rng(0)
    paths = [tmp_path / f"{n}.png" for n in range(3)]
    for path in paths:
        Image.fromarray(random_.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(path)
    return paths


def searched(out, name="s"):  # noqa: F811
    """A search that has ended, with a student in `best`."""
    tracked = finished(out)
    best = tracked.search.folder / "best"
    shutil.rmtree(best)
    save(best, CONFIG, build(CONFIG.student, 10, CONFIG, 0).trained_state(), {"test_accuracy": 0.9})
    return tracked


@pytest.fixture
def sent(out, monkeypatch):  # noqa: F811
    """One whose runs and student MLflow has, and a client."""
    monkeypatch.setitem(RESULT["winner"], "config", {**CONFIG.flat(), "seed": 0})
    tracked = searched(out)
    send_all(tracked.search, tracked.journal.path)
    return tracked, mlflow.MlflowClient(tracking.uri(out))


def evidence(accuracy, seeds=3, images=400, **changes):
    """Final runs that name images rightly with that probability."""
    draw = np.random.default_rng(7)
    easy = draw.random(images)  # the same images are easy for whoever it is
    tested = {}
    for seed in range(seeds):
        hits = easy + draw.normal(0, 0.02, images) < accuracy
        tested[str(seed)] = [float(hits.mean()), 0.5, packed(hits)]
    return {"data_hash": "h", "protocol": "ours", "test": tested, **changes}


@pytest.mark.parametrize(
    ("ours", "theirs", "alias", "why"),
    [
        (evidence(0.9), evidence(0.8), CHAMPION, r"^\+\d+\.\d\d points on test against version 1 \(95 % interval"),
        (evidence(0.8), evidence(0.9), CHALLENGER, "no gain beyond the noise$"),
        (evidence(0.802), evidence(0.8), CHALLENGER, "no gain beyond the noise$"),
        (evidence(0.9), None, CHALLENGER, "is not known$"),
        (evidence(0.9, data_hash="other"), evidence(0.8), CHALLENGER, "has another images"),
        (evidence(0.9, protocol="paper"), evidence(0.8), CHALLENGER, "has another protocol"),
        (evidence(0.9, seeds=1), evidence(0.8), CHALLENGER, "of one seed, which says nothing of the noise"),
        (evidence(0.9), evidence(0.8, test={}), CHALLENGER, "no seed in common"),
    ],
)
def test_who_is_better_beyond_the_noise_on_the_same_test_is_the_champion(ours, theirs, alias, why):
    found, said = judged(ours, theirs, "version 1")
    assert found == alias
    assert re.search(why, said), said


@pytest.mark.parametrize(("task", "name"), [("dtd", "idat-dtd"), ("my task/x:1", "idat-my-task-x-1")])
def test_names_are_what_the_registry_takes(task, name):
    assert name_of(task) == name


def test_a_search_registers_its_student_once_and_says_what_it_is(sent, out):  # noqa: F811
    tracked, client = sent
    (version,) = client.search_model_versions("name = 'idat-digits'")
    assert (version.tags[PLACED], version.tags[WHY]) == (CHAMPION, "the first of this task")
    assert version.description.startswith("fine\n\n| | trial |")
    assert "90.00 %" in version.description
    assert client.get_model_version_by_alias("idat-digits", CHAMPION).version == version.version
    assert client.get_run(version.run_id).data.tags["search"] == "s"
    send_all(tracked.search, tracked.journal.path)
    assert len(client.search_model_versions("name = 'idat-digits'")) == 1


def test_it_is_loaded_by_the_name_of_its_model_too(sent, out, pictures, monkeypatch):  # noqa: F811
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.uri(out))
    ours, theirs = (idat_tune.load(name) for name in (out / "s" / "best", "models:/idat-digits@champion"))
    first, second = (list(predict.answers(student, pictures)) for student in (ours, theirs))
    assert first == second


def test_a_search_that_goes_on_brings_another_version_and_leaves_the_first_as_it_was(sent):
    tracked, client = sent
    best = tracked.search.folder / "best"
    before = client.get_model_version_by_alias("idat-digits", CHAMPION)
    shutil.rmtree(best)
    save(best, CONFIG, build(CONFIG.student, 10, CONFIG, 1).trained_state(), {"test_accuracy": 0.9})
    tracker = tracking.Tracker(tracked.search)
    tracker.parent = before.run_id
    tracker.put_model(tracked.journal)
    first, second = sorted(client.search_model_versions("name = 'idat-digits'"), key=lambda one: int(one.version))
    assert first.source != second.source
    assert (first.tags[PLACED], second.tags[PLACED]) == (CHAMPION, CHALLENGER)
    assert "image by image is not known" in second.tags[WHY]  # by a journal without
    assert client.get_model_version_by_alias("idat-digits", CHAMPION).version == first.version


def test_killed_at_any_call_there_is_one_version_with_its_alias(out, monkeypatch):  # noqa: F811
    monkeypatch.setitem(RESULT["winner"], "config", {**CONFIG.flat(), "seed": 0})
    tracked = searched(out)
    left = [10**6]

    class Killed(Exception):
        pass

    def wrapped(method):
        def call(self, *about, **more):
            if left[0] <= 0:
                raise Killed
            left[0] -= 1
            return method(self, *about, **more)

        return call

    calls = ("log_artifact", "create_registered_model", "create_model_version", "set_registered_model_alias")
    for name in (*calls, "set_model_version_tag", "update_model_version"):
        monkeypatch.setattr(mlflow.MlflowClient, name, wrapped(getattr(mlflow.MlflowClient, name)))
    monkeypatch.setattr(registry, "save", lambda best, folder: folder.mkdir() or folder)  # which takes two seconds
    for after in (0, 1, 2, 3, 1, 2, 3):  # what was taken is not sent again
        left[0] = after
        with pytest.raises(Killed):
            send_all(tracked.search, tracked.journal.path)
    left[0] = 10**6
    send_all(tracked.search, tracked.journal.path)
    client = mlflow.MlflowClient(tracking.uri(out))
    (version,) = client.search_model_versions("name = 'idat-digits'")
    assert version.tags[PLACED] == CHAMPION
    assert version.description.count("Champion: ") == 1


def test_a_store_that_keeps_no_models_gets_all_the_rest(out, monkeypatch):  # noqa: F811
    def refuse(*_, **__):
        raise MlflowException("no registry here", error_code=FEATURE_DISABLED)

    monkeypatch.setitem(RESULT["winner"], "config", {**CONFIG.flat(), "seed": 0})
    monkeypatch.setattr(mlflow.MlflowClient, "search_model_versions", refuse)
    tracked = searched(out)
    assert send_all(tracked.search, tracked.journal.path).written == 6


def test_without_a_student_nothing_is_registered(out):  # noqa: F811
    tracked = finished(out)
    Sender(tracked.search, tracked.journal).send(ended=True)
    assert list(mlflow.MlflowClient(tracking.uri(out)).search_registered_models()) == []


@pytest.mark.slow
def test_mlflow_alone_loads_it_and_says_what_predict_says_wherever_the_folder_is(sent, out, tmp_path, pictures):  # noqa: F811
    student = idat_tune.load(out / "s" / "best")
    expected = [answer.top for answer in predict.answers(student, pictures, top=3)]
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in list(out.iterdir()):
        if path.name in ("mlflow.db", "artifacts", "s"):
            path.rename(moved / path.name)
    tracking.follow_moved(moved)
    words = [sys.executable, "-c", ALONE, "models:/idat-digits@champion", *map(str, pictures)]
    environment = {"MLFLOW_TRACKING_URI": tracking.uri(moved), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=200)
    assert done.returncode == 0, done.stderr
    found = [[(one["label"], one["probability"]) for one in row["top"]] for row in json.loads(done.stdout)]
    for ours, theirs in zip(found, expected, strict=True):
        assert [label for label, _ in ours] == [label for label, _ in theirs]
        assert [p for _, p in ours] == pytest.approx([p for _, p in theirs], abs=1e-6)


@pytest.mark.slow
def test_it_can_be_served_and_a_bad_image_is_the_callers_fault(sent, out, pictures):  # noqa: F811
    student = idat_tune.load(out / "s" / "best")
    ((expected,),) = [answer.top for answer in predict.answers(student, pictures[:1])]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/idat-digits@champion"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    serving = subprocess.Popen(
        [*words, "--env-manager", "local", "--port", str(port), "--workers", "1"],
        env={**os.environ, "MLFLOW_TRACKING_URI": tracking.uri(out), "PATH": path},
        start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until = time.monotonic() + 120
        while ask(port, "GET", "/ping") != 200:
            assert time.monotonic() < until
            time.sleep(0.5)
        image = base64.b64encode(pictures[0].read_bytes()).decode()
        status, said = ask(port, "POST", "/invocations", image)
        assert status == 200, said
        (row,) = json.loads(said)["predictions"]
        assert (row["label"], row["probability"]) == (expected[0], pytest.approx(expected[1], abs=1e-6))
        for bad in (base64.b64encode(b"no image").decode(), base64.b64encode(str(pictures[0]).encode()).decode()):
            status, said = ask(port, "POST", "/invocations", bad)
            assert status == 400, said
            assert "image 1" in said
            assert "is not a readable image" in said, said
    finally:
        os.killpg(serving.pid, signal.SIGTERM)
        serving.wait(30)


def ask(port, method, path, image=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        if image is None:
            connection.request(method, path)
            return connection.getresponse().status
        body = json.dumps({"dataframe_split": {"columns": ["image"], "data": [[image]]}})
        connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except OSError:
        return None
    finally:
        connection.close()

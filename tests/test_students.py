"""Students by their names: folder, search, MLflow, hub; and several that share what is frozen."""

import csv
import io
import json
import shutil
from pathlib import Path
from typing import ClassVar

import huggingface_hub
import numpy as np
import pytest
import torch
from conftest import glyphs
from PIL import Image
from test_formats import exported, logits
from typer.testing import CliRunner

import idat_tune
from idat_tune import adapters, export, kinds, predict, students
from idat_tune.cli.commands import app
from idat_tune.errors import BadInput, IdatError
from idat_tune.export import hub


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two students of one backbone, and what they say alone."""
    place = tmp_path_factory.mktemp("two")
    folders = [exported(place / "a", "lora"), exported(place / "b", "parallel", adapter__hidden_dim=8)]
    return folders, [logits(idat_tune.load(folder)) for folder in folders]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to work in, without a tracking server."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Names


def test_a_folder_a_search_and_its_name_are_one_student(two, here):
    (folder, _), (wanted, _) = two
    shutil.copytree(folder, here / "runs/first/best")
    for name in ("runs/first/best", "runs/first", "first", Path("runs/first"), folder):
        assert torch.equal(logits(idat_tune.load(name)), wanted)
    with pytest.raises(BadInput, match="no export folder at second"):
        idat_tune.load("second")
    with pytest.raises(BadInput, match="no export folder at runs/secnd"):  # and the hub is not asked
        idat_tune.load("runs/secnd")


def test_an_export_in_mlflow_is_loaded_by_its_run_and_by_its_model(two, here):
    import mlflow

    from idat_tune import tracking

    (folder, _), (wanted, _) = two
    with pytest.raises(BadInput, match="there is no tracking store at .*mlflow.db; set MLFLOW_TRACKING_URI"):
        idat_tune.load("runs:/0123/best")
    tracking.lay_out(Path("runs"))
    shutil.copytree(folder, folder.parent / "as_model/artifacts/student")
    client = mlflow.MlflowClient(tracking.uri(Path("runs")), tracking.uri(Path("runs")))
    run = client.create_run(client.create_experiment("x", artifact_location=str(here / "artifacts")))
    client.log_artifacts(run.info.run_id, folder, "best")
    client.log_artifacts(run.info.run_id, folder, "model/artifacts/student")
    client.create_registered_model("idat-digits")
    source = f"{run.info.artifact_uri}/model"
    version = client.create_model_version("idat-digits", source, run.info.run_id).version
    client.set_registered_model_alias("idat-digits", "champion", version)
    logged = client.create_logged_model(run.info.experiment_id, name="student")
    client.log_model_artifacts(logged.model_id, str(folder.parent / "as_model"))
    uris = (f"models:/{logged.model_id}",)
    uris += (f"runs:/{run.info.run_id}/best", "models:/idat-digits@champion", f"models:/idat-digits/{version}")
    for uri in uris:
        assert torch.equal(logits(idat_tune.load(uri)), wanted)
    with pytest.raises(BadInput, match=r"models:/idat-digits@nobody cannot be had from sqlite"):
        idat_tune.load("models:/idat-digits@nobody")
    client.log_text(run.info.run_id, "x", "notes/x.txt")
    with pytest.raises(BadInput, match="holds no export of idat-tune"):
        idat_tune.load(f"runs:/{run.info.run_id}/notes")


def test_a_repository_of_the_hub_is_fetched_as_far_as_it_is_an_export(two, here, monkeypatch):
    (folder, _), (wanted, _) = two
    asked = []

    def snapshot_download(repository, allow_patterns, etag_timeout):
        asked.append((repository, allow_patterns))
        return str(folder if repository == "me/mine" else here)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert torch.equal(logits(idat_tune.load("me/mine")), wanted)
    assert asked[0][0] == "me/mine"
    assert {*export.FILES, *export.STUDENTS.values(), export.TEACHER} == set(asked[0][1])
    with pytest.raises(BadInput, match="me/other on the hub holds no export"):
        idat_tune.load("me/other")
    (here / "me").mkdir()
    with pytest.raises(BadInput, match="no export folder at me/mine"):
        idat_tune.load("me/mine")


def test_without_a_network_the_hub_is_one_sentence(here, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BadInput, match=r"me/mine cannot be fetched from the hub \(.*\); connect once") as caught:
        idat_tune.load("me/mine")
    assert "\n" not in str(caught.value)


# To the hub


class FakeApi:
    """A hub that takes what it is given, or refuses it."""

    taken: ClassVar[list] = []

    def create_repo(self, repository, private, exist_ok):
        if repository == "them/theirs":
            raise PermissionError("403 Forbidden: you may not\nwrite there")
        self.taken.append(("create", repository, private, exist_ok))
        return f"https://hub.example/{repository}"

    def upload_folder(self, repo_id, folder_path, commit_message, delete_patterns):
        names = sorted(path.name for path in Path(folder_path).iterdir())
        self.taken.append(("upload", repo_id, names, delete_patterns))


def test_an_export_goes_to_the_hub_with_a_login_and_not_without(two, here, monkeypatch):
    (folder, _), _ = two
    arguments = ["export", str(folder), "--to", "out", "--format", "merged", "--push-to-hub"]
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeApi)
    monkeypatch.setattr(FakeApi, "taken", [])
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    done = CliRunner().invoke(app, [*arguments, "me/mine"])
    assert isinstance(done.exception, BadInput)
    assert "wants a login of yours: run `hf auth login` once, or set HF_TOKEN" in str(done.exception)
    assert not (here / "out").exists()
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "secret")
    done = CliRunner().invoke(app, [*arguments, "me"])
    assert "me is no repository of the hub; it is owner/name" in str(done.exception)
    done = CliRunner().invoke(app, [*arguments, "me/mine", "--json"])
    assert json.loads(done.stdout)["hub"] == "https://hub.example/me/mine"
    (_, _, private, _), (_, repository, names, deleted) = FakeApi.taken
    assert (private, repository) == (True, "me/mine")
    assert {"README.md", "model.safetensors", "config.yaml"} <= set(names)
    assert "adapter.safetensors" in deleted
    with pytest.raises(IdatError, match=r"did not take .*out as them/theirs \(PermissionError: 403 Forbidden"):
        hub.pushed(here / "out", "them/theirs")


# Several at once


def frozen_of(student):
    model = student.model
    return {value.data_ptr() for name, value in model.backbone.named_parameters() if name not in model.trainable()}


def test_students_of_one_backbone_share_what_is_frozen_and_say_the_same(two):
    folders, wanted = two
    one, other = idat_tune.load_many(folders)
    assert frozen_of(one) == frozen_of(other)
    assert len(frozen_of(one)) > 30
    for student, said in zip((one, other), wanted, strict=True):
        assert torch.equal(logits(student), said)


@pytest.mark.parametrize("kind", ["bitfit", "ln", "full", "ssf", "mosa", "vera"])
def test_what_one_student_trained_is_not_the_others(kind, two, tmp_path):
    folders, wanted = two
    mine = exported(tmp_path / kind, kind)
    alone = logits(idat_tune.load(mine))
    first, changed, last = idat_tune.load_many([folders[0], mine, folders[1]])
    for student, said in ((first, wanted[0]), (changed, alone), (last, wanted[1])):
        assert torch.equal(logits(student), said)


def test_merged_students_share_what_no_adapter_changed(two):
    folders, wanted = two
    merged, plain = (idat_tune.load_many([folders[0]], merge=True)[0], idat_tune.load_many(folders)[0])
    torch.testing.assert_close(logits(merged), wanted[0], rtol=0, atol=1e-5)
    assert torch.equal(logits(plain), wanted[0])
    assert kinds.KINDS["lora"].merges
    assert not any(isinstance(module, adapters.AdaptedBlock) for module in merged.model.backbone.modules())


def test_pairs_share_both_backbones(two, tmp_path):
    sources = [exported(tmp_path / name, kind, teacher=True) for name, kind in (("c", "lora"), ("d", "parallel"))]
    wanted = [logits(idat_tune.load(source)) for source in sources]
    found = idat_tune.load_many(sources)
    for student, said in zip(found, wanted, strict=True):
        assert torch.equal(logits(student), said)
    addresses = [frozen_of(type("Half", (), {"model": student.model.teacher})) for student in found]
    assert addresses[0] == addresses[1]


def test_several_students_answer_at_once(two, here):
    folders, _ = two
    random = np.random.default_rng(0)
    for name in ("x.png", "y.png"):
        Image.fromarray(random.integers(0, 256, (40, 40), dtype=np.uint8)).save(here / name)
    (here / "z.png").write_text("no image")
    chosen = [word for folder in folders for word in ("--adapter", str(folder))]
    done = CliRunner().invoke(app, ["predict", *chosen, "x.png", "y.png", "z.png", "--csv"])
    rows = [row for row in csv.DictReader(io.StringIO(done.stdout)) if not row["error"]]
    assert [(row["image"], row["adapter"]) for row in rows] == [
        (i, str(f)) for i in ("x.png", "y.png") for f in folders
    ]
    for row in rows:
        (label, share) = idat_tune.load(row["adapter"]).predict([row["image"]])[0]
        assert (row["label"], float(row["probability"])) == (label, pytest.approx(share, abs=1e-6))
    assert done.stderr.splitlines() == [line for line in done.stderr.splitlines() if line.startswith("skipped: z.png")]
    assert len(done.stderr.splitlines()) == 1
    rows = json.loads(CliRunner().invoke(app, ["predict", *chosen, "x.png", "--json"]).stdout)
    assert [row["adapter"] for row in rows] == [str(folder) for folder in folders]
    lines = CliRunner().invoke(app, ["predict", *chosen, "x.png"]).stdout.splitlines()
    assert [line.split("  ")[1] for line in lines] == [str(folder) for folder in folders]
    done = CliRunner().invoke(app, ["predict", str(folders[0])])
    assert "no image is named after the student" in str(done.exception)


def test_an_image_is_decoded_once_for_students_who_see_it_alike(two, here, monkeypatch):
    Image.new("L", (9, 9), 3).save(here / "x.png")
    read, really = [], predict.data.read_image
    monkeypatch.setattr(predict.data, "read_image", lambda file: (read.append(file), really(file))[1])
    list(predict.answers_of_all(students.load_many(two[0]), [here / "x.png"]))
    assert len(read) == 1


def test_what_mlflow_and_the_hub_are_for_is_not_loaded_with_a_folder():
    assert glyphs().student == "glyph_base"
    assert not hub.is_repository("models:/x")
    assert not hub.is_repository("a/b/c")
    assert hub.is_repository("org/idat-digits.v1")

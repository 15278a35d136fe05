"""What a student makes of images inside: what its head is given, where it looks, and the map of the two."""

import io
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import command, glyphs, noise
from PIL import Image
from played import made, own_task
from test_searcher import no_linear_arm, no_object_store  # noqa: F401

from idat_tune import features, tasks
from idat_tune.config import RunConfig
from idat_tune.engine.inside import looked_inside
from idat_tune.engine.resident import Resident
from idat_tune.features import Features
from idat_tune.kinds import KINDS
from idat_tune.model import build
from idat_tune.report.evidence import Evidence
from idat_tune.report.inside import _maps
from idat_tune.report.shots import tinted
from idat_tune.report.task import write
from idat_tune.run import run_on
from idat_tune.worker.trial import Trial, Worker

VIT, SWIN = "random:vit_tiny_patch16_224", "random:swin_tiny_patch4_window7_224"


def a_config(student=VIT, kind="sequential", **changes):
    fixed = {"student": student, "teacher": "none", "adapter.kind": kind, "precision": "fp32", "device": "cpu"}
    return RunConfig.for_task("digits", {**fixed, "image_size": 64 if "vit" in student else None, **changes})


def a_model(config):
    model = build(config.student, config.classes, config, 0)
    with torch.no_grad():  # so that attention is far from uniform, and adapters from nothing
        for block in model.backbone.modules():
            if isinstance(block, torch.nn.Linear):
                block.weight.mul_(3)
    return model.eval()


def pixels_for(model, count=3):
    size = (count, model.spec.channels, model.spec.size, model.spec.size)
    return torch.randint(0, 256, size, generator=torch.Generator().manual_seed(0)).byte()


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_head_is_given_makes_the_logits_and_attention_is_a_part_of_one(kind):
    config = a_config(kind=kind)
    model = a_model(config)
    pixels = pixels_for(model)
    given, attention = looked_inside(model, pixels, config)
    with torch.no_grad():
        assert torch.equal(model.backbone.get_classifier()(given), model(pixels))
    assert attention.shape == (3, 4, 4)
    assert (attention > 0).all()
    assert (attention.sum((1, 2)) < 1).all()


def test_attention_is_the_softmax_of_queries_and_keys_restated():
    config = a_config()
    model, seen = a_model(config), {}
    attention = next(module for module in model.backbone.blocks[-1].modules() if hasattr(module, "qkv"))
    hook = attention.register_forward_pre_hook(lambda _, given: seen.update(x=given[0]))
    pixels = pixels_for(model)
    _, found = looked_inside(model, pixels, config)
    hook.remove()
    x = seen["x"].double()
    qkv = x @ attention.qkv.weight.double().T + attention.qkv.bias.double()
    q, k, _ = (part.view(3, 17, 3, 64).transpose(1, 2) for part in qkv.split(192, dim=-1))
    weights = torch.softmax(q @ k.transpose(-2, -1) / 8, dim=-1)
    torch.testing.assert_close(found.double(), weights.mean(1)[:, 0, 1:].view(3, 4, 4), rtol=1e-4, atol=1e-6)
    assert found.std() > 0.001


OTHERS = {
    "prompts": {"kind": "vpt_deep", "adapter.hidden_dim": 5},
    "a gist": {"gist.token": True},
    "registers": {"student": "random:vit_small_patch14_reg4_dinov2.lvd142m", "image_size": 56},
}


@pytest.mark.parametrize("changes", OTHERS.values(), ids=OTHERS)
def test_what_is_no_patch_takes_its_part_of_attention_and_is_left_out(changes):
    config = a_config(**changes)
    model = a_model(config)
    seen, attention = {}, next(m for m in model.backbone.blocks[-1].modules() if hasattr(m, "q_norm"))
    hooks = [
        getattr(attention, name).register_forward_hook(lambda _, given, out, name=name: seen.update({name: out}))
        for name in ("q_norm", "k_norm")
    ]
    _, found = looked_inside(model, pixels_for(model), config)
    for hook in hooks:
        hook.remove()
    q, k = seen["q_norm"].double(), seen["k_norm"].double()
    assert k.shape[-2] > 17
    weights = torch.softmax(q @ k.transpose(-2, -1) * k.shape[-1] ** -0.5, dim=-1).mean(1)
    torch.testing.assert_close(found.double(), weights[:, 0, -16:].view(3, 4, 4), rtol=1e-4, atol=1e-6)


def test_in_bf16_it_is_in_full_precision_too():
    config = a_config(precision="bf16", epochs=1, **{"optim.warmup_epochs": 0})
    resident = Resident(noise(24, size=64, channels=3), torch.device("cpu"))
    training = run_on(resident, config, torch.arange(16), torch.arange(16, 24))
    list(training)
    given, attention = looked_inside(training.student, resident.pixels[:3], config)
    assert given.dtype is attention.dtype is torch.float32
    assert np.isfinite(attention.numpy()).all()
    assert np.isfinite(given.numpy()).all()


def test_a_swin_has_features_and_no_attention():
    config = a_config(SWIN)
    model = a_model(config)
    given, attention = looked_inside(model, pixels_for(model, 2), config)
    assert given.shape == (2, 768)
    assert attention is None


@pytest.mark.parametrize("recorded", [False, True])
def test_nothing_stays_on_a_student_that_was_looked_at(recorded):
    config = RunConfig.for_task("digits", {"epochs": 2, "precision": "fp32", "device": "cpu"})

    def accuracies(look):
        resident = Resident(noise(64), torch.device("cpu"), recorded)
        training = run_on(resident, config, torch.arange(40), torch.arange(40, 64))
        found = []
        for epoch in training:
            found.append((epoch.train_loss, epoch.val_accuracy, epoch.val_loss))
            if look:
                given, _ = looked_inside(training.student, resident.pixels[:5], config)
                assert given.shape == (5, 48)
        return found

    assert accuracies(look=True) == accuracies(look=False)


def test_a_map_is_the_same_each_time_and_keeps_what_is_alike_together():
    random = np.random.default_rng(0)
    labels = np.arange(60) % 3
    given = (random.normal(size=(60, 16)) + 8 * labels[:, None]).astype("float32")
    places = features.mapped(given)
    assert np.array_equal(places, features.mapped(given))
    apart = ((places[:, None] - places[None]) ** 2).sum(-1) + np.diag([np.inf] * 60)
    assert (labels[apart.argmin(1)] == labels).all()


@pytest.mark.parametrize("count", [1, features.FEWEST - 1, 40])
def test_what_cannot_be_told_apart_lies_in_one_place(count):
    alike = np.tile(np.random.default_rng(0).normal(size=4).astype("float32"), (count, 1))
    assert np.array_equal(features.mapped(alike), np.zeros((count, 2)))
    assert np.array_equal(features.mapped(np.full((count, 4), np.nan, "float32")), np.zeros((count, 2)))


def test_few_images_have_a_map_too():
    given = np.random.default_rng(0).normal(size=(features.FEWEST, 4)).astype("float32")
    assert np.isfinite(features.mapped(given)).all()
    assert features.mapped(given).std() > 0


def test_what_is_kept_comes_back_and_what_is_damaged_is_none(tmp_path):
    places = np.arange(6, dtype="float32").reshape(3, 2)
    found = Features(np.array([4, 1, 9]), np.array([0, 1, 0]), places, np.full((3, 2, 2), 0.25))
    features.keep(tmp_path, "confirm-0-a", features.encoded(found))
    back = features.read(tmp_path, "a")
    assert back.images.tolist() == [4, 1, 9]
    assert back.labels.tolist() == [0, 1, 0]
    assert np.array_equal(back.places, places)
    assert np.array_equal(back.attention, found.attention)
    features.keep(tmp_path, "confirm-0-b", features.encoded(replace(found, attention=None)))
    assert features.read(tmp_path, "b").attention is None
    (tmp_path / features.FOLDER / "confirm-0-a.safetensors").write_bytes(b"half")
    assert features.read(tmp_path, "a") is None
    assert features.read(tmp_path, "never") is None


def test_an_image_has_the_colour_where_attention_is():
    buffer = io.BytesIO()
    Image.new("L", (32, 16), 128).save(buffer, "PNG")
    shown = np.asarray(Image.open(io.BytesIO(tinted(buffer.getvalue(), np.array([[0.0, 0.4]]))))).astype(int)
    assert shown.shape == (32, 64, 3)  # enlarged, in its proportions
    red_over_blue = shown[..., 0] - shown[..., 2]
    assert abs(red_over_blue[:, :8]).max() < 12
    assert red_over_blue[:, -8:].min() > 100
    for nothing in (0.0, np.nan):  # of an attention that never was
        grey = np.asarray(Image.open(io.BytesIO(tinted(buffer.getvalue(), np.full((2, 2), nothing))))).astype(int)
        assert abs(grey - 128).max() < 4


def test_the_page_shows_the_winner_inside_beside_its_twin(searched):
    result, out, _ = searched
    page = (out / "first" / "report.html").read_text()
    trial = result["winner"]["trial"]
    one = features.read(out / "first", trial)
    apart = ((one.places[:, None] - one.places[None]) ** 2).sum(-1) + np.diag([np.inf] * len(one.places))
    alike = f"{100 * (one.labels[apart.argmin(1)] == one.labels).mean():.0f} %"
    assert f"the nearest image is of the same class for {alike}" in page
    assert one.attention.shape == (len(one.images), 4, 4)
    assert page.count('alt="attention of the winner on image') == 6


def test_the_page_says_why_nothing_is_known_inside(searched, tmp_path):
    _, out, _ = searched
    shutil.copytree(out, tmp_path / "runs")
    shutil.rmtree(tmp_path / "runs" / "first" / features.FOLDER)
    done = command("report", "first", "--out", tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    assert (
        "There are no maps and no attention: the folder features is not there"
        in (tmp_path / "runs" / "first" / "report.html").read_text()
    )


def test_a_map_that_there_is_not_says_so_and_so_does_what_is_lost(tmp_path, no_object_store, no_linear_arm):  # noqa: F811
    found = made(tmp_path)
    trial = found.result["winner"]["trial"]
    kept = features.read(found.folder, trial)
    features.keep(found.folder, f"confirm-0-{trial}", features.encoded(replace(kept, places=0 * kept.places)))
    text = write(found.folder, found.content, found.journal, found.result).read_text()
    assert " has no map: its images are too few, or look all the same to the head." in text
    (found.folder / features.FOLDER / f"confirm-0-{trial}.safetensors").write_bytes(b"half")
    text = write(found.folder, found.content, found.journal, found.result).read_text()
    assert "Of the winner itself nothing was kept." in text
    for file in (found.folder / features.FOLDER).iterdir():
        file.unlink()
    text = write(found.folder, found.content, found.journal, found.result).read_text()
    assert "the folder features has nothing of these students that can be read" in text


@pytest.mark.parametrize("broken", ["looked_inside", "features.mapped"])
def test_a_picture_costs_no_result(broken, monkeypatch):
    def fails(*_):
        raise RuntimeError("no picture today")

    monkeypatch.setattr(f"idat_tune.worker.trial.{broken}", fails)
    result = confirmed(fold=0)
    assert result["status"] == "complete"
    assert "features" not in result
    assert result["hits"]


@pytest.mark.parametrize(("fold", "wanted"), [(0, True), (1, False)])
def test_a_student_is_looked_at_on_the_first_split_alone(fold, wanted):
    assert ("features" in confirmed(fold)) is wanted


def confirmed(fold):
    """The last result of a trial that confirms."""
    worker = Worker({"train": noise(40), "val": noise(20, seed=1)})
    flat = glyphs(epochs=1, optim__warmup_epochs=0).flat()
    job = {"id": f"confirm-{fold}-a", "stage": "confirm", "fold": fold, "contender": "a", "config": flat}
    trial = Trial(worker, job)
    return trial.result(trial.advanced())


def test_a_task_that_lost_classes_since_is_shown_all_the_same(tmp_path, monkeypatch, no_object_store, no_linear_arm):  # noqa: F811
    for name in ("TASKS", "_BY_KEY"):
        monkeypatch.setattr(tasks, name, dict(getattr(tasks, name)))
    own_task(4)
    found = made(tmp_path, task="mine", fixed={"epochs": 4, "student": "glyph_base"})
    own_task(2)
    maps = _maps(Evidence.of(found.folder, found.content, found.journal, found.result), {"winner": shown(found)})
    assert "the nearest image is of the same class for" in maps


def shown(found):
    return features.read(found.folder, found.result["winner"]["trial"])

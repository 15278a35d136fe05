"""The benchmarks that search a little for each of what they compare: what they draw, choose, keep and say."""

from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch

from benchmarks import kinds, real, real_images, real_weights
from benchmarks.kept import Kept
from benchmarks.small_search import against, best, came_to, command, points, told, verdict
from idat_tune import data, space
from idat_tune.config import RunConfig
from idat_tune.engine.resident import Resident
from idat_tune.kinds import KINDS


def a_run(hits, loss=1.0):
    """What `came_to` gives, for hits as a string."""
    accuracy = hits.count("1") / len(hits)
    return {"accuracy": accuracy, "loss": loss, "hits": hits, "seconds": 2.0, "cpu": 3.0, "trainable": 1234}


def runs(accuracy, seeds=5, images=200):
    """Runs by seed, of which each misses its own few images."""
    draw = np.random.default_rng(0)
    return {seed: a_run("".join(map(str, (draw.random(images) < accuracy).astype(int)))) for seed in range(seeds)}


def test_a_run_that_is_kept_is_not_run_again(tmp_path):
    counted = []

    def measured():
        counted.append(1)
        return {"accuracy": 0.5, "cpu": 2.0}

    for _ in range(2):  # the second one reads the file
        kept = Kept(tmp_path / "deep" / "runs.jsonl")
        for seed in (0, 1, 0):
            assert kept(["digits", {"seed": seed}], measured)["accuracy"] == 0.5
    assert len(counted) == 2
    assert kept.total("cpu") == 4.0


def test_few_points_take_each_setting_from_all_of_its_range():
    searched = space.parse(
        {"params": {"adapter.hidden_dim": {"choice": [4, 8]}, "optim.lr": {"log_uniform": [1e-4, 1e-2]}}}
    )
    drawn = points(searched, 8)
    tenths = sorted(8 * np.log(point["optim.lr"] / 1e-4) / np.log(100) for point in drawn)
    assert tenths == pytest.approx(np.arange(8) + 0.5)
    assert sorted(point["adapter.hidden_dim"] for point in drawn) == [4] * 4 + [8] * 4


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_searched_at_as_many_valid_points_with_and_without_a_teacher(kind):
    alone, kl = (
        points(space.load("kinds").with_fixed({"adapter.kind": kind, **way}), kinds.TRIALS)
        for way in kinds.WAYS.values()
    )
    for drawn in (alone, kl):
        assert len({RunConfig.for_task("digits", point) for point in drawn}) == kinds.TRIALS
    for ours, theirs in zip(alone, kl, strict=True):
        assert {key: theirs[key] for key in ours if key != "teacher"} == {
            key: value for key, value in ours.items() if key != "teacher"
        }
        assert theirs.keys() - ours.keys() == {"distill.loss", "distill.temperature", "distill.weight"}


def test_real_images_are_searched_at_the_same_points_with_and_without_a_teacher():
    for ours, theirs in zip(real.tried("none"), real.tried(real_weights.NAME), strict=True):
        assert (
            RunConfig.for_task("digits", {**real.COMMON, **theirs}).adapter
            == RunConfig.for_task("digits", ours).adapter
        )
        assert (theirs["optim.lr"], theirs.keys() - ours.keys()) == (ours["optim.lr"], {"distill.weight"})


def test_the_best_is_the_most_accurate_and_then_the_surest():
    assert best([a_run("10"), a_run("11", loss=2.0), a_run("11", loss=1.0), a_run("00", loss=0.1)]) == 2


def test_a_difference_is_reliable_where_it_is_large_and_turns_with_its_sides():
    good, bad, as_good = runs(0.9), runs(0.6), runs(0.9)
    assert verdict(against(good, bad)) == 1
    assert verdict(against(bad, good)) == -1
    assert verdict(against(good, as_good)) == 0
    assert told(against(good, as_good)).startswith("+0.0 (")


def test_of_two_single_runs_no_interval_is_claimed():
    assert "too few seeds" in told(against(runs(0.9, seeds=1), runs(0.6, seeds=1)))


def test_a_run_says_of_every_image_whether_it_was_right():
    train, val = (data.load("digits", split, 32, 1) for split in ("train", "val"))
    config = RunConfig.for_task("digits", {"teacher": "none", "adapter.kind": "linear", "epochs": 1})
    found = came_to(config, Resident(train, torch.device("cpu")), torch.arange(64), val)
    assert len(found["hits"]) == len(val)
    assert found["hits"].count("1") == round(found["accuracy"] * len(val))
    assert found["trainable"] == 490


def test_a_run_that_diverges_is_wrong_everywhere():
    val = data.load("digits", "val", 32, 1)
    config = RunConfig.for_task("digits", {"teacher": "none", "adapter.kind": "full", "epochs": 3, "optim.lr": 1e30})
    found = came_to(config, Resident(val, torch.device("cpu")), torch.arange(64), val)
    assert (found["accuracy"], found["hits"]) == (0.0, "0" * len(val))


def test_a_page_names_its_command_without_the_folder_of_this_machine(monkeypatch):
    monkeypatch.setattr("sys.argv", ["real", "--image-size", "56", "--runs", "/tmp/here", "--write", "real.md"])
    assert command("benchmarks.real") == "python -m benchmarks.real --image-size 56 --write real.md"


def test_patches_of_a_picture_do_not_overlap_and_none_is_flat():
    grey = np.arange(200 * 150, dtype=np.float64).reshape(200, 150) % 251
    grey[:48, :48] = 7
    found = real_images.cells(grey)
    assert len(found) == 4 * 3 - 1
    assert len({(patch[0, 0], patch[0, 1]) for patch in found}) == len(found)
    assert [patch.tolist() for patch in found] == [patch.tolist() for patch in real_images.cells(grey)]


def test_weights_are_found_in_a_graph_under_their_names():
    layer = "backbone.encoder.layer.0.attention.attention.query"
    weight, bias = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(3, dtype=np.float32)
    token, patches = np.zeros((1, 1, 3), np.float32), np.ones((1, 4, 3), np.float32)
    stored = {"onnx::Reshape_9": patches, "onnx::Concat_7": token, "onnx::MatMul_3": weight, f"{layer}.bias": bias}
    stored["decoder.bn1.weight"] = bias
    node = "/backbone/encoder/layer.0/attention/attention/query/MatMul"
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "onnx::MatMul_3"], ["y"], name=node),
        onnx.helper.make_node("MatMul", ["x", "y"], ["z"], name="/backbone/encoder/layer.0/attention/MatMul"),
    ]
    values = [onnx.numpy_helper.from_array(value, name) for name, value in stored.items()]
    found = real_weights.tensors(onnx.helper.make_model(onnx.helper.make_graph(nodes, "net", [], [], values)))
    assert found.keys() == {f"{layer}.weight", f"{layer}.bias", "backbone.embeddings.position_embeddings"}
    assert found[f"{layer}.weight"].tolist() == weight.T.tolist()
    assert found["backbone.embeddings.position_embeddings"][0, :, 0].tolist() == [0, 1, 1, 1, 1]


def test_what_real_images_show_is_said_for_and_against_a_teacher():
    found = real.Found("mnist", 56)
    of_arms = {"linear": 0.4, "alone": 0.7, "kl": 0.9, "kl standardised": 0.5}
    for arm, accuracy in of_arms.items():
        for seed, run in runs(accuracy).items():
            found.add(arm, {"optim.lr": 1e-3}, seed, run)
    said = real.sentences([found])
    assert "2 comparisons with and without a teacher 1 show a reliable gain, 1 a reliable loss" in said[0]
    assert any("kl against alone" in line and line.endswith("a reliable gain.") for line in said)
    assert any("alone against linear" in line and line.endswith("a reliable gain.") for line in said)
    assert [line.split(" | ")[0] for line in real.table(found)[3:7]] == [f"| {arm}" for arm in of_arms]


def test_the_table_of_kinds_compares_each_at_its_best():
    points_of = {
        "alone": {"adapter.hidden_dim": 8, "optim.lr": 0.00123},
        "kl": {"optim.lr": 0.02, "distill.weight": 3.0},
    }
    accuracy = {"lora": (0.6, 0.9), "ssf": (0.7, 0.7)}

    def task(kind):
        def of_way(split, point, seed):
            assert split == "test"
            return runs(accuracy[kind][point is points_of["kl"]], len(kinds.SEEDS))[seed]

        return SimpleNamespace(name="digits", chosen=lambda kind, way: points_of[way], came_to=of_way)

    found = [kinds.Found(task(kind), kind) for kind in accuracy]
    text = kinds.page({"digits": found}, "Done.")
    assert "| lora | 1,234 | " in text
    assert "h 8, lr 0.0012" in text
    assert "lr 0.02, lambda 3" in text
    assert "the best alone are ssf " in text
    assert "1 gain reliably (lora), 0 lose reliably" in text

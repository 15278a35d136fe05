"""GIST: a token beside the class token, over any kind of adapter, alone and with a teacher."""

import numpy as np
import pytest
import torch
from conftest import glyphs, noise

from idat_tune import adapters, export
from idat_tune.config import GistConfig, RunConfig
from idat_tune.cost import parameters
from idat_tune.distill import distillation, own_loss
from idat_tune.engine.cut import Cut
from idat_tune.engine.recorded import Recorded
from idat_tune.engine.resident import Resident
from idat_tune.errors import BadInput
from idat_tune.kinds import KINDS
from idat_tune.model import build
from idat_tune.run import run, run_on
from idat_tune.screen import brief
from idat_tune.search import SearchConfig, plan_search

OF_VIT = [name for name, kind in KINDS.items() if "vit" in kind.families]
CPU = torch.device("cpu")


def gisted(**changes):
    return glyphs(gist__token=True, **changes)


def pixels_of(count=6, seed=0):
    return torch.as_tensor(noise(count, seed=seed).pixels)


def losses_of(training):
    return [(epoch.train_loss, epoch.val_loss) for epoch in training]


# What is computed


def test_the_token_stands_behind_the_class_token_and_passes_all_blocks_and_the_head():
    model = build("glyph_base", 10, gisted(), seed=0).double()
    model.dtype = torch.float64
    backbone = model.backbone
    token = dict(model.trainable())["norm_pre.gist"]
    with torch.no_grad():
        x = backbone._pos_embed(backbone.patch_embed(model.normalised(pixels_of())))
        x = torch.stack([x[:, 0], token.expand(len(x), -1), *x[:, 1:].unbind(1)], 1)
        for block in adapters.blocks_of(backbone):
            x = block(x)
        of_class, of_gist = (
            backbone.norm(x)[:, place] @ backbone.head.weight.T + backbone.head.bias for place in (0, 1)
        )
        found = model(pixels_of())
        torch.testing.assert_close(found, torch.stack([of_class, of_gist], 1), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(model.eval()(pixels_of()), of_class, rtol=1e-12, atol=1e-12)


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


@pytest.mark.parametrize("config", [GistConfig(), GistConfig(ce_weight=2, kl_weight=0.1, temperature=1)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_published_one(config, smoothing):
    y, z = (np.random.default_rng(seed).normal(size=(6, 7)) * 3 for seed in (0, 1))
    labels = np.array([0, 3, 6, 2, 2, 5])
    smooth = (1 - smoothing) * np.eye(7)[labels] + smoothing / 7
    ce = [-(smooth * log_softmax(of)).sum(-1).mean() for of in (y, z)]
    p, q = (log_softmax(of / config.temperature) for of in (y, z))
    kl = [(np.exp(a) * (a - b)).sum(-1).mean() for a, b in ((p, q), (q, p))]
    both = torch.tensor(np.stack([y, z], 1), requires_grad=True)
    found = own_loss(both, torch.tensor(labels), smoothing, config)
    assert found.item() == pytest.approx(ce[0] + config.ce_weight * ce[1] + config.kl_weight * sum(kl), rel=1e-9)
    found.backward()
    assert both.grad.abs().amin() > 0  # nothing is detached


def test_it_stays_finite_where_both_are_certain_and_disagree():
    both = torch.tensor([[[3000.0, 0, -3000], [-3000, 0, 3000]]], requires_grad=True)
    own_loss(both, torch.tensor([1]), 0.0, GistConfig()).backward()
    assert both.grad.isfinite().all()


def test_student_and_teacher_each_have_a_token_and_distil_the_class_tokens_logits():
    training = run(gisted(optim__warmup_epochs=0, distill__weight=2.0), noise(32))
    config, pixels, labels = training.config, pixels_of(32), torch.as_tensor(noise(32).labels)
    with torch.no_grad():
        ours, theirs = (model.train()(pixels) for model in (training.student, training.teacher))
        own = [own_loss(both, labels, 0.0, config.gist).item() for both in (ours, theirs)]
        distilled = distillation(ours[:, 0], theirs[:, 0], config.distill).item()
    first = next(iter(training))
    assert (first.train_ce_student, first.train_ce_teacher) == pytest.approx(tuple(own), rel=1e-5)
    assert first.train_distill == pytest.approx(distilled, rel=1e-4)
    assert first.train_loss == pytest.approx(sum(own) + 2 * distilled, rel=1e-5)


# How it starts, and what trains


@pytest.mark.parametrize("kind", OF_VIT)
def test_all_but_the_token_starts_as_without_it(kind):
    plain = build("glyph_base", 10, glyphs(adapter__kind=kind), seed=0).trained_state()
    ours = build("glyph_base", 10, gisted(adapter__kind=kind), seed=0).trained_state()
    token = ours.pop("norm_pre.gist")
    assert token.shape == (48,)
    assert 0.4 < token.abs().max() <= 0.5
    assert ours.keys() == plain.keys()
    assert all(torch.equal(ours[name], value) for name, value in plain.items())


@pytest.mark.parametrize(("student", "width"), [("vit_base", 768), ("vit_large", 1024)])
def test_it_costs_the_width_of_the_backbone(student, width):
    counts = [
        parameters(RunConfig.for_task("cifar", {"student": student, "teacher": "none", "gist.token": token}))["student"]
        for token in (False, True)
    ]
    assert counts[1]["adapter_params"] - counts[0]["adapter_params"] == width
    assert counts[0]["head_params"] == counts[1]["head_params"]


@pytest.mark.parametrize("kind", OF_VIT)
def test_training_moves_the_token_and_all_that_trains_without_it(kind):
    training = run(gisted(adapter__kind=kind, optim__warmup_epochs=0), noise())
    before = [model.trained_state() for model in (training.student, training.teacher)]
    list(training)
    for model, state in zip((training.student, training.teacher), before, strict=True):
        after = model.trained_state()
        assert "norm_pre.gist" in after
        assert not [name for name in state if torch.equal(after[name], state[name])]


def test_the_token_gets_no_weight_decay():
    training = run(gisted(optim__weight_decay=0.1), noise())
    spared = {id(p) for group in training.engine.optimizer.groups if not group["weight_decay"] for p in group["params"]}
    assert id(training.student.trainable()["norm_pre.gist"]) in spared


@pytest.mark.parametrize("kind", ["convpass", "mona"])
def test_convolutions_take_it_for_no_patch(kind):
    model = build("glyph_base", 10, gisted(adapter__kind=kind), seed=0)
    assert {block.mlp_adapter.prefix for block in adapters.blocks_of(model.backbone)} == {2}


def test_a_pinned_seeded_step_has_the_losses_it_always_had():
    losses = [epoch.train_loss for epoch in run(gisted(optim__warmup_epochs=0), noise(32))]
    assert losses == pytest.approx([6.9303, 6.5823], abs=2e-4), (
        "right to change only with the method or the embedded weights"
    )


# The engine


@pytest.mark.parametrize("drop_path", [0.0, 0.3])
@pytest.mark.parametrize("kind", OF_VIT)
def test_a_split_model_gives_both_logits_and_their_gradients_as_the_plain_one(kind, drop_path):
    model = build("glyph_base", 10, gisted(adapter__kind=kind, model__drop_path=drop_path), seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in model.trainable().values():
            value.add_(torch.randn(value.shape, generator=generator) * 0.05)
    split, found = Cut(model), []
    for way in (model, lambda pixels: split.suffix(split.prefix(pixels))):
        torch.manual_seed(0)
        logits_B2C = way(pixels_of())
        loss = own_loss(logits_B2C, torch.arange(6), 0.0, GistConfig())
        found.append([logits_B2C, *torch.autograd.grad(loss, list(model.trainable().values()))])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", OF_VIT)
@pytest.mark.parametrize("teacher", ["none", "glyph_small"])
def test_a_recorded_run_has_the_losses_of_the_eager_one(kind, teacher):
    config = gisted(adapter__kind=kind, adapter__hidden_dim=6, teacher=teacher, optim__warmup_epochs=0, optim__lr=2e-3)
    rows = torch.arange(96)
    eager, recorded = (run_on(Resident(noise(96), CPU, way), config, rows[:64], rows[64:]) for way in (False, True))
    for ours, theirs in zip(losses_of(recorded), losses_of(eager), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_learns_in_either_precision_with_any_way_to_distil(precision):
    exact = None
    for changes in ({"distill__loss": "feature"}, {"distill__target": "mean", "distill__standardise": True}):
        config = gisted(optim__warmup_epochs=0, optim__lr=1e-3, **changes)
        exact = losses_of(run(config, noise(), noise(20, seed=1)))
        ours = losses_of(run(config.updated({"precision": precision}), noise(), noise(20, seed=1)))
        assert [of for both in ours for of in both] == pytest.approx([of for both in exact for of in both], rel=2e-2)


def test_runs_with_a_token_do_not_stack():
    worker = Resident(noise(96), CPU, recorded=True)
    assert Recorded(glyphs(), worker, 10).stacks_with is not None
    assert Recorded(gisted(), worker, 10).stacks_with is None


def test_a_trial_is_not_changed_by_one_without_a_token_before_it():
    worker, rows = Resident(noise(96), CPU), torch.arange(96)
    first, other = gisted(optim__warmup_epochs=0), glyphs(optim__warmup_epochs=0)
    states = []
    for config in (first, other, first):
        training = run_on(worker, config, rows[:64], rows[64:])
        list(training)
        states.append([value.numpy().tobytes() for value in training.student.trained_state().values()])
    assert states[0] == states[2]
    assert len(states[1]) == len(states[0]) - 1


# Around it


def test_an_export_keeps_the_token_and_gives_the_tested_logits(tmp_path):
    config = gisted(adapter__kind="lora", adapter__scale=1.0, optim__warmup_epochs=0)
    training = run(config, noise())
    list(training)
    export.save(tmp_path / "student", config, training.student.trained_state(), {})
    with torch.no_grad():
        tested = training.student.eval()(pixels_of())
        assert torch.equal(export.load(tmp_path / "student")(pixels_of()), tested)
        merged = export.load(tmp_path / "student", merge=True)(pixels_of())
    torch.testing.assert_close(merged, tested, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"student": "swin_base"}, "gist.token cannot stand in student swin_base, which has no class token"),
        ({"teacher": "swin_small"}, "gist.token cannot stand in teacher swin_small"),
        ({"gist.temperature": 0}, "gist.temperature cannot be 0"),
        ({"gist.tokens": True}, "unknown setting 'gist.tokens'"),
    ],
)
def test_where_it_cannot_stand_is_said_in_one_sentence(changes, sentence):
    with pytest.raises(BadInput, match=sentence) as caught:
        RunConfig.for_task("dtd", {"gist.token": True, **changes})
    assert "\n" not in str(caught.value)


def test_a_vit_without_a_class_token_is_refused():
    config = gisted(student="random:vit_base_patch16_siglip_224", teacher="none")
    with torch.device("meta"), pytest.raises(BadInput, match="gist.token stands behind a class token that") as caught:
        build(config.student, 10, config, seed=None)
    assert "\n" not in str(caught.value)


def test_a_search_compares_it_with_a_probe_that_has_none(tmp_path):
    fixed = {"gist.token": True, "teacher": "glyph_small"}
    plan = plan_search(SearchConfig.of("digits", trials=4, fixed=fixed, out=tmp_path))
    assert all(config.gist.token for config in plan.arms().values())
    assert plan.linear_probes()
    assert not any(probe.gist.token for probe in plan.linear_probes())


def test_a_short_line_tells_of_it():
    assert "sequential h=4 gist lr" in brief(gisted().flat())
    assert "gist" not in brief(glyphs().flat())

"""PACE: noise on what adapters add, and the consistency of two noisy passes, or of one with the last epoch's."""

import pytest
import torch
from conftest import glyphs, noise
from torch.nn import functional as F
from waits import Waits

from idat_tune import adapters, cost
from idat_tune.adapters import Noise, noises_of
from idat_tune.config import PaceConfig, RunConfig
from idat_tune.engine.consistency import Consistency
from idat_tune.engine.cut import Cut
from idat_tune.engine.resident import Resident
from idat_tune.errors import BadInput
from idat_tune.kinds import KINDS
from idat_tune.model import build
from idat_tune.run import run, run_on
from idat_tune.screen import brief
from idat_tune.search import SearchConfig, plan_search

CPU = torch.device("cpu")
ADDING = [name for name, kind in KINDS.items() if kind.adds]


def paced(**changes):
    return glyphs(**{"pace__weight": 1.0, **changes})


def pixels_of(count=6):
    return torch.as_tensor(noise(count).pixels)


def moved(**changes):
    """A student whose trainable values are far from their initial ones."""
    model = build("glyph_base", 10, paced(**changes), seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in model.trainable().values():
            value.add_(torch.randn(value.shape, generator=generator) * 0.05)
    return model


# The noise


def test_noise_has_mean_one_and_its_deviation_per_image_and_channel_and_is_shared_by_tokens():
    layer = torch.nn.Identity().train()
    layer.register_forward_hook(Noise(0.7))
    out = layer(torch.ones(4000, 5, 8))
    assert all(torch.equal(out[:, 0], out[:, token]) for token in range(5))
    factors = out[:, 0]
    assert factors.mean().item() == pytest.approx(1, abs=0.02)
    assert factors.std().item() == pytest.approx(0.7, abs=0.02)
    assert torch.corrcoef(factors.T).fill_diagonal_(0).abs().max() < 0.1
    assert torch.equal(layer.eval()(torch.ones(3, 5, 8)), torch.ones(3, 5, 8))


def test_sigma_falls_with_depth_as_published():
    """Block 0 none, block 1 sigma, then linearly to 2 sigma / 12 in block 11, and sigma / 12 on the logits."""
    config = RunConfig.for_task("cifar", {"teacher": "none", "pace.weight": 1.0, "pace.sigma": 1.2})
    sigmas = [noise.sigma for noise in noises_of(cost.shapes("vit_base", 10, config).backbone)]
    assert sigmas == pytest.approx([*(1.2 - 0.1 * step for step in range(11)), 0.1])
    assert sigmas[0] == pytest.approx(1.2)
    assert sigmas[10] == pytest.approx(2 * 1.2 / 12)


@pytest.mark.parametrize("kind", ADDING)
def test_noise_is_on_what_a_kind_adds_and_on_nothing_else(kind):
    """With a factor of nothing at all (sigma 0, mean 0) a block is the frozen one, as if the adapter were not there."""
    model, plain = (
        of.eval() for of in (moved(adapter__kind=kind), build("glyph_base", 10, glyphs(adapter__kind="linear"), 0))
    )
    for hook in noises_of(model.backbone):
        hook._drawn = lambda like: torch.zeros_like(like)
    x_BTD = torch.randn(3, 17, 48, generator=torch.Generator().manual_seed(0))
    ours, theirs = (adapters.blocks_of(of.backbone) for of in (model, plain))
    with torch.no_grad():
        for block, frozen in list(zip(ours, theirs, strict=True))[1:]:
            torch.testing.assert_close(block.train()(x_BTD), frozen(x_BTD), rtol=1e-4, atol=1e-5)
        if kind != "linear":
            assert not torch.allclose(ours[0].train()(x_BTD), theirs[0](x_BTD), atol=1e-3)


@pytest.mark.parametrize("kind", ADDING)
def test_in_eval_mode_nothing_is_noisy_and_states_have_the_same_names(kind):
    noisy, plain = (build("glyph_base", 10, of(adapter__kind=kind), seed=0).eval() for of in (paced, glyphs))
    with torch.no_grad():
        assert torch.equal(noisy(pixels_of()), plain(pixels_of()))
    assert noisy.trainable().keys() == plain.trainable().keys()
    with torch.no_grad():
        noisy.train()
        assert not torch.equal(noisy(pixels_of()), noisy(pixels_of()))


@pytest.mark.parametrize("kind", ADDING)
def test_a_split_model_has_the_noisy_loss_and_gradients_of_the_plain_one(kind):
    model = moved(adapter__kind=kind, model__drop_path=0.3)
    split, found = Cut(model), []
    for way in (model, lambda pixels: split.suffix(split.prefix(pixels))):
        torch.manual_seed(0)
        loss = F.cross_entropy(way(pixels_of()), torch.arange(6))
        found.append([loss, *torch.autograd.grad(loss, list(model.trainable().values()), allow_unused=True)])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


# The consistency


def test_the_consistency_is_the_published_one():
    ours, theirs = torch.randn(2, 6, 7, generator=torch.Generator().manual_seed(0))
    found = Consistency(PaceConfig(weight=1), 6, CPU)([ours], torch.arange(6), lambda: [theirs])
    wanted = sum(((ours[image] - theirs[image]) ** 2).sum().item() for image in range(6)) / 6
    assert found[0].item() == pytest.approx(wanted, rel=1e-6)


def test_lazy_has_a_second_pass_in_one_step_of_so_many():
    calls, keep = [], Consistency(PaceConfig(weight=1, mode="lazy", every=3), 6, CPU)
    logits = torch.ones(6, 7)
    found = [keep([logits], torch.arange(6), lambda: calls.append(1) or [logits + 1]) for _ in range(7)]
    assert [len(of) for of in found] == [1, 0, 0, 1, 0, 0, 1]
    assert len(calls) == 3


def test_fast_compares_with_the_logits_of_the_last_time_as_constants_and_has_no_second_pass():
    keep = Consistency(PaceConfig(weight=1, mode="fast"), 5, CPU)
    first = torch.ones(2, 3, requires_grad=True)
    (found,) = keep([first], torch.tensor([0, 3]), pytest.fail)
    assert found.item() == 0
    second = torch.full((2, 3), 3.0, requires_grad=True)
    (found,) = keep([second], torch.tensor([3, 4]), pytest.fail)  # image 4 is new
    assert found.item() == pytest.approx(3 * (3 - 1) ** 2 / 2)
    found.backward()
    assert first.grad is None
    assert second.grad.tolist() == [[2.0] * 3, [0.0] * 3]
    (found,) = keep([second], torch.tensor([3, 4]), pytest.fail)
    assert found.item() == 0


@pytest.mark.parametrize("teacher", ["none", "glyph_small"])
def test_a_step_is_cross_entropy_plus_the_consistency_of_two_passes_which_share_their_drop_path(teacher):
    """Without noise both passes are one, so that all that is random is what they share."""
    config = paced(teacher=teacher, pace__sigma=1e-9, model__drop_path=0.5, pace__weight=1e6, optim__warmup_epochs=0)
    plain = glyphs(teacher=teacher, model__drop_path=0.5, optim__warmup_epochs=0)
    ours, theirs = ([epoch.train_loss for epoch in run(of, noise())] for of in (config, plain))
    assert ours[0] == pytest.approx(theirs[0], rel=1e-4)


@pytest.mark.parametrize("mode", ["each", "fast", "lazy"])
def test_the_consistency_counts_with_its_weight(mode):
    losses = {}
    for weight in (1e-9, 1.0, 2.0):
        config = paced(pace__weight=weight, pace__mode=mode, teacher="none", optim__lr=1e-9, optim__warmup_epochs=0)
        losses[weight] = [epoch.train_loss for epoch in run(config, noise())]
    none, one, two = (losses[weight][1] for weight in losses)
    assert one > none + 0.01
    assert two - none == pytest.approx(2 * (one - none), rel=1e-3)
    assert (losses[1.0][0] == pytest.approx(losses[1e-9][0], rel=1e-6)) is (
        mode == "fast"
    )  # nothing to compare with yet


# Runs


@pytest.mark.parametrize("kind", ADDING)
@pytest.mark.parametrize("mode", ["each", "fast", "lazy"])
def test_training_moves_all_that_trains_and_repeats_itself_whatever_ran_between(kind, mode):
    worker, rows = Resident(noise(96), CPU, recorded=True), torch.arange(96)
    first = paced(adapter__kind=kind, pace__mode=mode, model__drop_path=0.2, optim__warmup_epochs=0)
    states = []
    for config in (first, glyphs(seed=5), first):
        training = run_on(worker, config, rows[:64], rows[64:])
        before = training.student.trained_state()
        list(training)
        after = training.student.trained_state()
        assert not [name for name in before if torch.equal(before[name], after[name])]
        states.append([value.numpy().tobytes() for value in after.values()])
    assert states[0] == states[2]


def test_it_is_not_recorded_and_does_not_stack():
    worker = Resident(noise(96), CPU, recorded=True)
    training = run_on(worker, paced(), torch.arange(64), torch.arange(64, 96))
    assert not worker.records(paced())
    assert training.stacks_with is None


@pytest.mark.parametrize("changes", [{"gist__token": True}, {"adapter__kind": "mosa"}, {"precision": "bf16"}])
def test_it_goes_with_a_gist_token_with_mosa_and_with_bf16(changes):
    epochs = list(run(paced(optim__warmup_epochs=0, **changes), noise(), noise(20, seed=1)))
    assert all(0 < epoch.train_loss < 1e3 for epoch in epochs)
    weighted = epochs[0].train_ce_student + epochs[0].train_ce_teacher + epochs[0].train_distill
    assert epochs[0].train_loss == pytest.approx(weighted, rel=1e-3)


def test_a_pinned_seeded_step_has_the_losses_it_always_had():
    losses = [epoch.train_loss for epoch in run(paced(optim__warmup_epochs=0), noise(32))]
    assert losses == pytest.approx([5.1346, 5.9320], abs=2e-4), (
        "right to change only with the method or the embedded weights"
    )


# What it costs, and where it does not fit


@pytest.mark.parametrize(
    ("changes", "passes"),
    [({}, 2), ({"pace.mode": "fast"}, 1), ({"pace.mode": "lazy", "pace.every": 4}, 1.25), ({"pace.weight": 0.0}, 1)],
)
def test_describe_counts_the_second_passes(changes, passes):
    config = RunConfig.for_task("digits", {"teacher": "glyph_small", "pace.weight": 1.0})
    plain = cost.describe(config.updated({"pace.weight": 0.0}))
    ours = cost.describe(config.updated(changes))
    for way in ("forward", "backward"):
        assert ours["gflop_per_image"][way] == pytest.approx(passes * plain["gflop_per_image"][way], rel=1e-6)
    assert ours["trainable_params"] == plain["trainable_params"]
    assert (ours["memory_gb"] > 1.3 * plain["memory_gb"]) is (passes > 1)


def test_where_what_is_added_must_be_told_apart_the_frozen_operation_is_computed_again_and_counted():
    config = RunConfig.for_task(
        "cifar", {"teacher": "none", "adapter.kind": "ssf", "pace.weight": 1.0, "pace.mode": "fast"}
    )
    ours, plain = (cost.describe(of)["gflop_per_image"] for of in (config, config.updated({"pace.weight": 0.0})))
    assert 1.5 * plain["forward"] < ours["forward"] < 2 * plain["forward"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"adapter.kind": "bitfit"}, "adapter.kind bitfit does not; take one of sequential, .*mosa, or leave it away"),
        ({"adapter.kind": "vpt_deep"}, "adapter.kind vpt_deep does not"),
        ({"student": "swin_base", "teacher": "none"}, "pace.weight is for ViTs, and student swin_base is none"),
        ({"distill.loss": "feature"}, "pace.weight and distill.loss feature cannot go together"),
        ({"pace.mode": "slow"}, "pace.mode"),
        ({"pace.every": 0}, "pace.every cannot be 0"),
    ],
)
def test_where_it_does_not_fit_is_said_in_one_sentence(changes, sentence):
    with pytest.raises(BadInput, match=sentence) as caught:
        RunConfig.for_task("dtd", {"pace.weight": 1.0, **changes})
    assert "\n" not in str(caught.value)


def test_a_search_compares_it_with_a_probe_that_has_none(tmp_path):
    fixed = {"pace.weight": 1.0, "teacher": "glyph_small"}
    plan = plan_search(SearchConfig.of("digits", trials=4, fixed=fixed, out=tmp_path))
    assert all(config.pace.weight for config in plan.arms().values())
    assert not any(probe.pace.weight for probe in plan.linear_probes())


@pytest.mark.parametrize("mode", ["each", "fast", "lazy"])
def test_no_step_waits_for_the_device(mode):
    training = run_on(
        Resident(noise(96), CPU), paced(pace__mode=mode, epochs=4), torch.arange(64), torch.arange(64, 96)
    )
    with Waits() as waits:
        training.engine.train(torch.arange(64).view(2, 32), 1e-3, 1.0, 0.5)
    assert waits.found == []


def test_a_short_line_tells_of_it():
    assert "sequential h=4 pace=1 lr" in brief(paced().flat())
    assert "pace" not in brief(glyphs().flat())

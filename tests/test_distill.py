"""Each loss equals its formula in NumPy, stays finite, and reaches the teacher or, detached, does not."""

import numpy as np
import pytest
import torch
from conftest import glyphs, noise

from idat_tune import space
from idat_tune.config import DistillConfig, RunConfig
from idat_tune.distill import LOSSES, Bridge, distillation, spaced, standardised
from idat_tune.engine.eager import joint, lambdas
from idat_tune.errors import BadInput
from idat_tune.run import evaluate, run, to_device
from idat_tune.search.confirm import _but_distill

ORDINARY = (np.random.default_rng(0).normal(size=(6, 7)), np.random.default_rng(1).normal(size=(6, 7)) * 3)
# Logits that are certain and disagree: a softmax in fp32 underflows to 0 there, and its logarithm is -inf.
EXTREME = (np.array([[3000.0, 0, -3000], [1e4, 1e4, 0]]), np.array([[-3000.0, 0, 3000], [0, 1e4, 1e4]]))
HUGE = (np.array([[1e30, 1.0], [0.0, 1e-30]]), np.array([[1e30, 2.0], [1e-30, 0.0]]))
LOGITS = {"ordinary": ORDINARY, "extreme": EXTREME}


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def kl(p, q, temperature):
    p, q = log_softmax(p / temperature), log_softmax(q / temperature)
    return (np.exp(p) * (p - q)).sum(-1).mean()


def over(x, length):
    """Nothing stays nothing."""
    return np.divide(x, length, out=np.zeros_like(x), where=length > 0)


def cos(s, t):
    return 1 - np.mean(over((s * t).sum(-1), np.sqrt((s * s).sum(-1) * (t * t).sum(-1))))


def z(y):
    """Logit standardisation, with the standard deviation of a sample."""
    centred = y - y.mean(-1, keepdims=True)
    return over(centred, np.sqrt((centred**2).sum(-1, keepdims=True) / (y.shape[-1] - 1)))


def both(loss):
    """KDCL: student and teacher each against the mean of the two."""
    return lambda s, t: loss(s, (s + t) / 2) + loss(t, (s + t) / 2)


EXPECTED = {
    "kl": (DistillConfig(), lambda s, t: kl(t, s, 5)),
    "kl at 1": (DistillConfig(temperature=1), lambda s, t: kl(t, s, 1)),
    "kl times T squared": (DistillConfig(temperature=3, square_temperature=True), lambda s, t: 9 * kl(t, s, 3)),
    "kl the other way": (DistillConfig(direction="student_teacher"), lambda s, t: kl(s, t, 5)),
    "mse": (DistillConfig(loss="mse"), lambda s, t: ((s - t) ** 2).mean()),
    "mae": (DistillConfig(loss="mae"), lambda s, t: np.abs(s - t).mean()),
    "cos": (DistillConfig(loss="cos"), cos),
    "standardised kl": (DistillConfig(standardise=True, temperature=2), lambda s, t: 4 * kl(z(t), z(s), 2)),
    "standardised kl the other way": (
        DistillConfig(standardise=True, square_temperature=True, direction="student_teacher"),
        lambda s, t: 25 * kl(z(s), z(t), 5),
    ),
    "standardised mse": (DistillConfig(standardise=True, loss="mse"), lambda s, t: ((z(s) - z(t)) ** 2).mean()),
    "standardised mae": (DistillConfig(standardise=True, loss="mae"), lambda s, t: np.abs(z(s) - z(t)).mean()),
    "standardised cos": (DistillConfig(standardise=True, loss="cos"), lambda s, t: cos(z(s), z(t))),
    "kl to the mean": (DistillConfig(target="mean"), both(lambda y, m: kl(m, y, 5))),
    "kl from the mean": (DistillConfig(target="mean", direction="student_teacher"), both(lambda y, m: kl(y, m, 5))),
    "mse to the mean": (DistillConfig(target="mean", loss="mse"), both(lambda y, m: ((y - m) ** 2).mean())),
    "mae to the mean": (DistillConfig(target="mean", loss="mae"), both(lambda y, m: np.abs(y - m).mean())),
    "cos to the mean": (DistillConfig(target="mean", loss="cos"), both(cos)),
    "standardised kl to the mean": (
        DistillConfig(target="mean", standardise=True, temperature=3),
        both(lambda y, m: 9 * kl(z(m), z(y), 3)),
    ),
}


@pytest.mark.parametrize("logits", LOGITS)
@pytest.mark.parametrize("name", EXPECTED)
def test_a_loss_is_its_formula(name, logits):
    config, formula = EXPECTED[name]
    student, teacher = LOGITS[logits]
    found = distillation(torch.tensor(student), torch.tensor(teacher), config)
    assert found.item() == pytest.approx(formula(student, teacher), rel=1e-5)


# All but raw mse: a square of 1e30 is larger than fp32 can hold.
@pytest.mark.parametrize("name", [name for name, (c, _) in EXPECTED.items() if c.loss != "mse" or c.standardise])
@pytest.mark.parametrize("logits", [EXTREME, HUGE])
def test_a_loss_and_its_gradients_are_finite_for_any_logits(name, logits):
    config, _ = EXPECTED[name]
    student, teacher = (torch.tensor(side, dtype=torch.float32, requires_grad=True) for side in logits)
    loss = distillation(student, teacher, config)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()
    assert torch.isfinite(teacher.grad).all()


def test_the_two_directions_differ_and_agree_only_on_equal_logits():
    student, teacher = (torch.tensor(side) for side in ORDINARY)
    there = distillation(student, teacher, DistillConfig())
    back = distillation(student, teacher, DistillConfig(direction="student_teacher"))
    assert there.item() != pytest.approx(back.item(), rel=1e-3)
    assert back.item() == pytest.approx(distillation(teacher, student, DistillConfig()).item())
    assert distillation(student, student, DistillConfig()).item() == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("detached", [False, True])
@pytest.mark.parametrize("target", ["teacher", "mean"])
@pytest.mark.parametrize("standardise", [False, True])
def test_gradients_reach_the_teacher_unless_detached(loss, detached, target, standardise):
    student, teacher = (torch.tensor(side, requires_grad=True) for side in ORDINARY)
    config = DistillConfig(loss=loss, detach_teacher=detached, target=target, standardise=standardise)
    distillation(student, teacher, config).backward()
    assert student.grad.abs().sum() > 0
    assert (teacher.grad is None) == detached


def test_mse_pulls_both_equally_and_oppositely():
    student, teacher = (torch.tensor(side, requires_grad=True) for side in ORDINARY)
    distillation(student, teacher, DistillConfig(loss="mse")).backward()
    torch.testing.assert_close(student.grad, -teacher.grad)


def softmax(x):
    return np.exp(log_softmax(x))


@pytest.mark.parametrize("detached", [False, True])
def test_the_mean_is_a_constant_that_each_learns_from(detached):
    student, teacher = (torch.tensor(side, requires_grad=True) for side in ORDINARY)
    loss = distillation(student, teacher, DistillConfig(target="mean", temperature=2, detach_teacher=detached))
    loss.backward()
    s, t = ORDINARY
    mean = (s + t) / 2
    assert loss.item() == pytest.approx(kl(mean, s, 2) + (0 if detached else kl(mean, t, 2)), rel=1e-5)
    learners = [(student, s)] if detached else [(student, s), (teacher, t)]
    for learner, y in learners:
        wanted = (softmax(y / 2) - softmax(mean / 2)) / 2 / len(y)
        np.testing.assert_allclose(learner.grad.numpy(), wanted, rtol=1e-4, atol=1e-7)


def test_what_is_standardised_keeps_neither_length_nor_offset():
    student, teacher = (torch.tensor(side) for side in ORDINARY)
    config = DistillConfig(standardise=True)
    there = distillation(student, teacher, config)
    torch.testing.assert_close(distillation(7 * student - 3, teacher / 9 + 2, config), there)
    found = standardised(student)
    torch.testing.assert_close(found.std(dim=-1), torch.ones(6, dtype=torch.float64))


@pytest.mark.parametrize("value", [0.0, 0.1, -3e4])
def test_logits_that_are_all_alike_are_standardised_to_zero_without_a_gradient(value):
    student = torch.full((2, 10), value)
    student[1] = torch.arange(10.0)
    student.requires_grad_()
    teacher = torch.tensor(ORDINARY[0][:2, :5].repeat(2, axis=-1), dtype=torch.float32)
    loss = distillation(student, teacher, DistillConfig(standardise=True))
    loss.backward()
    assert standardised(student)[0].tolist() == pytest.approx([0] * 10, abs=1e-6)
    assert loss.isfinite()
    assert student.grad[0].abs().max() == 0
    assert student.grad[1].abs().min() > 0


# Labels


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_label_smoothing_is_its_formula_and_of_the_student_alone(smoothing):
    s, t = ORDINARY
    labels = np.array([0, 3, 6, 2, 2, 5])

    def ce(y, share):
        smooth = (1 - share) * np.eye(y.shape[1])[labels] + share / y.shape[1]
        return -(smooth * log_softmax(y)).sum(-1).mean()

    config = glyphs(optim__label_smoothing=smoothing)
    found = joint([torch.tensor(s), torch.tensor(t)], torch.tensor(labels), config, None, torch.tensor(1.0))
    wanted = ce(s, smoothing), ce(t, 0)
    assert found.tolist() == pytest.approx([sum(wanted), *wanted, 0], rel=1e-6)


def test_label_smoothing_works_without_a_teacher_and_is_not_measured_by_validation():
    config = glyphs(teacher="none", optim__label_smoothing=0.3, optim__warmup_epochs=0)
    training = run(config, noise(), noise(20))
    *_, last = training
    *_, plain = run(config.updated({"optim.label_smoothing": 0.0}), noise(), noise(20))
    _, loss = evaluate(training.student, [to_device(noise(20), training.device)], config)
    assert last.val_loss == pytest.approx(loss, rel=1e-5)
    assert last.val_loss != plain.val_loss
    assert last.train_loss == last.train_ce_student


def test_a_twin_without_a_teacher_has_the_same_labels():
    config = glyphs(optim__label_smoothing=0.1, distill__standardise=True, distill__ramp_epochs=1)
    assert _but_distill(config.without_teacher()) == _but_distill(config) | {"teacher": "none"}
    assert _but_distill(config.without_teacher()) != _but_distill(glyphs(teacher="none"))


def test_kl_is_about_twice_t_squared_smaller_than_mse():
    random = np.random.default_rng(0)
    student, teacher = (torch.tensor(random.normal(size=(500, 100))) for _ in range(2))
    ratio = distillation(student, teacher, DistillConfig(loss="mse")) / distillation(student, teacher, DistillConfig())
    assert 40 < ratio < 60


def test_a_teacher_with_other_classes_is_refused():
    with pytest.raises(BadInput, match="the teacher has 9 classes and the student 10; distillation needs two heads"):
        distillation(torch.zeros(2, 10), torch.zeros(2, 9), DistillConfig())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"distill.temperature": 0}, "distill.temperature cannot be 0"),
        ({"distill.temperature": -1}, "distill.temperature cannot be -1"),
        ({"distill.weight": -0.1}, "distill.weight cannot be -0.1"),
        ({"distill.stop_epoch": -1}, "distill.stop_epoch cannot be -1"),
        ({"distill.direction": "both"}, "unknown distill.direction 'both'"),
        ({"distill.loss": "feature", "teacher": "none"}, "distill.loss feature needs a teacher, and teacher is none"),
        ({"distill.target": "pair"}, "unknown distill.target 'pair'; .*known: teacher, mean"),
        ({"distill.standardise": 2}, "distill.standardise cannot be 2"),
        ({"distill.ramp_epochs": -1}, "distill.ramp_epochs cannot be -1"),
        ({"optim.label_smoothing": 1}, "optim.label_smoothing cannot be 1: should be less than 1"),
        ({"optim.label_smoothing": -0.1}, "optim.label_smoothing cannot be -0.1"),
        (
            {"distill.ramp_epochs": 6, "epochs": 5},
            "distill.ramp_epochs 6 goes beyond 5 epochs, so that lambda would never reach distill.weight; lower it",
        ),
        (
            {"distill.loss": "feature", "distill.standardise": True},
            "distill.standardise is about logits, which distill.loss feature does not compare; take one of kl, mse,",
        ),
        ({"distill.loss": "feature", "distill.target": "mean"}, "distill.target mean is about logits, which distill"),
        (
            {"task": "patch_camelyon", "distill.standardise": True},
            "distill.standardise needs 3 classes or more, and patch_camelyon has 2: of two logits it leaves only which",
        ),
    ],
)
def test_bad_settings_are_said_in_one_sentence(changes, sentence):
    with pytest.raises(BadInput, match=sentence) as caught:
        RunConfig.for_task(changes.get("task", "digits"), changes)
    assert "\n" not in str(caught.value)


def test_without_teacher_is_always_a_config():
    config = RunConfig.for_task("digits", {"distill.loss": "feature"})
    assert config.without_teacher().alone


def test_without_a_teacher_no_setting_of_distillation_changes_a_run():
    changes = {"distill.standardise": True, "distill.target": "mean", "distill.ramp_epochs": 2, "distill.weight": 7.0}
    alone = glyphs(teacher="none", optim__warmup_epochs=0)
    plain, changed = (list(run(config, noise())) for config in (alone, alone.updated(changes)))
    assert [epoch.train_loss for epoch in plain] == [epoch.train_loss for epoch in changed]
    assert RunConfig.for_task("patch_camelyon", {"teacher": "none", "distill.standardise": True}).alone


def test_a_space_may_search_every_setting_of_distillation():
    beside = {"unless": {"teacher": "none"}}
    params = {
        "teacher": {"choice": ["none", "glyph_small"]},
        "distill.standardise": {"choice": [False, True], **beside},
        "distill.target": {"choice": ["teacher", "mean"], **beside},
        "distill.ramp_epochs": {"int_uniform": [0, 5], **beside},
        "optim.label_smoothing": {"uniform": [0, 0.2]},
    }
    loaded = space.parse({"params": params})
    assert set(loaded.propose(lambda label, domain: getattr(domain, "values", (0,))[0])) == {
        "teacher",
        "optim.label_smoothing",
    }


# Feature distillation


def test_pairs_of_blocks_are_equally_spaced():
    assert spaced(12, 12) == tuple(range(12))
    assert spaced(24, 12) == tuple(range(1, 24, 2))
    bridge = Bridge([8] * 12, [4] * 18)  # six pairs: every second block with every third
    assert bridge.student_blocks == (1, 3, 5, 7, 9, 11)
    assert bridge.teacher_blocks == (2, 5, 8, 11, 14, 17)
    assert [tuple(layer.weight.shape) for layer in bridge.maps] == [(8, 4)] * 6


def test_the_feature_loss_is_its_formula():
    random = np.random.default_rng(0)
    bridge = Bridge([5, 6], [3, 4], torch.Generator().manual_seed(0))
    student, teacher = ([random.normal(size=(2, 7, width)) for width in widths] for widths in ((5, 6), (3, 4)))
    maps = [(layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()) for layer in bridge.maps]
    wanted = np.mean([((s - t @ w.T - b) ** 2).mean() for s, t, (w, b) in zip(student, teacher, maps, strict=True)])
    found = bridge.double()([torch.tensor(s) for s in student], [torch.tensor(t) for t in teacher], False)
    assert found.item() == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("detached", [False, True])
def test_feature_gradients_reach_the_bridge_and_the_teacher_unless_detached(detached):
    bridge = Bridge([5], [3])
    student, teacher = torch.randn(2, 7, 5, requires_grad=True), torch.randn(2, 7, 3, requires_grad=True)
    bridge([student], [teacher], detached).backward()
    assert student.grad.abs().sum() > 0
    assert bridge.maps[0].weight.grad.abs().sum() > 0
    assert (teacher.grad is None) == detached


def test_features_of_other_tokens_are_refused():
    with pytest.raises(BadInput, match="the student has 17 where the teacher has 4x4; take a teacher with the same"):
        Bridge([5], [3])([torch.zeros(2, 17, 5)], [torch.zeros(2, 4, 4, 3)], False)


def test_the_bridge_learns_along_and_is_left_behind():
    training = run(glyphs(distill__loss="feature", optim__warmup_epochs=0), noise())
    before = {name: value.clone() for name, value in training.engine.bridge.state_dict().items()}
    epochs = list(training)
    assert all(epoch.train_distill > 0 for epoch in epochs)
    assert all(not torch.equal(before[name], value) for name, value in training.engine.bridge.state_dict().items())
    assert not any("maps" in name for name in training.student.trained_state())


def test_with_features_gives_the_logits_of_forward_and_what_blocks_gave():
    student = run(glyphs(), noise()).student.eval()
    pixels = torch.randint(0, 256, (3, 1, 32, 32))
    logits, (first, last) = student.with_features(pixels, (0, 2))
    assert torch.equal(logits, student(pixels))
    assert first.shape == last.shape == (3, 17, 48)
    head = student.backbone.head(student.backbone.norm(last)[:, 0])
    torch.testing.assert_close(head, logits)


# When it runs


def test_distillation_stops_at_its_epoch():
    epochs = list(run(glyphs(epochs=4, distill__stop_epoch=2), noise()))
    assert [epoch.train_distill is None for epoch in epochs] == [False, False, True, True]
    assert [glyphs(distill__stop_epoch=stop).distill_weight(2) for stop in (0, 2, 3)] == [1, 0, 1]


@pytest.mark.parametrize("ramp", [0, 1, 3, 5])
def test_lambda_rises_step_by_step_over_the_epochs_of_the_ramp(ramp):
    steps, config = 4, glyphs(epochs=5, distill__weight=6.0, distill__ramp_epochs=ramp)
    found = [
        lambdas(config.distill_weight(epoch), config.distill_rise(epoch), steps, torch.device("cpu"))
        for epoch in range(5)
    ]
    done = np.arange(20) / max(ramp * steps, 1e-9)
    wanted = 6 * np.minimum(1, done) if ramp else np.full(20, 6.0)
    np.testing.assert_allclose(torch.cat(found).numpy(), wanted, rtol=1e-6)


def test_distillation_stops_in_the_middle_of_a_ramp():
    config = glyphs(epochs=5, distill__ramp_epochs=4, distill__stop_epoch=2)
    of_epochs = [(config.distill_weight(epoch), config.distill_rise(epoch)) for epoch in range(3)]
    assert of_epochs == [(0, 0.25), (0.25, 0.25), (0, 0)]
    epochs = list(run(config, noise()))
    assert [epoch.train_distill is None for epoch in epochs] == [False, False, True, True, True]


@pytest.mark.parametrize("loss", ["kl", "feature"])
def test_weight_zero_computes_no_distillation(loss, monkeypatch):
    training = run(glyphs(distill__weight=0.0, distill__loss=loss), noise())
    monkeypatch.setattr(training.engine, "_distilled", None)
    assert all(epoch.train_distill is None for epoch in training)

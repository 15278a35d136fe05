"""Each loss equals its formula in NumPy, stays finite, and reaches the teacher or, detached, does not."""

import numpy as np
import pytest
import torch
from conftest import glyphs, noise

from idat_tune.config import DistillConfig, RunConfig
from idat_tune.distill import LOSSES, Bridge, distillation, spaced
from idat_tune.errors import BadInput
from idat_tune.run import run

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


def cos(s, t):
    return 1 - np.mean((s * t).sum(-1) / np.sqrt((s * s).sum(-1) * (t * t).sum(-1)))


EXPECTED = {
    "kl": (DistillConfig(), lambda s, t: kl(t, s, 5)),
    "kl at 1": (DistillConfig(temperature=1), lambda s, t: kl(t, s, 1)),
    "kl times T squared": (DistillConfig(temperature=3, square_temperature=True), lambda s, t: 9 * kl(t, s, 3)),
    "kl the other way": (DistillConfig(direction="student_teacher"), lambda s, t: kl(s, t, 5)),
    "mse": (DistillConfig(loss="mse"), lambda s, t: ((s - t) ** 2).mean()),
    "mae": (DistillConfig(loss="mae"), lambda s, t: np.abs(s - t).mean()),
    "cos": (DistillConfig(loss="cos"), cos),
}


@pytest.mark.parametrize("logits", LOGITS)
@pytest.mark.parametrize("name", EXPECTED)
def test_a_loss_is_its_formula(name, logits):
    config, formula = EXPECTED[name]
    student, teacher = LOGITS[logits]
    found = distillation(torch.tensor(student), torch.tensor(teacher), config)
    assert found.item() == pytest.approx(formula(student, teacher), rel=1e-5)


# All but mse: a square of 1e30 is larger than fp32 can hold.
@pytest.mark.parametrize("name", [name for name in EXPECTED if name != "mse"])
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
def test_gradients_reach_the_teacher_unless_detached(loss, detached):
    student, teacher = (torch.tensor(side, requires_grad=True) for side in ORDINARY)
    distillation(student, teacher, DistillConfig(loss=loss, detach_teacher=detached)).backward()
    assert student.grad.abs().sum() > 0
    assert (teacher.grad is None) == detached


def test_mse_pulls_both_equally_and_oppositely():
    student, teacher = (torch.tensor(side, requires_grad=True) for side in ORDINARY)
    distillation(student, teacher, DistillConfig(loss="mse")).backward()
    torch.testing.assert_close(student.grad, -teacher.grad)


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
    ],
)
def test_bad_settings_are_said_in_one_sentence(changes, sentence):
    with pytest.raises(BadInput, match=sentence) as caught:
        RunConfig.for_task("digits", changes)
    assert "\n" not in str(caught.value)


def test_without_teacher_is_always_a_config():
    config = RunConfig.for_task("digits", {"distill.loss": "feature"})
    assert config.without_teacher().alone


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


@pytest.mark.parametrize("loss", ["kl", "feature"])
def test_weight_zero_computes_no_distillation(loss, monkeypatch):
    training = run(glyphs(distill__weight=0.0, distill__loss=loss), noise())
    monkeypatch.setattr(training.engine, "_distilled", None)
    assert all(epoch.train_distill is None for epoch in training)

"""Several runs as one: each has the losses, the values and the failures that it has by itself."""

import pytest
import torch
from conftest import glyphs, noise
from waits import Waits

from idat_tune.engine.recorded import Recorded
from idat_tune.engine.recording import Epoch
from idat_tune.engine.resident import Resident
from idat_tune.kinds import KINDS
from idat_tune.model import build_pair
from idat_tune.run import advance, run_on

CPU = torch.device("cpu")
STACKABLE = [name for name, kind in KINDS.items() if kind.stacks]
SETTINGS = [
    {"adapter.hidden_dim": 5, "adapter.scale": 0.3, "optim.lr": 1e-3, "distill.temperature": 2.0, "seed": 0},
    {"adapter.hidden_dim": 8, "adapter.scale": 2.0, "optim.lr": 2e-2, "distill.weight": 9.0, "seed": 1},
    {"adapter.hidden_dim": 6, "adapter.init": "zero_up", "optim.weight_decay": 0.3, "seed": 2},
]


def three(**changes):
    config = glyphs(optim__warmup_epochs=0, model__drop_path=0.2, **changes)
    return [config.updated(settings) for settings in SETTINGS]


def epochs_of(configs, seed):
    order = torch.Generator().manual_seed(seed)
    rows = [torch.randperm(64, generator=order).view(2, 32) for _ in configs]
    lambdas = [(config.distill_weight(seed), config.distill_rise(seed)) for config in configs]
    return [Epoch(of_one, c.optim.lr, *of) for of_one, c, of in zip(rows, configs, lambdas, strict=True)]


def one_by_one(worker, configs):
    """Losses and tallies of two epochs, and the trained students, of each config by itself."""
    trials = [Recorded(config, worker, 10) for config in configs]
    found = []
    for seed in range(2):
        epochs = epochs_of(configs, seed)
        losses = [t.train(*e) for t, e in zip(trials, epochs, strict=True)]
        tallies = [trial.validate(torch.arange(64, 96)) for trial in trials]
        found.append((torch.stack(losses), torch.stack(tallies)))
    return found, [trial.student for trial in trials]


def as_one(worker, configs):
    """The same, stacked."""
    trials = [Recorded(config, worker, 10) for config in configs]
    found = []
    for seed in range(2):
        losses = Recorded.train_together(trials, epochs_of(configs, seed))
        found.append((losses, Recorded.validate_together(trials, [torch.arange(64, 96)] * len(trials))))
    return found, [trial.student for trial in trials]


def assert_equal(ours, theirs, miscounted=0, moved=1e-3, **tolerance):
    """`miscounted` right answers may come out otherwise, as the two best logits of an image may be all but equal.

    Weights may differ by a share of `moved`: AdamW takes a gradient that is all but zero for a direction.
    """
    for (our, our_tally), (their, their_tally) in zip(ours[0], theirs[0], strict=True):
        torch.testing.assert_close(our, their, **tolerance)
        torch.testing.assert_close(our_tally[..., 0], their_tally[..., 0], rtol=0, atol=miscounted)
        torch.testing.assert_close(our_tally[..., 1], their_tally[..., 1], **tolerance)
    loose = max(moved, tolerance["rtol"])
    for our, their in zip(ours[1], theirs[1], strict=True):
        torch.testing.assert_close(our.trained_state(), their.trained_state(), rtol=loose, atol=loose / 100)


@pytest.mark.parametrize("kind", STACKABLE)
@pytest.mark.parametrize("teacher", ["none", "glyph_small"])
def test_stacked_runs_have_the_losses_of_single_ones(kind, teacher):
    worker = Resident(noise(96), CPU, recorded=True)
    configs = three(adapter__kind=kind, teacher=teacher)
    assert_equal(as_one(worker, configs), one_by_one(worker, configs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("targets", ["qkv", "all"])
def test_lora_stacks_whatever_it_updates(targets):
    worker = Resident(noise(96), CPU, recorded=True)
    configs = three(adapter__kind="lora", adapter__targets=targets)
    assert_equal(as_one(worker, configs), one_by_one(worker, configs), moved=0.1, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("loss", ["kl", "mse", "mae", "cos"])
def test_every_loss_on_logits_stacks(loss):
    worker = Resident(noise(96), CPU, recorded=True)
    configs = three(distill__loss=loss)
    assert_equal(as_one(worker, configs), one_by_one(worker, configs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"distill__standardise": True},
        {"distill__target": "mean"},
        {"distill__target": "mean", "distill__detach_teacher": True, "distill__standardise": True},
        {"optim__label_smoothing": 0.1},
        {"optim__label_smoothing": 0.1, "teacher": "none"},
    ],
)
def test_every_way_to_distil_stacks_with_a_ramp_of_each_run(changes, recwarn):
    worker = Resident(noise(96), CPU, recorded=True)
    ramps = zip(three(**changes), (0, 1, 2), strict=True)
    configs = [config.updated({"distill.ramp_epochs": ramp}) for config, ramp in ramps]
    assert_equal(as_one(worker, configs), one_by_one(worker, configs), rtol=1e-5, atol=1e-5)
    assert not [one for one in recwarn if "batching rule" in str(one.message)]


def test_runs_with_other_ramps_have_their_epochs_as_one():
    worker, rows = Resident(noise(96), CPU, recorded=True), torch.arange(96)
    configs = [glyphs(optim__warmup_epochs=0, distill__weight=4.0, distill__ramp_epochs=ramp) for ramp in (0, 1, 2)]
    alone, together = ([run_on(worker, config, rows[:64], rows[64:]) for config in configs] for _ in range(2))
    assert len({training.stacks_with for training in together}) == 1
    for theirs in zip(*alone, strict=True):
        for our, their in zip(advance(together), theirs, strict=True):
            assert our.train_loss == pytest.approx(their.train_loss, rel=1e-5)
            assert our.val_loss == pytest.approx(their.val_loss, rel=1e-5)


def test_runs_without_distillation_stack_too():
    worker = Resident(noise(96), CPU, recorded=True)
    configs = [config.updated({"distill.weight": 0.0}) for config in three()]
    assert_equal(as_one(worker, configs), one_by_one(worker, configs), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_runs_on_a_swin_stack():
    worker = Resident(noise(96, size=224, channels=3), CPU, recorded=True)
    configs = [
        config.updated({"student": "random:swin_tiny_patch4_window7_224", "teacher": "none"})
        for config in three(adapter__kind="lora", batch_size=2)[:2]
    ]
    trials, alone = ([Recorded(config, worker, 10) for config in configs] for _ in range(2))
    epochs = [Epoch(torch.arange(4).view(2, 2) + 4 * run, 1e-3, 0.0) for run in range(2)]
    theirs = torch.stack([t.train(e.order, e.lr, e.weight) for t, e in zip(alone, epochs, strict=True)])
    torch.testing.assert_close(Recorded.train_together(trials, epochs), theirs, rtol=1e-4, atol=1e-4)


def test_bf16_masters_of_stacked_runs_learn_as_those_of_single_ones():
    worker = Resident(noise(96), CPU, recorded=True)
    configs = three(precision="bf16")
    ours, theirs = as_one(worker, configs)[0], one_by_one(worker, configs)[0]
    for (our, _), (their, _) in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=2e-2, atol=2e-2)


def test_runs_may_join_and_leave_between_epochs():
    worker = Resident(noise(96), CPU, recorded=True)
    configs = three()
    alone, _ = one_by_one(worker, configs)
    trials = [Recorded(config, worker, 10) for config in configs]
    first, second = (epochs_of(configs, seed) for seed in range(2))
    losses = Recorded.train_together(trials[:2], first[:2])
    torch.testing.assert_close(losses, alone[0][0][:2], rtol=1e-5, atol=1e-5)
    losses = Recorded.train_together([trials[2]], [first[2]])
    torch.testing.assert_close(losses, alone[0][0][2:], rtol=1e-5, atol=1e-5)
    # In other company, and in another order.
    losses = Recorded.train_together(trials[1:][::-1], second[1:][::-1])
    torch.testing.assert_close(losses.flip(0), alone[1][0][1:], rtol=1e-5, atol=1e-5)


def test_a_run_that_diverges_leaves_the_others_as_they_are():
    worker = Resident(noise(96), CPU, recorded=True)
    configs = three()
    trials, alone = ([Recorded(config, worker, 10) for config in configs] for _ in range(2))
    epochs = epochs_of(configs, 0)
    wild = [epochs[0], Epoch(epochs[1].order, 1e30, 1.0), epochs[2]]
    for _ in range(2):
        losses = Recorded.train_together(trials, wild)
        theirs = torch.stack(
            [alone[run].train(epochs[run].order, epochs[run].lr, epochs[run].weight) for run in (0, 2)]
        )
    assert not losses[1].isfinite().all()
    torch.testing.assert_close(losses[[0, 2]], theirs, rtol=1e-5, atol=1e-5)


def places(own):
    """Addresses of all that a recorded step reads and writes."""
    optimizer = own.optimizer
    state = [value for values in optimizer._adamw.state.values() for value in values.values()]
    rows = [value for row in optimizer._rows for value in (row, row.grad)]
    rates = [group["lr"] for group in optimizer._adamw.param_groups]
    mine = [value for of in (own, optimizer) for value in vars(of).values() if isinstance(value, torch.Tensor)]
    trained = [value for model in own.models for value in model.parameters()]
    return [value.data_ptr() for value in (*state, *rows, *rates, *mine, *trained)]


def test_what_a_recorded_step_of_several_runs_reads_and_writes_never_moves():
    worker = Resident(noise(96), CPU, recorded=True)
    trials = [Recorded(config, worker, 10) for config in three()]
    Recorded.train_together(trials, epochs_of(three(), 0))
    own = trials[0]._recording_of(3)
    before = places(own)
    assert len(set(before)) > 20
    Recorded.train_together(trials[::-1], epochs_of(three(), 1))
    Recorded.validate_together(trials, [torch.arange(64, 96)] * 3)
    assert trials[0]._recording_of(3) is own
    assert places(own) == before


def test_no_step_of_several_runs_waits_for_the_device():
    worker = Resident(noise(96), CPU, recorded=True)
    trials = [Recorded(config, worker, 10) for config in three()]
    epochs = epochs_of(three(), 0)
    Recorded.train_together(trials, epochs)  # which makes the recording
    with Waits() as waits:
        Recorded.train_together(trials, epochs)
        Recorded.validate_together(trials, [torch.arange(64, 96)] * 3)
    assert waits.found == []


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_recorded_steps_of_several_runs_have_the_losses_of_single_ones(precision):
    worker = Resident(noise(96), torch.device("cuda"))
    configs = three(device="cuda", precision=precision)
    tolerance = 1e-4 if precision == "fp32" else 2e-2
    assert_equal(as_one(worker, configs), one_by_one(worker, configs), rtol=tolerance, atol=tolerance, miscounted=1)


@pytest.mark.parametrize("kind", KINDS)
def test_what_stacks_is_what_trains_linear_layers_alone(kind):
    worker = Resident(noise(96), CPU, recorded=True)
    config = glyphs(adapter__kind=kind)
    for model in build_pair(config, 10):
        layers = [layer for layer in model.modules() if type(layer) is torch.nn.Linear]
        in_layers = {id(value) for layer in layers for value in layer.parameters()}
        trained = [value for value in model.parameters() if value.requires_grad]
        assert all(id(value) in in_layers for value in trained) is (kind in STACKABLE)
    assert (Recorded(config, worker, 10).stacks_with is not None) is (kind in STACKABLE)


def test_only_runs_of_one_shape_stack():
    worker = Resident(noise(96), CPU, recorded=True)
    config = glyphs(adapter__kind="parallel", adapter__hidden_dim=8)
    alike = {"adapter.hidden_dim": 3, "adapter.scale": 5.0, "optim.lr": 1e-4, "seed": 7, "epochs": 9}
    alike |= {"distill.ramp_epochs": 3}
    others = [{"adapter.hidden_dim": 9}, {"adapter.kind": "sequential"}, {"teacher": "none"}, {"batch_size": 16}]
    others += [{"distill.standardise": True}, {"distill.target": "mean"}, {"optim.label_smoothing": 0.1}]
    with_it, *apart = (Recorded(config.updated(changes), worker, 10).stacks_with for changes in (alike, *others))
    assert Recorded(config, worker, 10).stacks_with == with_it
    assert with_it not in apart

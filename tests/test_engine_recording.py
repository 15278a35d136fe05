"""Steps on buffers that never move: what the eager ones give, for every trial of a shape; padding stays zero."""

from types import SimpleNamespace

import pytest
import torch
from conftest import glyphs, noise
from waits import Waits

from idat_tune.engine import optimizer
from idat_tune.engine.graphs import Recorder
from idat_tune.engine.recorded import shape_of
from idat_tune.engine.recording import MaskedPath, Recording, _masked
from idat_tune.engine.resident import Resident
from idat_tune.errors import OutOfMemory
from idat_tune.kinds import KINDS
from idat_tune.run import run_on

CPU = torch.device("cpu")


def resident(recorded=True):
    return Resident(noise(96), CPU, recorded)


def halves():
    return torch.arange(96)[:64], torch.arange(96)[64:]


def losses_of(training):
    return [(epoch.train_loss, epoch.val_loss) for epoch in training]


def logits(model):
    with torch.no_grad():
        return model.eval()(torch.as_tensor(noise(20, seed=1).pixels))


def state_bytes(training):
    list(training)
    models = [model for model in (training.student, training.teacher) if model is not None]
    return [value.numpy().tobytes() for model in models for value in model.trained_state().values()]


@pytest.mark.parametrize(("kind", "targets"), [*((kind, "qv") for kind in KINDS), ("lora", "qkv"), ("lora", "all")])
@pytest.mark.parametrize("teacher", ["none", "glyph_small"])
def test_a_recorded_run_has_the_losses_and_the_logits_of_the_eager_one(kind, targets, teacher):
    config = glyphs(
        adapter__kind=kind,
        adapter__targets=targets,
        adapter__hidden_dim=6,
        adapter__scale=0.7,
        teacher=teacher,
        distill__temperature=3.0,
        distill__weight=4.0,
        distill__stop_epoch=2,
        epochs=3,
        optim__warmup_epochs=1,
        optim__weight_decay=0.05,
        optim__lr=2e-3,
    )
    eager, recorded = (run_on(resident(way), config, *halves()) for way in (False, True))
    for ours, theirs in zip(losses_of(recorded), losses_of(eager), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
    torch.testing.assert_close(logits(recorded.student), logits(eager.student), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("loss", ["mse", "mae", "cos"])
def test_every_loss_on_logits_is_recorded(loss):
    config = glyphs(distill__loss=loss, distill__weight=2.0, optim__warmup_epochs=0)
    eager, recorded = (run_on(resident(way), config, *halves()) for way in (False, True))
    for ours, theirs in zip(losses_of(recorded), losses_of(eager), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)


WAYS = {
    "standardise": {"distill__standardise": True, "distill__temperature": 2.0},
    "mean": {"distill__target": "mean", "distill__square_temperature": True},
    "mean, detached": {"distill__target": "mean", "distill__detach_teacher": True, "distill__standardise": True},
    "ramp": {"distill__ramp_epochs": 2, "distill__weight": 5.0, "distill__stop_epoch": 3},
    "smoothing": {"optim__label_smoothing": 0.1},
    "smoothing alone": {"optim__label_smoothing": 0.1, "teacher": "none"},
    "all": {
        "distill__standardise": True,
        "distill__target": "mean",
        "distill__ramp_epochs": 3,
        "optim__label_smoothing": 0.1,
    },
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["sequential", "linear"])
def test_every_way_to_distil_is_recorded(way, kind):
    config = glyphs(adapter__kind=kind, adapter__hidden_dim=6, epochs=4, optim__warmup_epochs=0, **WAYS[way])
    eager, recorded = (run_on(resident(of), config, *halves()) for of in (False, True))
    names = {"train/loss", "train/ce_student", "train/ce_teacher", "train/distill", "val/loss"}
    for ours, theirs in zip(recorded, eager, strict=True):
        ours, theirs = ({n: v for n, v in of.tracked().items() if n in names} for of in (ours, theirs))
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_distil_leaves_bf16_finite_and_near(way):
    config = glyphs(optim__warmup_epochs=0, optim__lr=1e-3, epochs=3, **WAYS[way])
    exact = losses_of(run_on(resident(), config, *halves()))
    for ours, theirs in zip(
        losses_of(run_on(resident(), config.updated({"precision": "bf16"}), *halves())), exact, strict=True
    ):
        assert ours == pytest.approx(theirs, rel=2e-2)


def test_features_are_compared_with_a_ramp_and_smooth_labels():
    config = glyphs(distill__loss="feature", distill__ramp_epochs=2, optim__label_smoothing=0.1)
    training = run_on(resident(), config, *halves())
    for epoch in training:
        weighted = epoch.train_loss - epoch.train_ce_student - epoch.train_ce_teacher
        assert 0 < weighted < epoch.train_distill
    assert not training.resident._recordings


@pytest.mark.parametrize(("kind", "many"), [("sequential", 8), ("adapter_plus", 14)])
def test_drop_path_of_a_recording_is_that_of_the_eager_path_with_the_same_masks(monkeypatch, kind, many):
    config = glyphs(adapter__kind=kind, model__drop_path=0.4, optim__warmup_epochs=0, seed=5)
    recorded, eager = (run_on(resident(way), config, *halves()) for way in (True, False))
    paths = [path for model in eager.engine.models() for path in _masked(model)]
    chances = torch.Generator().manual_seed(2**41 + 5)
    drawn, step = [], eager.engine._step

    def with_masks(index, *weighted):
        if not drawn:  # an epoch at a time, for as many steps as all images would give
            drawn.extend(torch.empty(3, len(paths), 32).uniform_(generator=chances)[:2])
        for path, chance_B in zip(paths, drawn.pop(0), strict=True):
            path.mask_B = (chance_B < path.keep) / path.keep
        return step(index, *weighted)

    monkeypatch.setattr(eager.engine, "_step", with_masks)
    assert len(paths) == many
    for ours, theirs in zip(losses_of(recorded), losses_of(eager), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)


def test_a_mask_drops_as_often_as_drop_path_and_keeps_the_mean():
    path = MaskedPath(keep=0.75).train()
    path.mask_B = (torch.rand(10_000, generator=torch.Generator().manual_seed(0)) < 0.75) / 0.75
    out = path(torch.ones(10_000, 2, 3))
    assert out.unique().tolist() == pytest.approx([0, 4 / 3])
    assert out.mean().item() == pytest.approx(1, abs=0.02)
    assert torch.equal(path.eval()(out), out)


def test_trials_of_one_shape_share_a_recording_and_are_not_changed_by_each_other():
    worker = resident()
    first = glyphs(adapter__hidden_dim=5, adapter__kind="parallel", optim__warmup_epochs=0, model__drop_path=0.2)
    changes = {
        "adapter.hidden_dim": 8,
        "adapter.scale": 3.0,
        "adapter.init": "zero_up",
        "distill.temperature": 9.0,
        "distill.weight": 30.0,
        "distill.ramp_epochs": 2,
        "optim.lr": 2e-2,
        "optim.weight_decay": 0.1,
        "seed": 9,
        "epochs": 3,
    }
    one, other, again = (state_bytes(run_on(worker, c, *halves())) for c in (first, first.updated(changes), first))
    assert len(worker._recordings) == 1
    assert one == again != other
    assert other == state_bytes(run_on(resident(), first.updated(changes), *halves()))


def test_a_student_keeps_its_values_when_the_next_trial_takes_the_recording():
    worker = resident()
    first = run_on(worker, glyphs(optim__warmup_epochs=0), *halves())
    list(first)
    second = run_on(worker, glyphs(optim__warmup_epochs=0, seed=1), *halves())
    kept = first.student.trained_state()
    list(second)
    again = first.student.trained_state()
    assert all(torch.equal(kept[name], again[name]) for name in kept)
    assert any(not torch.equal(kept[name], value) for name, value in second.student.trained_state().items())


def test_values_given_to_a_trained_student_stay():
    training = run_on(resident(), glyphs(), *halves())
    before = training.student.trained_state()
    list(training)
    training.student.load_trained_state(before)
    assert all(torch.equal(value, before[name]) for name, value in training.student.trained_state().items())


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.pads])
@pytest.mark.parametrize("init", ["trunc_normal", "zero_up"])
def test_padding_is_exactly_zero_before_and_after_every_step(kind, init):
    config = glyphs(
        adapter__kind=kind,
        adapter__hidden_dim=5,
        adapter__init=init,
        optim__warmup_epochs=0,
        optim__weight_decay=0.1,
        optim__lr=1e-2,
    )
    training = run_on(resident(), config, *halves())
    own: Recording = training.engine._recording_of(1)
    assert own.shape.adapter.hidden_dim == 8

    def outside():
        places = own.optimizer.places(training.engine.standing.learnt)
        for padded, fresh in zip(own.models, training.engine._fresh, strict=True):
            for name, value in fresh.trainable().items():
                rest = places[id(padded.trainable()[name])].clone()
                rest[tuple(map(slice, value.shape))] = 0
                yield rest

    assert sum(value.numel() for value in outside()) > training.student.trainable_params()
    for _ in range(3):
        assert not any(value.any() for value in outside())
        training.engine.train(torch.arange(64).view(2, 32), 1e-2, 1.0)
    assert not any(value.any() for value in outside())


def test_hidden_dimensions_fall_into_few_shapes():
    kinds = {"sequential": [8, 8, 16, 32, 64, 65], "repadapter": [2, 8, 10, 32, 64, 66]}
    for kind, wanted in kinds.items():
        asked = [2, 8, 10, 32, 64, 66] if kind == "repadapter" else [1, 8, 9, 17, 64, 65]
        configs = [glyphs(adapter__kind=kind, adapter__hidden_dim=size) for size in asked]
        assert [shape_of(config, 768).adapter.hidden_dim for config in configs] == wanted
    assert shape_of(glyphs(adapter__hidden_dim=20), 30).adapter.hidden_dim == 20


def test_a_recording_in_bf16_keeps_masters_in_fp32_and_learns_the_same():
    config = glyphs(optim__warmup_epochs=0, optim__lr=1e-3, epochs=3)
    exact = losses_of(run_on(resident(), config, *halves()))
    training = run_on(resident(), config.updated({"precision": "bf16"}), *halves())
    own = training.engine._recording_of(1)
    assert {value.dtype for model in own.models for value in model.parameters()} == {torch.bfloat16}
    assert own.optimizer.flat_RP.dtype is torch.float32
    for ours, theirs in zip(losses_of(training), exact, strict=True):
        assert ours == pytest.approx(theirs, rel=2e-2)
    assert {value.dtype for value in training.student.trained_state().values()} == {torch.float32}


def said(caplog):
    """What the log has of ours."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("idat_tune")]


def as_if_recorded(self, function, undone):
    """What being recorded does to a recording: calls the function a few times, and takes that back."""
    with undone():
        for _ in range(4):
            function()
    return function


@pytest.mark.parametrize("way", WAYS)
def test_recording_leaves_no_trace_even_in_the_middle_of_a_trial(monkeypatch, way):
    changes = {"epochs": 4, "distill__stop_epoch": 1, **WAYS[way]}
    config = glyphs(optim__warmup_epochs=0, model__drop_path=0.2, **changes)
    plain = state_bytes(run_on(resident(), config, *halves()))
    monkeypatch.setattr(Recorder, "recorded", as_if_recorded)
    assert state_bytes(run_on(resident(), config, *halves())) == plain


def test_what_a_recorded_step_reads_and_writes_never_moves():
    worker = resident()
    training = run_on(worker, glyphs(adapter__hidden_dim=5), *halves())
    list(training)
    own = training.engine._recording_of(1)

    def places():
        state = [value for values in own.optimizer._adamw.state.values() for value in values.values()]
        mine = [v for of in (own, own.optimizer) for v in vars(of).values() if isinstance(v, torch.Tensor)]
        parameters = [value for model in own.models for value in (*model.parameters(), *model.buffers())]
        parts = [part for of_one in own.parts for part in of_one]
        return [value.data_ptr() for value in (*state, *mine, *parameters, *parts, worker.labels)]

    before = places()
    list(run_on(worker, glyphs(adapter__hidden_dim=7, optim__lr=2e-2, seed=4), *reversed(halves())))
    assert places() == before


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("way", ["all", "mean, detached"])
def test_no_step_waits_for_the_device(recorded, way):
    training = run_on(resident(recorded), glyphs(model__drop_path=0.2, epochs=4, **WAYS[way]), *halves())
    with Waits() as waits:
        training.engine.train(torch.arange(64).view(2, 32), 1e-3, 1.0, 0.5)
        training.engine.validate(torch.arange(96))
    assert waits.found == []


@pytest.mark.parametrize(
    ("recorded", "changes", "wanted"),
    [
        (None, {}, False),
        (None, {"precision": "bf16"}, True),
        (True, {}, True),
        (False, {"precision": "bf16"}, False),
        (True, {"distill__loss": "feature"}, False),
        (True, {"adapter__kind": "mosa"}, False),
        (True, {"adapter__kind": "arc", "adapter__dropout": 0.1}, False),
        (True, {"adapter__kind": "sequential", "adapter__dropout": 0.1}, True),
    ],
)
def test_a_run_takes_a_recording_where_that_pays(recorded, changes, wanted):
    worker = resident(recorded)
    losses_of(run_on(worker, glyphs(**changes), *halves()))
    assert bool(worker._recordings) is wanted


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_room_between_what_trains_changes_nothing_and_stays_zero(monkeypatch, precision):
    config = glyphs(adapter__hidden_dim=5, optim__warmup_epochs=0, optim__weight_decay=0.1, precision=precision)
    close, apart = resident(), resident()
    ours = losses_of(run_on(close, config, *halves()))
    monkeypatch.setattr(optimizer, "UNIT", {"cpu": 64})
    trained = run_on(apart, config, *halves())
    for our, their in zip(losses_of(trained), ours, strict=True):
        assert our == pytest.approx(their, rel=1e-6 if precision == "fp32" else 1e-2)
    (made,) = apart._recordings.values()
    parameters = [parameter for model in made.models for parameter in model.trainable().values()]
    assert all(parameter.storage_offset() % 64 == 0 for parameter in parameters)
    numbers = sum(parameter.numel() for parameter in parameters)
    learnt = trained.engine.standing.learnt
    assert learnt.values.shape[1] > numbers >= (learnt.values != 0).sum(dim=1).max()


def test_what_a_recording_takes_of_a_gpu_is_what_its_replays_take(monkeypatch):
    made = Recording.__new__(Recording)
    made.resident, made.working = SimpleNamespace(device=torch.device("cuda")), 0
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 5_000)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    for peak, wanted in ((8_000, 3_000), (6_000, 3_000), (9_000, 4_000)):
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device, peak=peak: peak)
        made._measured(lambda: None)
        assert made.working == wanted


@pytest.mark.gpu
def test_trials_of_one_shape_report_one_peak():
    worker = Resident(noise(96), torch.device("cuda"))
    config = glyphs(device="cuda", batch_size=32, adapter__hidden_dim=6)
    runs = [run_on(worker, config.updated({"seed": seed}), *halves()) for seed in (0, 1)]
    first, second = (max(epoch.gpu_memory_gb for epoch in training) for training in runs)
    assert second == pytest.approx(first, rel=0.1)


@pytest.mark.gpu
def test_recorded_steps_have_the_losses_of_the_eager_ones():
    images = noise(96)
    config = glyphs(device="cuda", adapter__hidden_dim=6, optim__warmup_epochs=0, distill__stop_epoch=1)
    device = torch.device("cuda")
    eager, recorded = (run_on(Resident(images, device, way), config, *halves()) for way in (False, True))
    for ours, theirs in zip(losses_of(recorded), losses_of(eager), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("way", WAYS)
def test_recorded_steps_distil_in_every_way_as_eager_ones_do(way):
    config = glyphs(device="cuda", adapter__hidden_dim=6, epochs=4, optim__warmup_epochs=0, **WAYS[way])
    device = torch.device("cuda")
    eager, recorded = (run_on(Resident(noise(96), device, of), config, *halves()) for of in (False, True))
    for ours, theirs in zip(losses_of(recorded), losses_of(eager), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    assert recorded.resident.recorder.failures == 0


@pytest.mark.gpu
def test_epochs_are_shuffled_on_the_device_by_the_seed():
    worker = Resident(noise(96), torch.device("cuda"))
    first, again, other = (
        [training._order() for _ in range(2)]
        for training in (run_on(worker, glyphs(device="cuda", seed=seed), *halves()) for seed in (3, 3, 4))
    )
    assert all(order.device.type == "cuda" for order in first)
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], other[0])


@pytest.mark.gpu
def test_two_streams_give_what_one_gives():
    config = glyphs(device="cuda", optim__warmup_epochs=0)
    device = torch.device("cuda")
    one, two = (run_on(Resident(noise(96), device, two_streams=way), config, *halves()) for way in (False, True))
    for ours, theirs in zip(losses_of(two), losses_of(one), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


@pytest.mark.gpu
def test_recorded_trials_are_not_changed_by_each_other():
    worker = Resident(noise(96), torch.device("cuda"))
    first = glyphs(device="cuda", precision="auto", adapter__hidden_dim=5, optim__warmup_epochs=0, model__drop_path=0.2)
    other = first.updated({"adapter.hidden_dim": 7, "optim.lr": 2e-2, "seed": 9})
    one, _, again = (state_bytes(run_on(worker, config, *halves())) for config in (first, other, first))
    assert one == again


@pytest.mark.gpu
def test_a_gpu_out_of_memory_is_told_with_its_peak_and_the_worker_lives_on():
    device = torch.device("cuda")
    worker = Resident(noise(256, size=224, channels=3), device)
    small = glyphs(student="random:vit_base", teacher="none", device="cuda", precision="auto", batch_size=2, epochs=1)
    rows = torch.arange(256)
    list(run_on(worker, small, rows, rows[:0]))
    whole = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, 3e9 / whole))
    try:
        with pytest.raises(OutOfMemory, match=r"cuda ran out of memory of .* GB of them at the peak .* batch_size 256"):
            list(run_on(worker, small.updated({"batch_size": 256}), rows, rows[:0]))
        list(run_on(worker, small, rows, rows[:0]))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)

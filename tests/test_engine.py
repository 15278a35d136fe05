"""The lean engine: each shortcut gives what the plain path gives."""

import gc
import time
from types import SimpleNamespace

import pytest
import torch
from conftest import glyphs, noise
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from idat_tune.data import Images
from idat_tune.distill import distillation
from idat_tune.engine import devices, room
from idat_tune.engine.cut import Cut
from idat_tune.engine.devices import bf16, choose_attention, choose_device
from idat_tune.engine.optimizer import decay_groups, scheduler_for
from idat_tune.engine.resident import Resident
from idat_tune.errors import OutOfMemory
from idat_tune.kinds import KINDS
from idat_tune.model import build, build_pair
from idat_tune.run import run, run_on

PRECISIONS = ("auto", "bf16", "fp32")
VIT, SWIN = "random:vit_tiny_patch16_224", "random:swin_tiny_patch4_window7_224"


def moved(name, **changes):
    """A student whose trainable values are far from their initial ones, in training mode."""
    config = glyphs(student=name, teacher="none", **changes)
    model = build(name, 10, config, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.trainable().values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model


def loss_and_gradients(model, logits_BC):
    labels_B = torch.arange(len(logits_BC)) % 10
    trainable = model.trainable()
    loss = F.cross_entropy(logits_BC, labels_B)
    return loss.detach(), dict(zip(trainable, torch.autograd.grad(loss, list(trainable.values())), strict=True))


@pytest.mark.parametrize("drop_path", [0.0, 0.3])
@pytest.mark.parametrize("kind", KINDS)
def test_a_split_model_has_the_loss_and_the_gradients_of_the_plain_one(kind, drop_path):
    model = moved("glyph_base", adapter__kind=kind, model__drop_path=drop_path)
    pixels = torch.as_tensor(noise(6).pixels)
    split = Cut(model)
    parts = split.prefix(pixels)
    torch.manual_seed(0)
    loss, gradients = loss_and_gradients(model, model(pixels))
    torch.manual_seed(0)
    ours, our_gradients = loss_and_gradients(model, split.suffix(parts))
    torch.testing.assert_close(ours, loss, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(our_gradients, gradients, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("targets", ["qkv", "all"])
def test_lora_is_split_whatever_it_updates(targets):
    model = moved("glyph_base", adapter__kind="lora", adapter__targets=targets)
    pixels = torch.as_tensor(noise(6).pixels)
    split = Cut(model)
    ours, theirs = (loss_and_gradients(model, of) for of in (split.suffix(split.prefix(pixels)), model(pixels)))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_what_is_cached_is_all_that_precedes_what_trains():
    keys = {kind: Cut(moved("glyph_base", adapter__kind=kind)).key for kind in KINDS}
    assert keys == {
        "sequential": (0, "Sequential.frozen"),
        "adapter_plus": (0, "Sequential.frozen"),
        "parallel": (0, "Parallel.frozen"),
        "adaptformer": (0, "Parallel.frozen"),
        "parallel_shared": (0, "ParallelShared.frozen"),
        "convpass": (0, "Convpass.frozen"),
        "res_adapter": (0, "ResAdapters.frozen"),
        "vpt_deep": (0, "AdaptedBlock.frozen"),
        "lora": (0, ""),
        "arc": (0, ""),
        "fact_tt": (0, ""),
        "fact_tk": (0, ""),
        "repadapter": (0, ""),
        "linear": (3, ""),
        "full": (-1, ""),
        "bitfit": (-1, ""),
        "ssf": (-1, ""),
        "mosa": (0, "Parallel.frozen"),
        "mona": (0, "Mona.frozen"),
        "dora": (0, ""),
        "vera": (0, ""),
        "ia3": (0, ""),
        "difffit": (-1, ""),
        "ln": (0, ""),
        "rlrr": (-1, ""),
    }
    assert Cut(moved("glyph_base", adapter__kind="linear", model__drop_path=0.1)).key == (1, "")
    # What is random there begins behind the block.
    assert Cut(moved("glyph_base", adapter__kind="adapter_plus", model__drop_path=0.1)).key == keys["sequential"]


def test_models_of_one_key_share_a_prefix():
    pixels = torch.as_tensor(noise(6).pixels)
    one, other = (Cut(moved("glyph_base", adapter__kind=kind)) for kind in ("parallel", "adaptformer"))
    assert all(torch.equal(a, b) for a, b in zip(one.prefix(pixels), other.prefix(pixels), strict=True))


@pytest.mark.parametrize("whole", [False, True])
def test_where_a_model_cannot_be_split_the_prefix_is_the_pixels(whole):
    model = moved("glyph_base" if whole else SWIN)
    split = Cut(model, whole)
    pixels = torch.as_tensor(noise(2).pixels) if whole else torch.zeros(1, 3, 224, 224)
    assert not split.cuts
    assert split.prefix(pixels)[0] is pixels
    assert torch.equal(split.suffix((pixels,)), model(pixels))


def test_a_backbone_of_timm_is_split_to_1e_5():
    model = moved(VIT)
    pixels = torch.as_tensor(noise(3, size=224, channels=3).pixels)
    split = Cut(model)
    torch.testing.assert_close(split.suffix(split.prefix(pixels)), model(pixels), rtol=1e-5, atol=1e-5)


def plainly_trained(config, images):
    """Losses per epoch and the trained student of the eager loop that the engine replaces, without its shortcuts."""
    student, teacher = build_pair(config, 10)
    adamw = torch.optim.AdamW(decay_groups(config.optim, [student, teacher]), lr=config.optim.lr)
    scheduler = scheduler_for(config, adamw)
    pixels, labels = torch.tensor(images.pixels), torch.tensor(images.labels)
    shuffle = torch.Generator().manual_seed(config.seed)
    torch.manual_seed(config.seed)
    epochs = []
    steps, share = len(labels) // config.batch_size, config.optim.label_smoothing
    for epoch in range(config.total_epochs):
        order = torch.randperm(len(labels), generator=shuffle)
        losses = []
        for step, index in enumerate(order.split(config.batch_size)[:steps]):
            ours, theirs = student(pixels[index]), teacher(pixels[index])
            smooth = (1 - share) * F.one_hot(labels[index], 10) + share / 10
            ce = F.cross_entropy(ours, smooth) + F.cross_entropy(theirs, labels[index])
            ramp = config.distill.ramp_epochs
            weight = config.distill.weight * (min(1.0, (epoch * steps + step) / (ramp * steps)) if ramp else 1.0)
            loss = ce + weight * distillation(ours, theirs, config.distill)
            adamw.zero_grad()
            loss.backward()
            adamw.step()
            losses.append(loss.item())
        epochs.append(sum(losses) / len(losses))
        scheduler.step(epoch + 1)
    return epochs, student


@pytest.mark.parametrize("kind", ["sequential", "parallel", "parallel_shared", "full", "linear"])
def test_a_run_has_the_losses_of_the_plain_loop_with_the_same_random_stream(kind):
    config = glyphs(
        adapter__kind=kind,
        model__drop_path=0.2,
        epochs=3,
        optim__warmup_epochs=0,
        optim__weight_decay=0.05,
        optim__lr=1e-3,
    )
    losses, student = plainly_trained(config, noise(96))
    training = run(config, noise(96))
    assert [epoch.train_loss for epoch in training] == pytest.approx(losses, rel=1e-5)
    pixels = torch.as_tensor(noise(20, seed=1).pixels)
    with torch.no_grad():
        ours, theirs = (model.eval()(pixels) for model in (training.student, student))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"distill__ramp_epochs": 2, "distill__weight": 5.0},
        {"distill__standardise": True, "distill__temperature": 2.0, "distill__ramp_epochs": 3},
        {"distill__target": "mean", "distill__square_temperature": True, "optim__label_smoothing": 0.2},
    ],
)
@pytest.mark.parametrize("recorded", [False, True])
def test_every_way_to_distil_has_the_losses_of_the_plain_loop(changes, recorded):
    config = glyphs(epochs=3, optim__warmup_epochs=0, optim__lr=1e-3, **changes)
    losses, _ = plainly_trained(config, noise(96))
    training = run_on(Resident(noise(96), torch.device("cpu"), recorded), config, torch.arange(96), torch.arange(0))
    assert [epoch.train_loss for epoch in training] == pytest.approx(losses, rel=1e-5)


# Workers that live on: every trial finds what the ones before it left, and is not changed by it.


def halves(count=96):
    return torch.arange(count)[:64], torch.arange(count)[64:]


def state_bytes(training):
    list(training)
    return {
        f"{role}.{name}": value.numpy().tobytes()
        for role, model in (("student", training.student), ("teacher", training.teacher))
        if model is not None
        for name, value in model.trained_state().items()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_trial_is_not_changed_by_the_one_before_it(kind):
    resident = Resident(noise(96), torch.device("cpu"))
    first = glyphs(adapter__kind=kind, model__drop_path=0.2, optim__warmup_epochs=0)
    other = glyphs(adapter__kind="full", seed=7, student="glyph_small", teacher="glyph_base", optim__lr=1e-2)
    one, _, again = (state_bytes(run_on(resident, config, *halves())) for config in (first, other, first))
    assert one == again
    images = noise(96)
    alone = run(first, Images(images.pixels[:64], images.labels[:64]), Images(images.pixels[64:], images.labels[64:]))
    assert state_bytes(alone) == one


def test_trials_of_a_worker_share_frozen_values_but_nothing_that_trains():
    resident = Resident(noise(96), torch.device("cpu"))
    one, other = (run_on(resident, glyphs(adapter__kind="bitfit"), *halves()).student for _ in range(2))
    pairs = zip(one.named_parameters(), other.named_parameters(), strict=True)
    for (name, ours), (_, theirs) in pairs:
        assert (ours.data_ptr() == theirs.data_ptr()) is not ours.requires_grad, name


def test_a_worker_computes_a_prefix_once_for_all_splits_of_its_images():
    resident = Resident(noise(96), torch.device("cpu"))
    parts = []
    for seed, rows in enumerate((halves(), halves()[::-1], (torch.arange(96), torch.arange(0)))):
        parts += run_on(resident, glyphs(seed=seed, adapter__hidden_dim=4 + seed), *rows).engine.parts
    assert len({part.data_ptr() for (part,) in parts}) == 2


def room_for(monkeypatch, many):
    """Let as many bytes find room; what other tests left alive is gone."""
    gc.collect()
    monkeypatch.setattr("idat_tune.engine.room.CPU_ROOM", many)


def bytes_of(training):
    return sum(part.nbytes for parts in training.engine.parts for part in parts)


@pytest.mark.parametrize("recorded", [False, True])
def test_prefixes_that_are_alive_never_take_more_than_their_room(recorded, monkeypatch):
    resident = Resident(noise(96), torch.device("cpu"), recorded)
    most = 2 * bytes_of(run_on(Resident(noise(96), torch.device("cpu"), False), glyphs(), *halves()))
    room_for(monkeypatch, most)
    held = []
    for kind in ("sequential", "parallel", "parallel_shared", "convpass", "vpt_deep", "sequential"):
        list(run_on(resident, glyphs(adapter__kind=kind, epochs=1), *halves()))
        gc.collect()
        held.append(resident.prefix_bytes())
        alive = {part.data_ptr(): part.nbytes for part in room._ALIVE}
        assert sum(alive.values()) == held[-1]
    assert max(held) <= most
    assert min(held) > 0


def test_a_prefix_that_a_run_holds_is_counted_though_the_worker_has_let_go_of_it(monkeypatch):
    resident = Resident(noise(96), torch.device("cpu"))
    kept = run_on(resident, glyphs(), *halves())
    room_for(monkeypatch, 2 * bytes_of(kept))
    beside = run_on(resident, glyphs(adapter__kind="vpt_deep"), *halves())
    without = run_on(resident, glyphs(adapter__kind="lora", adapter__hidden_dim=4), *halves())
    assert [training.engine.splits[0].cuts for training in (kept, beside, without)] == [True, True, False]
    assert resident.prefix_bytes() == bytes_of(kept) + bytes_of(beside)


def test_all_workers_of_a_process_share_one_budget(monkeypatch):
    first, second = (Resident(noise(96), torch.device("cpu")) for _ in range(2))
    kept = run_on(first, glyphs(), *halves())
    room_for(monkeypatch, 2 * bytes_of(kept) - 1)
    assert not run_on(second, glyphs(), *halves()).engine.splits[1].cuts
    del kept, first
    gc.collect()
    assert run_on(second, glyphs(), *halves()).engine.splits[1].cuts


def test_workers_that_share_a_gpu_divide_its_room(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=80 * 2**30))
    assert [room.room(torch.device("cuda"), share) / 2**30 for share in (1.0, 0.25)] == [10, 2.5]


def test_a_run_without_room_for_its_prefix_learns_the_same(monkeypatch):
    resident = Resident(noise(96), torch.device("cpu"))
    kept = run_on(resident, glyphs(), *halves())
    room_for(monkeypatch, 1000)
    without = run_on(Resident(noise(96), torch.device("cpu")), glyphs(), *halves())
    assert not without.engine.splits[0].cuts
    losses = [[epoch.train_loss for epoch in training] for training in (kept, without)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.slow
def test_memory_does_not_grow_over_many_trials():
    resident = Resident(noise(96), torch.device("cpu"))
    alive, kinds = [], (torch.Tensor, torch.nn.Parameter)
    for seed in range(200):
        training = run_on(resident, glyphs(seed=seed, epochs=1, batch_size=64, teacher="none"), *halves())
        list(training)
        del training
        if seed % 50 == 49:
            gc.collect()
            alive.append(sum(value.nbytes for value in gc.get_objects() if type(value) in kinds))
    assert max(alive) == min(alive)


class Limit(TorchDispatchMode):
    """A device with so much room that one result may be this large."""

    def __init__(self, largest):
        super().__init__()
        self.largest = largest

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.nbytes > self.largest:
            raise torch.OutOfMemoryError(f"tried to allocate {result.nbytes} bytes")
        return result


@pytest.mark.parametrize("recorded", [False, True])
def test_a_run_out_of_memory_says_which_and_the_worker_lives_on(recorded):
    resident = Resident(noise(96), torch.device("cpu"), recorded)
    config = glyphs(batch_size=64, optim__warmup_epochs=0)
    before = state_bytes(run_on(resident, config, *halves()))
    training = run_on(resident, config, *halves())
    with Limit(500_000), pytest.raises(OutOfMemory) as caught:
        list(training)
    assert "cpu ran out of memory: student glyph_base, teacher glyph_small" in str(caught.value)
    assert "batch_size 64; take a smaller batch_size" in str(caught.value)
    del training, caught  # which holds it too
    gc.collect()
    assert resident.prefix_bytes() == 0
    assert before == state_bytes(run_on(resident, config, *halves()))


def test_a_cpu_out_of_memory_says_so_too(monkeypatch):
    training = run(glyphs(), noise())
    monkeypatch.setattr(training.engine, "_step", lambda *_: torch.empty(2**50))
    with pytest.raises(OutOfMemory, match="cpu ran out of memory"):
        list(training)


def test_other_failures_stay_what_they_are(monkeypatch):
    training = run(glyphs(), noise())
    monkeypatch.setattr(training.engine, "_step", lambda *_: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="size"):
        list(training)


# Devices.


def test_auto_passes_over_a_device_that_cannot_compute(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # here it is not, so that computing on it fails
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"
    (line,) = caplog.messages
    assert line.startswith("cuda cannot be used, falling back to cpu: ")
    assert "\n" not in line


def test_auto_keeps_a_gpu_that_is_full_at_the_moment(monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", full)
    assert choose_device("auto").type == "cuda"


def test_attention_is_fused_but_in_bf16_on_a_cpu():
    model = moved("glyph_base")
    attentions = [module for module in model.modules() if hasattr(module, "fused_attn")]
    for low, device, wanted in ((True, "cpu", False), (False, "cpu", True), (True, "cuda", True)):
        choose_attention(model, low, torch.device(device))
        assert {module.fused_attn for module in attentions} == {wanted}


@pytest.mark.parametrize(("precision", "capability", "wanted"), [("auto", (8, 0), True), ("auto", (7, 5), False)])
def test_an_old_gpu_computes_in_fp32_unless_told_otherwise(precision, capability, wanted, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert bf16(glyphs(precision=precision), torch.device("cuda")) is wanted


@pytest.mark.parametrize(
    ("student", "faster", "wanted"),
    [
        ("vit_small", True, True),
        ("vit_small", False, False),
        ("random:swin_small", True, True),
        ("glyph_base", True, False),
        ("random:glyph_small", True, False),
    ],
)
def test_auto_takes_bf16_on_a_cpu_that_is_faster_in_it_but_for_what_is_tiny(student, faster, wanted, monkeypatch):
    monkeypatch.setattr(devices, "faster_in_bf16", lambda: faster)
    config = glyphs(student=student, teacher="none")
    by_precision = {given: bf16(config.updated({"precision": given}), torch.device("cpu")) for given in PRECISIONS}
    assert by_precision == {"auto": wanted, "bf16": True, "fp32": False}


@pytest.mark.parametrize(("times", "wanted"), [(0.5, False), (1.1, False), (2.0, True), (7.0, True)])
def test_what_is_faster_is_measured_once_in_a_process(times, wanted, monkeypatch):
    asked = []

    def seconds(dtype):
        asked.append(dtype)
        return times if dtype is torch.float32 else 1.0

    monkeypatch.setattr(devices, "_seconds_of_a_product", seconds)
    devices.faster_in_bf16.cache_clear()
    try:
        assert [devices.faster_in_bf16() for _ in range(3)] == [wanted] * 3
    finally:
        devices.faster_in_bf16.cache_clear()
    assert len(asked) == 2


def test_a_product_is_measured_in_the_blink_of_an_eye():
    began = time.thread_time()
    assert all(devices._seconds_of_a_product(dtype) > 0 for dtype in (torch.float32, torch.bfloat16))
    assert time.thread_time() - began < 2

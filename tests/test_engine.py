"""The lean engine: each shortcut gives what the plain path gives."""

import pytest
import torch
from conftest import glyphs, noise
from torch.nn import functional as F

from idat_tune.distill import distillation
from idat_tune.engine.optimizer import decay_groups, scheduler_for
from idat_tune.engine.split import Split
from idat_tune.kinds import KINDS
from idat_tune.model import build, build_pair
from idat_tune.run import run

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
    split = Split(model)
    parts = split.prefix(pixels)
    torch.manual_seed(0)
    loss, gradients = loss_and_gradients(model, model(pixels))
    torch.manual_seed(0)
    ours, our_gradients = loss_and_gradients(model, split.suffix(parts))
    torch.testing.assert_close(ours, loss, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(our_gradients, gradients, rtol=1e-4, atol=1e-5)


def test_what_is_cached_is_all_that_precedes_what_trains():
    keys = {kind: Split(moved("glyph_base", adapter__kind=kind)).key for kind in KINDS}
    assert keys == {
        "sequential": (0, "Sequential.frozen"),
        "parallel": (0, "Parallel.frozen"),
        "adaptformer": (0, "Parallel.frozen"),
        "parallel_shared": (0, "ParallelShared.frozen"),
        "convpass": (0, "Convpass.frozen"),
        "vpt_deep": (0, "AdaptedBlock.frozen"),
        "lora": (0, ""),
        "repadapter": (0, ""),
        "linear": (3, ""),
        "full": (-1, ""),
        "bitfit": (-1, ""),
        "ssf": (-1, ""),
    }
    assert Split(moved("glyph_base", adapter__kind="linear", model__drop_path=0.1)).key == (1, "")


def test_models_of_one_key_share_a_prefix():
    pixels = torch.as_tensor(noise(6).pixels)
    one, other = (Split(moved("glyph_base", adapter__kind=kind)) for kind in ("parallel", "adaptformer"))
    assert all(torch.equal(a, b) for a, b in zip(one.prefix(pixels), other.prefix(pixels), strict=True))


@pytest.mark.parametrize("whole", [False, True])
def test_where_a_model_cannot_be_split_the_prefix_is_the_pixels(whole):
    model = moved("glyph_base" if whole else SWIN)
    split = Split(model, whole)
    pixels = torch.as_tensor(noise(2).pixels) if whole else torch.zeros(1, 3, 224, 224)
    assert not split.cuts
    assert split.prefix(pixels)[0] is pixels
    assert torch.equal(split.suffix((pixels,)), model(pixels))


def test_a_backbone_of_timm_is_split_to_1e_5():
    model = moved(VIT)
    pixels = torch.as_tensor(noise(3, size=224, channels=3).pixels)
    split = Split(model)
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
    for epoch in range(config.total_epochs):
        order = torch.randperm(len(labels), generator=shuffle)
        losses = []
        for index in order.split(config.batch_size)[: len(labels) // config.batch_size]:
            ours, theirs = student(pixels[index]), teacher(pixels[index])
            ce = F.cross_entropy(ours, labels[index]) + F.cross_entropy(theirs, labels[index])
            loss = ce + config.distill_weight(epoch) * distillation(ours, theirs, config.distill)
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

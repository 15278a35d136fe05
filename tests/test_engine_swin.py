"""Swin in low precision: weights, bias tables and masks of one type, and indices that stay integers."""

import pytest
import timm
import torch
from conftest import noise

from idat_tune import model
from idat_tune.config import RunConfig
from idat_tune.engine.frozen import Frozen
from idat_tune.engine.resident import Resident
from idat_tune.kinds import KINDS
from idat_tune.run import evaluate, run_on

CPU = torch.device("cpu")
SWIN = "random:swin_tiny_patch4_window7_224"
IMAGES = noise(6, size=224, channels=3)
KINDS_OF_SWIN = [name for name, kind in KINDS.items() if "swin" in kind.families]


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """A Swin of four thin blocks, one of which shifts its windows; as quick as may be."""

    def untrained(name, image_size):
        return timm.create_model(name, num_classes=0, embed_dim=16, depths=(2, 2), num_heads=(2, 4))

    monkeypatch.setattr(model, "_untrained", untrained)


def config(kind="sequential", precision="bf16", **changes):
    flat = {"adapter.kind": kind, "precision": precision, "epochs": 2, "batch_size": 2, "optim.warmup_epochs": 0}
    return RunConfig.for_task("digits", {"student": SWIN, "teacher": SWIN, "device": "cpu", **flat, **changes})


def trained(asked, recorded):
    training = run_on(Resident(IMAGES, CPU, recorded), asked, torch.arange(4), torch.arange(4, 6))
    return training, [(epoch.train_loss, epoch.val_loss) for epoch in training]


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("kind", KINDS_OF_SWIN)
def test_a_swin_in_bf16_learns_as_in_fp32(kind, recorded):
    _, exact = trained(config(kind, "fp32"), recorded)
    training, losses = trained(config(kind), recorded)
    assert [loss for both in losses for loss in both] == pytest.approx(
        [loss for both in exact for loss in both], rel=3e-2
    )
    pixels, labels = torch.as_tensor(IMAGES.pixels), torch.as_tensor(IMAGES.labels)
    with torch.no_grad():
        logits_BC = training.student.eval()(pixels)
    assert logits_BC.dtype is torch.float32
    _, measured = evaluate(training.student, [(pixels, labels)], config())
    own = torch.nn.functional.cross_entropy(logits_BC, labels).item()
    assert own == pytest.approx(measured, rel=3e-2)


def test_features_of_swins_are_compared_in_bf16_too():
    changes = {"distill.loss": "feature"}
    _, exact = trained(config(precision="fp32", **changes), recorded=None)
    _, losses = trained(config(**changes), recorded=None)
    assert losses[0][0] == pytest.approx(exact[0][0], rel=3e-2)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("recorded", [True, False])
def test_attention_meets_no_mask_of_another_type_however_it_is_computed(fused, recorded, monkeypatch):
    monkeypatch.setattr("idat_tune.engine.devices.fused", lambda low, device: fused)
    _, losses = trained(config(), recorded)
    assert all(loss > 0 for both in losses for loss in both)


def test_what_is_frozen_is_of_one_type_but_indices():
    frozen = Frozen(CPU)
    pair = model.build_pair(config(), 10, frozen.backbone)
    for one in pair:
        frozen.place(one, torch.bfloat16)
    types = {value.dtype for value in one.backbone.parameters() if not value.requires_grad}
    buffers = {name.rpartition(".")[2]: value.dtype for name, value in one.backbone.named_buffers()}
    assert types == {torch.bfloat16}
    assert buffers == {"relative_position_index": torch.int64, "attn_mask": torch.bfloat16}
    assert one.shift.dtype is one.factor.dtype is torch.float32
    ours, theirs = ([value.data_ptr() for value in of_one.backbone.buffers()] for of_one in pair)
    assert ours == theirs

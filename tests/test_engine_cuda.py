"""What only a GPU can show: every kind, recorded against plain; bytes that repeat; and what may fail there."""

import subprocess
import sys
from contextlib import nullcontext
from functools import cache

import pytest
import torch
from conftest import glyphs, noise

from idat_tune.config import RunConfig
from idat_tune.engine import devices
from idat_tune.engine.graphs import Recorder
from idat_tune.engine.resident import Resident
from idat_tune.kinds import KINDS
from idat_tune.run import run_on

pytestmark = pytest.mark.gpu

CUDA = torch.device("cuda")
BACKBONES = {"vit": "random:vit_tiny_patch16_224", "swin": "random:swin_tiny_patch4_window7_224"}
FITTING = [(family, kind) for kind, known in KINDS.items() for family in known.families]
IMAGES, BATCH, STEPS = 24, 4, 20
TOLERANCE = {"fp32": 1e-4, "bf16": 1e-2}


@cache
def worker(recorded, replayed=True):
    """One for each way, as a worker lives on from trial to trial."""
    of = Resident(noise(IMAGES, size=224, channels=3), CUDA, recorded)
    if not replayed:
        of.recorder.recorded = lambda function, undone: function
    return of


def config(family, kind="sequential", **changes):
    flat = {key.replace("__", "."): value for key, value in changes.items()}
    settings = {"student": BACKBONES[family], "teacher": BACKBONES[family], "device": "cuda", "batch_size": BATCH}
    settings |= {"adapter.kind": kind, "adapter.hidden_dim": 6, "optim.lr": 1e-4, "optim.warmup_epochs": 0}
    return RunConfig.for_task("digits", {**settings, "epochs": 2, **flat})


def losses(of, asked):
    """Of 20 steps, one by one, and of the images left out after them."""
    rows = torch.arange(IMAGES)
    training = run_on(of, asked, rows[:20], rows[20:])
    order = torch.randint(20, (STEPS, 1, BATCH), generator=torch.Generator().manual_seed(0)).to(of.device)
    steps = [training.engine.train(index, asked.optim.lr, asked.distill.weight)[0] for index in order]
    return [*torch.stack(steps).tolist(), training.engine.validate(training.val)[0, 1].item() / len(training.val)]


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize(("family", "kind"), FITTING)
def test_recorded_steps_are_those_that_were_recorded_and_have_the_losses_of_plain_ones(family, kind, precision):
    asked = config(family, kind, precision=precision)
    recorded = losses(worker(True), asked)
    assert worker(True).recorder.failures == 0
    assert recorded == losses(worker(True, replayed=False), asked)
    assert recorded == pytest.approx(losses(worker(False), asked), rel=TOLERANCE[precision])
    assert len(set(recorded)) > STEPS / 2


@pytest.mark.parametrize("loss", ["mse", "mae", "cos"])
def test_every_loss_on_logits_is_recorded(loss):
    asked = config("vit", distill__loss=loss, precision="fp32")
    recorded, plain = (losses(worker(recorded), asked) for recorded in (True, False))
    assert recorded == pytest.approx(plain, rel=1e-4)


@pytest.mark.parametrize("family", BACKBONES)
def test_features_are_compared_on_a_gpu_as_on_a_cpu(family):
    asked = config(family, distill__loss="feature", precision="fp32")
    on_cpu = Resident(noise(IMAGES, size=224, channels=3), torch.device("cpu"))
    theirs = losses(on_cpu, asked.updated({"device": "cpu"}))
    assert losses(worker(None), asked) == pytest.approx(theirs, rel=1e-3)


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize(("family", "kind"), FITTING)
def test_a_trial_repeats_to_the_byte_whatever_the_worker_did_between(family, kind, precision):
    first = config(family, kind, precision=precision, model__drop_path=0.2)
    hidden = {"adapter.hidden_dim": 8} if "adapter.hidden_dim" in KINDS[kind].uses else {}
    other = first.updated({**hidden, "optim.lr": 2e-2, "seed": 9})
    rows = torch.arange(IMAGES)
    trained = []
    for asked in (first, other, first):
        training = run_on(worker(True), asked, rows[:20], rows[20:])
        list(training)
        state = training.student.trained_state() | training.teacher.trained_state()
        trained.append([value.numpy().tobytes() for value in state.values()])
    one, between, again = trained
    assert one == again != between


def test_a_recording_that_fails_spoils_no_later_one():
    recorder, value = Recorder(CUDA), torch.zeros(1, device=CUDA)

    def asking():
        value.add_(1)
        value.item()

    asked = recorder.recorded(asking, nullcontext)
    value.zero_()
    asked()
    step = recorder.recorded(lambda: value.mul_(2).add_(1), nullcontext)
    value.fill_(1)
    for _ in range(3):
        step()
    assert value.item() == 15
    assert recorder.failures == 1
    assert not devices.broken(CUDA)


def test_recordings_share_their_memory():
    recorder, value = Recorder(CUDA), torch.ones(2**20, device=CUDA)
    held = []
    for _ in range(5):
        recorder.recorded(lambda: value.copy_(torch.cat([value] * 64).view(64, -1).mean(0)), nullcontext)()
        held.append(torch.cuda.memory_reserved())
    assert held[-1] == held[0]
    assert value.mean().item() == 1


def test_students_that_are_tested_together_share_what_is_frozen():
    of, asked = Resident(noise(8, size=224, channels=3), CUDA), config("vit")
    students = [of.build_student(asked, 10)]
    before = torch.cuda.memory_allocated()
    students += [of.build_student(asked.updated({"seed": seed}), 10) for seed in range(1, 9)]
    frozen = sum(value.nbytes for value in students[0].parameters() if not value.requires_grad)
    assert torch.cuda.memory_allocated() - before < frozen / 2


def test_an_error_that_ends_the_device_is_told_from_one_that_does_not():
    code = (  # in a process of its own, whose device is useless afterwards
        "import torch\n"
        "from idat_tune.engine.devices import broken\n"
        "cuda = torch.device('cuda')\n"
        "torch.ones(2, device=cuda)\n"
        "print(broken(cuda))\n"
        "try:\n"
        "    torch.zeros(2, device=cuda)[torch.tensor([7], device=cuda)].sum().item()\n"
        "except RuntimeError:\n"
        "    print(broken(cuda))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["False", "True"], done.stderr


def test_memory_does_not_grow_over_trials():
    of, rows = Resident(noise(96), CUDA), torch.arange(96)
    held = []
    for number in range(60):
        changes = {"adapter__hidden_dim": 4 + number % 5, "seed": number, "batch_size": 32, "epochs": 1}
        kind = ("sequential", "parallel", "lora")[number % 3]
        asked = glyphs(device="cuda", adapter__kind=kind, optim__warmup_epochs=0, **changes)
        list(run_on(of, asked, rows[:64], rows[64:]))
        held.append(torch.cuda.memory_reserved())
    assert held[-1] == held[12]
